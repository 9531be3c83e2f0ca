"""The directory of an export: whole or not there at all, and never in place of something else."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from vladva_clip.sources.locate import EXPORT_FILE
from vladva_clip.storage import disk, places, whole
from vladva_clip.storage.foreign_files import TOKENIZER_FILES, matches

_EXPORTS = (
    *(EXPORT_FILE, "config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"),
    *("model*.safetensors", "model.safetensors.index.json", "modules.json", "1_Pooling/*.json", "2_Normalize/*.json"),
    *("config_sentence_transformers.json", "sentence_bert_config.json", "video_preprocessor_config.json"),
    *TOKENIZER_FILES,
)


@contextlib.contextmanager
def new_export(output: Path, overwrite: bool) -> Iterator[Path]:
    """Give an empty directory to fill, which becomes `output` when the block ends without an error.

    Args:
        output: the export's place.
        overwrite: replace an earlier export there; never another directory, or one with other files in it.

    Raises:
        ValueError: `output` exists already, or can't be made.
        OSError: the disk is full or refuses to write; `output` is as it was.
    """
    _refuse_existing(output, overwrite)
    with contextlib.ExitStack() as stack:
        try:
            scratch = stack.enter_context(whole.folder(output, replace=overwrite))
        except OSError as error:
            reason = disk.reason(error)
            raise ValueError(f"no directory can be made in {output.parent} ({reason}); choose another place") from error
        yield scratch
        _refuse_existing(output, overwrite)  # another export may have been faster


def check_place(output: Path, overwrite: bool) -> None:
    """Check early that `new_export` could make its directory, without making anything.

    Raises:
        ValueError: as `new_export`; only that one checks what `overwrite` would replace.
    """
    if not overwrite:
        _refuse_existing(output, overwrite)
    places.check_beside(output)


def _refuse_existing(output: Path, overwrite: bool) -> None:
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise ValueError(f"{output} is there already: choose another name, or replace it with --overwrite")
    replaceable = output.is_dir() and not output.is_symlink()
    if not (replaceable and ((output / EXPORT_FILE).is_file() or not any(output.iterdir()))):
        raise ValueError(f"{output} is not an export (it has no {EXPORT_FILE}), so --overwrite doesn't replace it")
    _refuse_foreign(output)


def _refuse_foreign(output: Path) -> None:
    """Refuse an export that also holds other files, since replacing it would delete them."""
    names = [path.relative_to(output).as_posix() for path in sorted(output.rglob("*")) if not path.is_dir()]
    foreign = [name for name in names if not matches(name, _EXPORTS)]
    if foreign:
        raise ValueError(
            f"{output} holds {', '.join(foreign[:3])}, which are not part of an export and --overwrite would delete: "
            "move them away, or choose another name"
        )
