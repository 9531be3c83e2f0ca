"""The program `vladva`: its commands in sections, and what becomes of their errors."""

import os

import click

from vladva_clip.commands import output
from vladva_clip.commands.caption import caption
from vladva_clip.commands.card import card
from vladva_clip.commands.classify import classify
from vladva_clip.commands.embed import embed
from vladva_clip.commands.export import export
from vladva_clip.commands.hub import pull, push
from vladva_clip.commands.models import models
from vladva_clip.commands.quickstart import quickstart
from vladva_clip.commands.search import search
from vladva_clip.commands.similarity import similarity
from vladva_clip.interface import extras
from vladva_clip.interface.terminal import take_any_text

SECTIONS = {
    "Try it": (quickstart, models),
    "Pictures and texts": (classify, embed, search, similarity, caption),
    "Your own models": (export, card, push, pull),
}
EXAMPLES = """\b
Examples:
  vladva quickstart
  vladva models --fit
  vladva embed holiday/ --out holiday.npz --model qwen3-vl-embedding-2b
  vladva search holiday.npz "two children on a beach"

Exit status: 0 all done; 1 some pictures failed, the rest is done; 2 an error that you can correct; 130 Ctrl-C.
"""


class Sections(click.Group):
    """A group whose help lists its commands by section, and that names the nearest one for a word it doesn't know."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections; the width of the first column is the same in all."""
        width = max(map(len, self.commands))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                rows = [(one.name.ljust(width), one.get_short_help_str(200)) for one in commands]
                formatter.write_dl(rows, col_max=width)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        """Find the command of the first word; fails for an unknown one."""
        if not args[0].startswith("-") and args[0] not in self.commands:
            from vladva_clip.storage.config import nearest  # late: help needs none of it

            ctx.fail(f"there is no command {args[0]!r}; {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=Sections, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="vladva-clip", message="vladva %(version)s")
def group() -> None:
    """Generative vision-language models in place of CLIP: embed, find, classify and describe pictures."""


for section in SECTIONS.values():
    for command in section:
        group.add_command(command)


def run(words: list[str]) -> int:
    """Run one command; returns the exit status, with an error that the user can fix explained on stderr in one line.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    take_any_text()
    try:
        with extras.named(" ".join(["vladva", *words[:1]])):
            return group.main(words or ["--help"], "vladva", standalone_mode=False, color=_color()) or output.OK
    except click.UsageError as error:
        output.error(_usage(error))
    except click.ClickException as error:
        output.error(error.format_message())
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except (ValueError, OSError) as error:
        output.error(str(error))
    return output.WRONG_USE


def _color() -> bool | None:
    """Return False if NO_COLOR is set (no-color.org); None lets click decide, which colors only on a terminal."""
    return False if os.environ.get("NO_COLOR") else None


def _usage(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption) and error.possibilities:  # hidden options are refused: no way to go
        error.possibilities = [name for name in error.possibilities if name != "--dtype"]
    text = " ".join(error.format_message().split())
    path = error.ctx.command_path if error.ctx else "vladva"
    return f"{text} (try {path} --help)"
