"""Which files of a directory are an adapter's, and which are somebody else's."""

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
REMADE = (*ADAPTER_FILES, *TOKENIZER_FILES)  # by every save
TEXTS = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")  # a person's
_BESIDE = (*TEXTS, card_files.RECORD, card_files.NOTES, card_files.RESULTS)
_FOLDER = "additional_chat_templates"


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a file's name within the directory is one of those, which may have wildcards."""
    return any(PurePosixPath(f"/{name}").match(f"/{pattern}") for pattern in patterns)


def refuse(directory: Path, force: bool) -> None:
    """Refuse to save an adapter among files that aren't an adapter's. Hidden files are not looked at.

    Args:
        directory: it need not exist.
        force: allow other files, which stay. Never allowed are those that the adapter would replace.

    Raises:
        ValueError: naming the files.
    """
    names = _visible(directory)
    taken = [] if _is_adapter(directory) else [name for name in names if matches(name, REMADE)]
    if taken:
        raise ValueError(
            f"{directory} holds {_shown(taken)}, which saving would replace, but no {adapter_files.CONFIG}: they are "
            "not from one of this package's adapters. Save to another directory"
        )
    foreign = [name for name in names if not matches(name, (*REMADE, *_BESIDE))]
    if foreign and not force:
        raise ValueError(
            f"{directory} holds {_shown(foreign)}, which belong to no adapter. Save to a directory of its own, such as "
            f"{directory / 'adapter'}; or pass force=True to save among them: they stay as they are"
        )


def others(directory: Path) -> list[Path]:
    """Return what lies in an adapter's directory and no save makes anew: notes, results, a person's card_files."""
    paths = sorted(directory.iterdir()) if directory.is_dir() else []
    ours = (*REMADE, _FOLDER, ".saving.lock")
    paths = [path for path in paths if not matches(path.name, ours) and not whole.is_scratch(path)]
    return [path for path in paths if not (path.name == card_files.README and card_files.is_ours(path))]


def _is_adapter(directory: Path) -> bool:
    """Whether an adapter of ours is or was here: a save that was cut short may have left no config."""
    return any((directory / name).is_file() for name in (adapter_files.CONFIG, adapter_files.SOFT_PROMPT))


def _visible(directory: Path) -> list[str]:
    paths = sorted(directory.iterdir()) if directory.is_dir() else []
    if (directory / _FOLDER).is_dir():  # replaced as a whole
        paths = [path for path in paths if path.name != _FOLDER] + sorted((directory / _FOLDER).iterdir())
    return [path.relative_to(directory).as_posix() for path in paths if not path.name.startswith(".")]


def _shown(names: list[str]) -> str:
    return ", ".join(f"{name!r:.80}" for name in names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
