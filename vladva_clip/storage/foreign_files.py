"""Distinguish an adapter's files in a directory from somebody else's."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from vladva_clip.storage import adapter_files, card_files, whole

ADAPTER_FILES = (
    *(adapter_files.CONFIG, adapter_files.OPEN_CLIP_CONFIG, adapter_files.SOFT_PROMPT),
    *(adapter_files.LORA_CONFIG, adapter_files.LORA),
)
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
)
REMADE = (*ADAPTER_FILES, *TOKENIZER_FILES)  # written anew by every save
TEXTS = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")  # written by a person
_BESIDE = (*TEXTS, card_files.RECORD, card_files.NOTES, card_files.RESULTS)
_FOLDER = "additional_chat_templates"


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a file's name within the directory matches one of the patterns, which may have wildcards."""
    return any(PurePosixPath(f"/{name}").match(f"/{pattern}") for pattern in patterns)


def refuse(directory: Path, force: bool) -> None:
    """Refuse to save an adapter among files that don't belong to one. Hidden files are ignored.

    Args:
        directory: it need not exist.
        force: allow other files, which stay. Files that the adapter would replace are never allowed.

    Raises:
        ValueError: naming the files.
    """
    names = _visible(directory)
    taken = [] if _is_adapter(directory) else [name for name in names if matches(name, REMADE)]
    if taken:
        raise ValueError(
            f"{directory} has {_shown(taken)}, which saving would replace, but no {adapter_files.CONFIG}: they don't "
            "belong to an adapter of this package. Save to another directory"
        )
    foreign = [name for name in names if not matches(name, (*REMADE, *_BESIDE))]
    if foreign and not force:
        raise ValueError(
            f"{directory} has {_shown(foreign)}, which don't belong to an adapter. Save to another directory, such as "
            f"{directory / 'adapter'}; or pass force=True to save beside them, leaving them unchanged"
        )


def others(directory: Path) -> list[Path]:
    """Return the files in an adapter's directory that a save doesn't write: notes, results, a person's own card."""
    paths = sorted(directory.iterdir()) if directory.is_dir() else []
    ours = (*REMADE, _FOLDER, ".saving.lock")
    paths = [path for path in paths if not matches(path.name, ours) and not whole.is_scratch(path)]
    return [path for path in paths if not (path.name == card_files.README and card_files.is_ours(path))]


def _is_adapter(directory: Path) -> bool:
    """Whether the directory has an adapter of ours, perhaps without its config after an interrupted save."""
    return any((directory / name).is_file() for name in (adapter_files.CONFIG, adapter_files.SOFT_PROMPT))


def _visible(directory: Path) -> list[str]:
    paths = sorted(directory.iterdir()) if directory.is_dir() else []
    if (directory / _FOLDER).is_dir():  # a save replaces the whole folder
        paths = [path for path in paths if path.name != _FOLDER] + sorted((directory / _FOLDER).iterdir())
    return [path.relative_to(directory).as_posix() for path in paths if not path.name.startswith(".")]


def _shown(names: list[str]) -> str:
    return ", ".join(f"{name!r:.80}" for name in names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
