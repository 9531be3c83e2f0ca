"""The parts of the pages that come from the profiles; `python -m tests.support.published_docs` writes them anew."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vladva_clip.sources import fit as figures

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "vladva_clip/assets/profiles"
PAGES = (ROOT / "README.md", ROOT / "docs/published_models.md", ROOT / "docs/fit.md")
POSITIONS = {"family": "M-RoPE", "plain": "plain"}
Profile = dict[str, Any]


def profiles(folder: Path = FOLDER) -> list[Profile]:
    """The profiles of a folder by family, the newest first, then by name; none if the folder is missing."""
    found = sorted((json.loads(file.read_text()) for file in folder.glob("*.json")), key=lambda one: one["name"])
    return sorted(found, key=lambda one: one["config"]["family"], reverse=True)


def names(found: list[Profile]) -> str:
    """The README's table: what a user chooses by."""
    rows = [[_name(one), _link(one), *_sizes(one), _tags(one)] for one in found]
    return _table(["name", "repository", "license", "parameters", "download", "D", "tags"], rows)


def contracts(found: list[Profile]) -> str:
    """How each one is read."""
    columns = ["name", "revision", "license", "parameters", "download", "D", "tags", "positions", "head", "image"]
    return _table([*columns, "context length", "transformers"], [_contract(one) for one in found])


def instructions(found: list[Profile]) -> str:
    """The query instructions of the tag `retrieval`."""
    asked = [one for one in found if "retrieval" in one["tags"]]
    rows = [[_name(one), f'"{one["instructions"]["retrieval"]}"'.replace("|", "\\|")] for one in asked]
    return _table(["name", "instruction of the tag `retrieval`"], rows)


def unverified(found: list[Profile]) -> str:
    """What could not be checked without the Hub, each sentence once, with the profiles it stands in."""
    owners: dict[str, list[str]] = {}
    for one in found:
        for sentence in one["unverified"]:
            owners.setdefault(sentence, []).append(one["name"])
    return "\n".join(f"- {_owners(of, found)}: {_in_code(sentence)}" for sentence, of in owners.items())


def fit(_: list[Profile]) -> str:
    """What every built-in model takes, in each of its precisions."""
    columns = ["name", "precision", "download", "disk", "memory on a CPU", "memory of a GPU"]
    names = figures.names()
    return _table(columns, [_takes(name, word) for name in names for word in figures.precisions(name)])


PARTS: dict[str, Callable[[list[Profile]], str]] = {
    "names": names,
    "contracts": contracts,
    "instructions": instructions,
    "unverified": unverified,
    "fit": fit,
}


def parts(page: str) -> dict[str, str]:
    """Part's name -> its text, of a page with `<!-- profiles: NAME -->` above and `<!-- end -->` below each."""
    return {name: text.strip() for name, text in re.findall(_MARKED, page, re.S)}


def rewritten(page: str, found: list[Profile]) -> str:
    """The page with its parts made anew.

    Raises:
        KeyError: a part that is not in `PARTS`.
    """
    return re.sub(_MARKED, lambda part: _marked(part[1], PARTS[part[1]](found)), page, flags=re.S)


_MARKED = r"<!-- profiles: (\w+) -->\n(.*?)<!-- end -->"


def _marked(name: str, text: str) -> str:
    return f"<!-- profiles: {name} -->\n\n{text}\n\n<!-- end -->"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *rows])


def _contract(one: Profile) -> list[str]:
    config = one["config"]
    encoding = config["encoding"]
    return [
        *(_name(one), f"`{(one['revision'] or 'main')[:12]}`", *_sizes(one), _tags(one)),
        POSITIONS[encoding["positions"]],
        "none" if encoding.get("projection") else "may be missing" if encoding["headless"] else "yes",
        f"{config['image']['size']} px",
        str(config["context_length"]),
        one["transformers"],
    ]


def _takes(name: str, word: str) -> list[str]:
    cpu, gpu = (figures.of(name, word, device) for device in ("cpu", "gpu"))
    own = f"{word} (default)" if word == figures.default_precision(name) else word
    download = figures.in_words(cpu.download_bytes) if cpu.download_bytes else "packaged"
    memory = (f"{figures.in_words(one.memory_bytes)} {one.origin}" for one in (cpu, gpu))
    return [f"`{name}`", own, download, figures.in_words(cpu.disk_bytes), *memory]


def _name(one: Profile) -> str:
    return f"`{one['name']}`"


def _link(one: Profile) -> str:
    return f"[{one['repository']}](https://huggingface.co/{one['repository']})"


def _sizes(one: Profile) -> list[str]:
    return [one["license"] or "-", f"{one['num_parameters'] / 1e9:.2f}B", f"{one['download_gb']:.1f} GB", _width(one)]


def _width(one: Profile) -> str:
    shorter = [dim for dim in one["config"]["encoding"]["matryoshka_dims"] if dim < one["config"]["embed_dim"]]
    return f"{one['config']['embed_dim']} (from {min(shorter)})" if shorter else str(one["config"]["embed_dim"])


def _tags(one: Profile) -> str:
    return ", ".join(f"`{tag}`" for tag in one["tags"])


def _in_code(sentence: str) -> str:
    return re.sub(r"<[^<>\s]+>", r"`\g<0>`", sentence)  # a page would hide `<emb>`


def _owners(of: list[str], found: list[Profile]) -> str:
    return "all" if len(of) == len(found) else ", ".join(f"`{name}`" for name in of)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(rewritten(path.read_text(), profiles()))
