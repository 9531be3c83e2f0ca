"""A directory that appears whole or not at all."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from vladva_clip.sources.locate import EXPORT_FILE
from vladva_clip.storage.foreign_files import TOKENIZER_FILES, matches

_EXPORTS = (
    *(EXPORT_FILE, "config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"),
    *("model*.safetensors", "model.safetensors.index.json", "modules.json", "1_Pooling/*.json", "2_Normalize/*.json"),
    *("config_sentence_transformers.json", "sentence_bert_config.json", "video_preprocessor_config.json"),
    *TOKENIZER_FILES,
)


@contextlib.contextmanager
def whole(output: Path, overwrite: bool) -> Iterator[Path]:
    """Give a scratch directory beside `output`, which takes its name when the block ends without an error.

    Args:
        output: the final name.
        overwrite: replace an earlier export of that name; never another directory, or one with other files in it.

    Raises:
        ValueError: `output` is there already, or can't be made.
    """
    _refuse_existing(output, overwrite)
    scratch = output.with_name(f".{output.name}.writing-{uuid.uuid4().hex[:8]}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
    except OSError as error:
        raise ValueError(f"no directory can be made in {output.parent} ({error}); choose another place") from error
    try:
        yield scratch
        _refuse_existing(output, overwrite)  # another export may have been faster
        _rename(scratch, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_place(output: Path, overwrite: bool) -> None:
    """Check before anything is read that `whole` could make its directory; nothing is made.

    Raises:
        ValueError: as `whole`, which alone says what `overwrite` may not replace.
    """
    if not overwrite:
        _refuse_existing(output, overwrite)
    place = next(path for path in output.parents if os.path.lexists(path))
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        what = "takes no files" if place.is_dir() else "is not a directory"
        raise ValueError(f"no directory can be made in {output.parent} ({place} {what}); choose another place")


def _refuse_existing(output: Path, overwrite: bool) -> None:
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise ValueError(f"{output} is there already; choose another name, or replace it with --overwrite")
    replaceable = output.is_dir() and not output.is_symlink()
    if not (replaceable and ((output / EXPORT_FILE).is_file() or not any(output.iterdir()))):
        raise ValueError(f"{output} is no export (it has no {EXPORT_FILE}), so --overwrite doesn't replace it")
    _refuse_foreign(output)


def _refuse_foreign(output: Path) -> None:
    """Refuse an export with files that an export doesn't have, since replacing it would delete them."""
    names = [path.relative_to(output).as_posix() for path in sorted(output.rglob("*")) if not path.is_dir()]
    foreign = [name for name in names if not matches(name, _EXPORTS)]
    if foreign:
        raise ValueError(
            f"{output} holds {', '.join(foreign[:3])}, which the export doesn't have and --overwrite would delete: "
            "move them away, or choose another name"
        )


def _rename(scratch: Path, output: Path) -> None:
    """Put the new directory in place; the old one is gone only after that."""
    old = scratch.with_name(f"{scratch.name}-old")
    if output.exists():
        os.rename(output, old)
    try:
        os.rename(scratch, output)
    except OSError:
        if old.exists():
            os.rename(old, output)
        raise
    shutil.rmtree(old, ignore_errors=True)
