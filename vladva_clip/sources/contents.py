"""What a directory holds, for errors about one that is no model's."""

from pathlib import Path

from vladva_clip.storage import adapter_files
from vladva_clip.storage.base import CONFIG
from vladva_clip.storage.config import LOCAL
from vladva_clip.storage.foreign_files import TOKENIZER_FILES, matches

EXPECTED = f"{adapter_files.CONFIG} (an adapter) or {CONFIG} (an LVLM)"
_SHOWN = 8
_LORA_HINT = (
    ". A published embedder that is a PEFT adapter alone is read with profile=NAME, or with a profile of your own that "
    "names its base (docs/published_models.md)"
)


def holds_model(directory: Path) -> bool:
    """Whether there is an adapter's or an LVLM's config; the files may still be incomplete."""
    return any((directory / name).is_file() for name in (adapter_files.CONFIG, CONFIG))


def require_model(directory: Path, origin: str) -> None:
    """Refuse a directory without an adapter's or an LVLM's config.

    Args:
        directory: where the files are.
        origin: the Hub id they came from, or `local-dir:...`.

    Raises:
        ValueError: what was found, what was expected, and the folders inside that do hold a model; or the directory
            can't be read.
    """
    if not holds_model(directory):
        place = directory if origin.startswith(LOCAL) or not origin else f"{origin} ({directory})"
        hint = _LORA_HINT if (directory / adapter_files.LORA_CONFIG).is_file() else _inside(directory)
        raise ValueError(f"{place} holds no model: expected {EXPECTED}, found {_found(directory)}{hint}")


def require_adapter(directory: Path, hint: str = "") -> None:
    """Refuse a directory without an adapter's config, as `require_model` does; the hint says more about it."""
    if not (directory / adapter_files.CONFIG).is_file():
        raise ValueError(
            f"{directory} is not an adapter: expected a directory with {adapter_files.CONFIG}, "
            f"found {_found(directory)}{hint}{_inside(directory)}"
        )


def require_something(directory: Path, origin: str) -> None:
    """As `require_model`, but a tokenizer's files are enough: those of a model without its weights."""
    if not holds_model(directory) and not any(matches(path.name, TOKENIZER_FILES) for path in _listed(directory)):
        require_model(directory, origin)


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise ValueError(f"{directory} can't be read ({error.strerror}); expected a model's directory") from error


def _found(directory: Path) -> str:
    names = [path.name + ("/" if path.is_dir() else "") for path in _listed(directory)]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "an empty directory") + more


def _inside(directory: Path) -> str:
    models = [path for path in _listed(directory) if path.is_dir() and holds_model(path)][:3]
    return f"; did you mean {' or '.join(f'{LOCAL}{path}' for path in models)}?" if models else ""
