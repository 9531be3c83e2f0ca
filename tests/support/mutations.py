"""Damage to an adapter directory, drawn from a random generator: what accidents and attackers do to its files."""

import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

JSON = ("vladva_config.json", "adapter_config.json")
TENSORS = ("soft_prompt.safetensors", "adapter_model.safetensors")
SPARSE = 1 << 36  # bytes of a file with a hole in it
REFUSED = (
    "adapter_model.bin",
    "x.pt",
    "X.PTH",
    "a.pkl",
    "model.npz",
    "setup.py",
    "run.sh",
    "lib.so",
    "all.zip",
    "b.tar.gz",
)
HARMLESS = ("holiday.jpg", "notes.txt", "README.md", "results.json", ".gitattributes", "other.safetensors")
VALUES = (
    *(None, True, -1, 0, 1, 1.5, 1 << 31, (1 << 63) - 1, -(1 << 40), "", "x", "\0", "../" * 40, "/etc/passwd"),
    *([], {}, [[]], {"a": []}, "A" * 5000, [1] * 300, "local-dir:../../x", "hf-hub:a/b@../c", "\ud800"),
)
TEXTS = (
    *("NaN", "-Infinity", "1e999", "9" * 5000, "-" + "9" * 30, "[" * 100_000, '{"a":' * 5000, "[" + "[]," * 200_000),
    *('{"a": 1, "a": 2}', '"' + '\\"' * 100_000 + "\\", "\ufeff{}", "// {}", "{},", "", " " * (1 << 20) + "{}"),
)
DTYPES = ("F64", "I64", "U8", "BOOL", "F8_E4M3", "F999", "", 3, None, ["F32"])
SIZES = ([], [0], [-1, 4], [1 << 62, 4], [1 << 40, 1 << 40], [1.5], ["4"], [[4]], [4] * 40, None, 7)
LENGTHS = (0, 1, 2, 8, 1 << 20, 100_000_001, 1 << 31, 1 << 62, (1 << 64) - 1)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def damage(directory: Path, outside: Path, rng: random.Random) -> list[str]:
    """Damage a directory in one to three ways; returns what was done.

    Args:
        directory: the adapter, whose files may be hard links: none is written to in place.
        outside: a directory with `secret.json`, which must not be read, and where a sprung trap leaves `sprung`.
        rng: draws everything.
    """
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.choice(KINDS)
        path = directory / rng.choice(TENSORS if kind in (header_length, header_entry) else JSON + TENSORS)
        if kind in (json_value, json_text):
            path = directory / rng.choice(JSON)
        if kind is added or (path.is_file() and path.stat().st_size < SPARSE):
            kind(path, outside, rng)
            done.append(f"{kind.__name__} {path.name}")
    return done


def put(path: Path, data: bytes) -> None:
    """Write a file anew, whatever stood there."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def flipped(path: Path, outside: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    for _ in range(rng.randint(1, 16)):
        place = rng.randrange(rng.choice((min(200, len(data)), len(data))))
        data[place] = rng.randrange(256)
    put(path, bytes(data))


def cut(path: Path, outside: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    put(path, data[: rng.randrange(len(data) + 1)])


def extended(path: Path, outside: Path, rng: random.Random) -> None:
    put(path, path.read_bytes() + rng.randbytes(rng.randint(1, 64)))
    if rng.random() < 0.3:
        os.truncate(path, SPARSE)


def header_length(path: Path, outside: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    length = rng.choice((*LENGTHS, len(data), max(0, len(data) - 8)))
    put(path, length.to_bytes(8, "little") + data[8:])


def header_entry(path: Path, outside: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        _change_entry(header, rng)
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):  # damaged before
        return
    text = json.dumps(header).encode()
    if rng.random() < 0.1:
        text = text[:-1] + b',"again":' + rng.choice(TEXTS).encode(errors="replace") + b"}"
    put(path, len(text).to_bytes(8, "little") + text + data[8 + length :])


def _change_entry(header: dict[str, Any], rng: random.Random) -> None:
    name = rng.choice(sorted(header))
    entry = header[name]
    kind = rng.randrange(6)
    if kind == 0:
        entry["dtype"] = rng.choice(DTYPES)
    elif kind == 1:
        entry["shape"] = rng.choice(SIZES)
    elif kind == 2:
        entry["data_offsets"] = rng.choice((*SIZES, entry["data_offsets"][::-1], [0, 1 << 50]))
    elif kind == 3:
        header[rng.choice(("", "../x", "image", "text", "A" * 300, "stray"))] = header.pop(name)
    elif kind == 4:
        entry.pop(rng.choice(sorted(entry)))
    else:
        header[name] = rng.choice(VALUES)


def json_value(path: Path, outside: Path, rng: random.Random) -> None:
    try:
        data = json.loads(path.read_bytes())
        part, key = rng.choice(list(_places(data)))
    except (ValueError, IndexError, RecursionError):
        return
    kind = rng.randrange(3)
    if kind == 0:
        part[key] = rng.choice(VALUES)
    elif kind == 1:
        del part[key]
    elif isinstance(part, dict):
        part[rng.choice(("", "r", "embed_dim", "x" * 200))] = part.pop(key)
    put(path, json.dumps(data).encode())


def _places(data: Any):
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items):
        yield data, key
        yield from _places(value)


def json_text(path: Path, outside: Path, rng: random.Random) -> None:
    text = rng.choice(TEXTS)
    if rng.random() < 0.5:  # as a value in the file's own object
        text = path.read_text(errors="replace").rstrip().removesuffix("}") + f', "more": {text}}}'
    put(path, text.encode(rng.choice(("utf-8", "utf-8", "utf-16")), errors="replace"))


def replaced(path: Path, outside: Path, rng: random.Random) -> None:
    path.unlink()
    kind = rng.randrange(8)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind < 6:
        path.symlink_to((outside / "secret.json", "/dev/zero", path.name, outside / "nowhere")[kind - 2])
    elif kind == 6:
        path.write_bytes(pickle.dumps(Trap(outside / "sprung")))


def swapped(path: Path, outside: Path, rng: random.Random) -> None:
    other = path.parent / rng.choice(JSON + TENSORS)
    if other.is_file():
        put(path, other.read_bytes())


def added(path: Path, outside: Path, rng: random.Random) -> None:
    put(path.parent / rng.choice(REFUSED + HARMLESS), pickle.dumps(Trap(outside / "sprung")))


KINDS: tuple[Callable[[Path, Path, random.Random], None], ...] = (
    *(flipped, flipped, cut, extended, header_length, header_entry, header_entry, json_value, json_value, json_text),
    *(replaced, swapped, added),
)
