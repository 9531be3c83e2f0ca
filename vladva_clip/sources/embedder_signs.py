"""Signs that an LVLM is a published embedder: read with its family's template, it would give wrong vectors."""

import re
from pathlib import Path
from typing import Any

from vladva_clip.sources import profiles

# words of names that embedders have and bare LVLMs don't
_WORDS = ("embed", "retriev", "vlm2vec", "colpali", "colqwen", "biqwen")
_NAMES = {"gme", "e5", "mme5", "gve", "lamra", "unite", "unime", "b3", "moca", "llave", "dse", "bge", "marvel"}
_NAMES |= {"mcdse", "vdr", "ume"}
_FILES = (
    *("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "custom_st.py"),
    *("1_Pooling", "2_Normalize"),
)
_KEYS = ("emb_token_id", "emb_token_ids", "embedding_token_id", "pooling", "pooling_type", "min_image_tokens")


def found(directory: Path, name: str, config: dict[str, Any]) -> str | None:
    """Return the first sign in words, or None.

    Args:
        directory: of the LVLM.
        name: its Hub id, or where it was found.
        config: the content of its config.json.
    """
    made_of = config.get("_name_or_path")  # written by transformers before 5
    names = {"its name": name, "its directory's name": directory, "the model it was made from": made_of}
    names |= {"its model_type": config.get("model_type")}
    for what, place in names.items():
        if word := _word_of(text := _last_name(str(place or ""))):
            return f"{what} {text!r} has the word {word!r}"
    architectures = config.get("architectures")
    for architecture in architectures if isinstance(architectures, list) else ():
        if isinstance(architecture, str) and not architecture.endswith("ForConditionalGeneration"):
            return f"config.json names the class {architecture!r:.80}"
    if keys := [key for key in _KEYS if key in config]:
        return f"config.json has the key {keys[0]!r}"
    files = [name for name in _FILES if (directory / name).exists()]
    programs = sorted(path.name for path in directory.glob("*.py") if _word_of(path.stem))
    return f"there is {[*files, *programs][0]}" if files or programs else None


def refuse(directory: Path, name: str, config: dict[str, Any]) -> None:
    """Refuse to read an embedder with its family's templates.

    Raises:
        ValueError: the sign, and how to give a profile.
    """
    sign = found(directory, name, config)
    if sign is None:
        return
    near = [one.name for one in profiles.packaged() if _alike(one.repository, f"{name} {directory}")]
    names = ", ".join(one.name for one in profiles.packaged())
    ours = f"profile={near[0]!r}" if near else f"profile='NAME' with a packaged one ({names})"
    raise ValueError(
        f"{directory} seems to hold a published embedder ({sign}); read with its family's templates, it would give "
        f"wrong vectors. Say how its authors embed: {ours}, profile='FILE.json', or a vladva_config.json beside the "
        "weights (docs/published_models.md). If it is a bare LVLM, write such a file with its family's templates"
    )


def _last_name(name: str) -> str:
    """Return a repository's or a folder's own name; the Hub's cache has it two levels up."""
    path = Path(name)
    return path.parents[1].name.rpartition("--")[2] if path.parent.name == "snapshots" else path.name


def _word_of(name: str) -> str | None:
    words = re.findall(r"[a-z0-9]+", name.lower())
    return next((word for word in words if word in _NAMES or any(part in word for part in _WORDS)), None)


def _alike(repository: str, name: str) -> bool:
    return re.sub(r"[^a-z0-9]", "", _last_name(repository).lower()) in re.sub(r"[^a-z0-9]", "", name.lower())
