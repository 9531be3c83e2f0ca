"""`vladva`: the command line. The commands themselves lie in `commands/`."""

import contextlib
import os
import sys

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
    """A group whose help lists its commands by section."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections; the width of the first column is the same in all."""
        width = max(map(len, self.commands))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                rows = [(one.name.ljust(width), one.get_short_help_str(200)) for one in commands]
                formatter.write_dl(rows, col_max=width)


@click.group(
    cls=Sections, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="vladva-clip", message="vladva %(version)s")
def group() -> None:
    """Generative vision-language models in place of CLIP: embed, find, classify and describe pictures."""


for section in SECTIONS.values():
    for command in section:
        group.add_command(command)


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0; 1 if some pictures failed; 2 for an error that the user can fix, explained on stderr in one
        line; 130 after Ctrl-C.
    """
    take_any_text()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with extras.named(" ".join(["vladva", *words[:1]])):
            return group.main(words or ["--help"], "vladva", standalone_mode=False, color=_color()) or output.OK
    except click.UsageError as error:
        output.error(_usage(error))
    except click.ClickException as error:
        output.error(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except (ValueError, OSError) as error:
        output.error(str(error))
    return output.WRONG_USE


def _color() -> bool | None:
    """No colors with NO_COLOR (no-color.org); None leaves it to click, which asks whether there is a terminal."""
    return False if os.environ.get("NO_COLOR") else None


def _usage(error: click.UsageError) -> str:
    text = " ".join(error.format_message().split())
    path = error.ctx.command_path if error.ctx else "vladva"
    return f"{text} (try {path} --help)"


def _interrupted() -> int:
    with contextlib.suppress(OSError):  # stderr may be closed
        output.error("interrupted")
    return output.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
