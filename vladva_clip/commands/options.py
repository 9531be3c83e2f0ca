"""Options that several commands share, and the types of their values."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vladva_clip.commands.model import Asked
from vladva_clip.interface import devices, precision_words
from vladva_clip.interface.arguments import user_path
from vladva_clip.storage import places

if TYPE_CHECKING:
    from vladva_clip.pictures.failures import Failure

DEVICES = "auto, cpu, cuda, cuda:N or mps"
DEFAULT_MODEL = "vladva-tiny"


class UserPath(click.ParamType):
    """A path with `~` replaced by the home directory."""

    name = "path"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Path:
        """Return it as a Path; fails for an empty one or an unknown user's home."""
        try:
            return user_path(value)
        except ValueError as error:
            self.fail(str(error), parameter, context)


class Text(click.ParamType):
    """A text that is not empty: an empty one is mostly a shell variable without a value."""

    name = "text"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """Return it as it is; fails if there is nothing in it but spaces."""
        if not value.strip():
            self.fail("the text is empty", parameter, context)
        return value


class PrecisionWord(click.ParamType):
    """One of open_clip's words for a precision."""

    name = "word"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """Return the word; fails for another, naming the likely one."""
        try:
            return precision_words.parse("--precision", value)
        except ValueError as error:
            raise click.UsageError(str(error), context) from error


class Count(click.ParamType):
    """A whole number of at least 1."""

    name = "n"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Return it as an int; fails for anything else."""
        if (text := str(value)).isdecimal() and int(text) >= 1:
            return int(text)
        self.fail(f"{text!r:.60} is not a whole number of at least 1", parameter, context)


class ModelName(click.ParamType):
    """A model's name or source, which the shell can complete."""

    name = "name"

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
        """Return the known names that begin like what has been typed."""
        from click.shell_completion import CompletionItem

        from vladva_clip.sources import registry

        return [CompletionItem(name) for name in registry.list_models() if name.startswith(incomplete)]


PATH, COUNT, TEXT = UserPath(), Count(), Text()


def device(function: Callable) -> Callable:
    """Add `--device`, automatic by default."""
    words = f"{DEVICES}.  [default: a GPU if there is one]"
    return click.option("--device", metavar="DEVICE", default=devices.AUTO, help=words)(function)


def precision(default: str) -> Callable[[Callable], Callable]:
    """Return a decorator that adds `--precision`; `--dtype`, its name in earlier versions, is refused."""
    words = f"fp32, bf16, fp16 or another of open_clip's words for the weights.  [default: {default}]"

    def decorate(function: Callable) -> Callable:
        old = click.option("--dtype", hidden=True, expose_value=False, callback=_refuse_dtype, is_eager=True)
        return old(click.option("--precision", metavar="WORD", type=PrecisionWord(), help=words)(function))

    return decorate


def as_json(function: Callable) -> Callable:
    """Add `--json`."""
    words = "Print one JSON object per line on stdout, nothing else."
    return click.option("--json", "as_json", is_flag=True, help=words)(function)


def batch_size(function: Callable) -> Callable:
    """Add `--batch-size`."""
    words = "Pictures or texts read at a time. The model splits them further, to bound its memory."
    given = {"type": COUNT, "default": 64, "show_default": True, "metavar": "N", "help": words}
    return click.option("--batch-size", **given)(function)


def workers(function: Callable) -> Callable:
    """Add `--workers`."""
    words = "Processes that decode pictures; 0 decodes in the main one.  [default: one less than CPUs, 8 at most]"
    return click.option("--workers", metavar="N", type=click.IntRange(min=0), help=words)(function)


def model(default: str | None = DEFAULT_MODEL) -> Callable[[Callable], Callable]:
    """Return a decorator that adds the options naming a model, given to the command as `asked`.

    Args:
        default: the model of a command without `--model`; None if it is found elsewhere.
    """
    shown = f"default: {default}" if default else "default: the one that made the index"
    weights = "the model's own" if default else "that of the index"
    words = f"A name of `vladva models`, local-dir:PATH or hf-hub:ORG/REPO.  [{shown}]"
    options = (
        click.option("--model", "model", metavar="NAME", type=ModelName(), help=words),
        click.option("--pretrained", metavar="TAG", help="A tag of the model, or the directory of an adapter."),
        click.option(
            "--profile",
            metavar="PROFILE",
            help="Read the model's files as this published embedder: a name, or a JSON file.",
        ),
        precision(weights),
        device,
    )

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def with_model(*, model: str | None, pretrained: Any, profile: Any, precision: Any, device: str, **given: Any):
            asked = Asked(model or default, pretrained, profile, precision, device, is_default=model is None)
            return function(asked=asked, **given)

        return _all(options, with_model)

    return decorate


def texts(function: Callable) -> Callable:
    """Add `--text` (repeatable) and `--texts FILE`."""
    options = (
        click.option(
            "--text", "-t", "given_texts", metavar="TEXT", type=TEXT, multiple=True, help="A text; may be repeated."
        ),
        click.option("--texts", "texts_file", metavar="FILE", type=PATH, help="A UTF-8 file with a text per line."),
    )
    return _all(options, function)


def failures(function: Callable) -> Callable:
    """Add `--failures FILE`, given to the command as `failures_file` after a check that it can be written."""
    words = "Write the pictures that failed to FILE, a JSON object per line; it is empty if none did."
    option = click.option("--failures", "failures_file", metavar="FILE", type=PATH, callback=_writable, help=words)
    return option(function)


def _writable(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None:
        places.check_file(value, "--failures")
    return value


def lines_of(path: Path | None, failures: "list[Failure] | None" = None) -> list[str]:
    """Return the lines of a text file; none without a file. `failures` as in `read_lines`."""
    if path is None:
        return []
    from vladva_clip.index.lines import read_lines

    return read_lines(path, failures)


def new_file(path: Path, overwrite: bool) -> None:
    """Check before any work that a file can be written.

    Raises:
        ValueError: it exists and may not be replaced, or as `places.check_file`.
    """
    places.check_file(path)
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; add --overwrite to replace it, or give another name")


def _all(options: Sequence[Callable], function: Callable) -> Callable:
    """Apply decorators so that help shows them in their order."""
    for option in reversed(options):
        function = option(function)
    return function


def _refuse_dtype(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError(
            f"--dtype is called --precision: say --precision {precision_words.meant(value)}", context
        )
