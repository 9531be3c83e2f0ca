"""Random damage to the files of a base or an adapter: bytes, JSON, headers, kinds of files."""

import random
from collections.abc import Callable
from pathlib import Path

from tests.support import mutations
from tests.support.mutations import cut, extended, flipped, header_entry, header_length, json_text, json_value, replaced
from tests.support.strangers.cases import Case

BYTES = (flipped, flipped, cut, extended, replaced)
HEADERS = (header_length, header_entry, header_entry)
TEXTS = (json_value, json_value, json_value, json_value, json_text)
WEIGHTS = {"config.json": 4, "tokenizer.json": 3, "vladva_config.json": 3, "adapter_config.json": 4}  # others 1


def damaging(side: str, rng: random.Random) -> Callable[[Case], str]:
    """What damages one side of a case in one to three ways; it returns what it did."""

    def damage(case: Case) -> str:
        return ", ".join(_damaged(case, side, rng) for _ in range(rng.choice((1, 1, 1, 2, 3))))

    return damage


def _damaged(case: Case, side: str, rng: random.Random) -> str:
    paths = sorted(path for path in (case.root / side).rglob("*") if path.is_file() and not path.is_symlink())
    paths = [path for path in paths if path.stat().st_size < mutations.SPARSE]
    if not paths:
        return "nothing is left"
    path = rng.choices(paths, [WEIGHTS.get(path.name, 1) for path in paths])[0]
    kind = rng.choice(_kinds(path))
    if kind is _swapped:
        return _swapped(path, rng.choice(paths))
    kind(path, case.outside, rng)
    return f"{kind.__name__} {path.relative_to(case.root)}"


def _kinds(path: Path) -> tuple:
    extra = HEADERS if path.suffix == ".safetensors" else TEXTS if path.suffix == ".json" else ()
    return (*BYTES, _swapped, _gone, *extra)


def _swapped(path: Path, other: Path) -> str:
    mutations.put(path, other.read_bytes())
    return f"swapped {path.name} for {other.name}"


def _gone(path: Path, outside: Path, rng: random.Random) -> None:
    path.unlink()
