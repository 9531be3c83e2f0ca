"""An index on disk: exact, readable with NumPy alone, and refused with a reason when anything is wrong with it."""

import io
import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.index_rows import KINDS, NAMES, unit_rows
from vladva_clip.index.store import load, require_suffix, save


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.npz"


@pytest.fixture
def arrays(index, path) -> dict[str, np.ndarray]:
    """What a saved index holds, to be changed."""
    save(index, path)
    with np.load(path, allow_pickle=False) as data:
        return dict(data)


def test_everything_comes_back_exactly(index, path):
    save(index, path)
    found = load(path)
    assert found.features.tobytes() == index.features.tobytes() and found.features.dtype == np.float32
    assert (found.kinds, found.names, found.made_by) == (KINDS, NAMES, index.made_by)


def test_numpy_alone_reads_it(arrays, index):
    assert (arrays["features"] == index.features).all()
    assert arrays["kinds"].tolist() == KINDS
    assert json.loads(bytes(arrays["names"])) == NAMES
    assert json.loads(str(arrays["made_by"])) == index.made_by


def test_one_long_text_takes_no_space_for_the_others(index, path):
    count = 2000
    names = ["x" * 100_000, *["short"] * (count - 1)]
    save(replace(index, features=unit_rows(count, 6), kinds=["text"] * count, names=names), path)
    assert path.stat().st_size < 300_000 and load(path).names == names


def test_an_index_without_rows(index, path):
    save(replace(index, features=unit_rows(0, 6), kinds=[], names=[]), path)
    assert load(path).features.shape == (0, 6)


@pytest.mark.parametrize("name", ["some", "some.npy", "some.npz.gz", "some.jsonl"])
def test_another_suffix_is_refused(index, tmp_path, name):
    for call in (require_suffix, load, lambda path: save(index, path)):
        with pytest.raises(ValueError, match=r"\.npz"):
            call(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_it_is_written_whole_or_not_at_all(index, path, monkeypatch):
    save(index, path)
    before = path.read_bytes()
    monkeypatch.setattr(np.lib.format, "write_array", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(replace(index, features=-index.features), path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def interrupted(*_, **__):
    raise KeyboardInterrupt


CHANGES = {
    "float64": ({"features": np.eye(8)}, "float64"),
    "float16": ({"features": np.eye(8, dtype=np.float16)}, "float16"),
    "big-endian": ({"features": np.eye(8, dtype=">f4")}, ">f4"),
    "flat": ({"features": np.ones(8, np.float32)}, "dimensions"),
    "no dimensions": ({"features": np.ones((8, 0), np.float32)}, "8, 0"),
    "too few rows": ({"features": np.eye(6, dtype=np.float32)}, "6"),
    "too few kinds": ({"kinds": np.array(KINDS[1:])}, "7"),
    "too few names": ({"names": b'["a"]'}, "1"),
    "names in an array": ({"names": np.array(NAMES)}, "names"),
    "names that are not texts": ({"names": b"[1, 2, 3, 4, 5, 6, 7, 8]"}, "names"),
    "names cut off": ({"names": b'["a", "b'}, "some.npz"),
    "another kind": ({"kinds": np.array([*KINDS[1:], "sound"])}, "sound"),
    "kinds as numbers": ({"kinds": np.arange(8)}, "kinds"),
    "not finite": ({"features": np.full((8, 6), np.nan, np.float32)}, "nan"),
    "infinite": ({"features": np.full((8, 6), np.inf, np.float32)}, "inf"),
    "too long": ({"features": 2 * unit_rows(8, 6)}, "length 2"),
    "zero": ({"features": np.zeros((8, 6), np.float32)}, "length 0"),
    "no model": ({"made_by": np.array("{}")}, "image_probe"),
    "a list": ({"made_by": np.array("[]")}, "list"),
    "another width": ({"features": unit_rows(8, 7)}, "image_probe"),
    "an array more": ({"more": np.ones(1)}, "more"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_contents_are_refused(arrays, path, change):
    changes, word = CHANGES[change]
    changes = {name: np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value for name, value in
               changes.items()}  # fmt: skip
    np.savez(path, **(arrays | changes))
    with pytest.raises(ValueError, match="some.npz") as caught:
        load(path)
    assert word in str(caught.value)


def test_a_missing_array_or_file_is_refused(arrays, path):
    del arrays["kinds"]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="kinds"):
        load(path)
    path.unlink()
    with pytest.raises(ValueError, match="No such file"):
        load(path)
    for make in (Path.mkdir, os.mkfifo):
        make(path)
        with pytest.raises(ValueError, match="regular file"):
            load(path)
        path.rmdir() if path.is_dir() else path.unlink()


def test_nothing_is_unpickled(arrays, path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(path.parent / "trapped"),)

    np.savez(path, **(arrays | {"kinds": np.array([Trap()] * 8, dtype=object)}))
    with pytest.raises(ValueError, match="kinds"):
        load(path)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="some.npz"):
        load(path)
    assert not (path.parent / "trapped").exists()


def test_compressed_files_are_refused_as_they_may_be_of_any_size(arrays, path):
    np.savez_compressed(path, **(arrays | {"features": np.zeros((1 << 22, 6), np.float32)}))
    with pytest.raises(ValueError, match="features is compressed"):
        load(path)


HEADERS = {  # type, shape: what NumPy's reader of headers raises for them is not always a ValueError
    "a type cut short": ("('<f4',)", "(8, 6)"),
    "a list as key": ("{[]: 1}", "(8, 6)"),
    "brackets in brackets": (f"{'(' * 180}{')' * 180}", "(8, 6)"),
    "many signs": (f"{'-' * 900}1", "(8, 6)"),
    "beyond 64 bits": ("'<f4'", f"(0, {10**30})"),
    "far beyond": ("'<f4'", f"({10**300},)"),
    "truth values": ("'<f4'", "(True, True)"),
    "objects": ("'O'", "(8, 6)"),
    "an enormous part": (f"('<f4', ({10**30},))", "(8, 6)"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_made_to_do_harm(arrays, path, name):
    header = "{{'descr': {}, 'fortran_order': False, 'shape': {}, }}\n".format(*HEADERS[name]).encode()
    write_entries(path, arrays, b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="some.npz can't be read as an index"):
        load(path)


def write_entries(path: Path, arrays: dict[str, np.ndarray], features: bytes) -> None:
    with zipfile.ZipFile(path, "w") as entries:
        entries.writestr("features.npy", features)
        for name in ("kinds", "names", "made_by"):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, arrays[name])
            entries.writestr(f"{name}.npy", buffer.getvalue())


@pytest.mark.parametrize(
    "change",
    [{"model": ["a"]}, {"directory": 5}, {"precision": True}, {"pretrained": "a\0b"}]
    + [{"text_probe": probe} for probe in ([10**400] * 6, [0] * 6, [1e308] * 6, [0.5] * 6, ["1"] * 6, [1, 0])],
    ids=str,
)
def test_what_made_it_is_text_and_features_of_length_1(arrays, index, path, change):
    np.savez(path, **(arrays | {"made_by": np.array(json.dumps(index.made_by | change))}))
    with pytest.raises(ValueError, match=f"some.npz.*{next(iter(change))}"):
        load(path)


@pytest.mark.parametrize(
    "shape", ["(1099511627776, 6)", "(8, 1099511627776)", "(8, 5)", "(-8, -6)", "(8, 6", "(6, 'a')"]
)
def test_a_header_that_promises_something_else_than_there_is(arrays, path, shape):
    """NumPy would allocate what the header says."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (117 - len(header)) + b"\n"
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, arrays["features"])
    write_entries(path, arrays, b"\x93NUMPY\1\0" + bytes([118, 0]) + header + buffer.getvalue()[128:])
    with pytest.raises(ValueError, match="some.npz") as caught:
        load(path)
    assert "features should have" in str(caught.value) or not shape[-2].isdigit()


def test_a_changed_or_missing_byte_never_gives_another_index(index, path):
    save(index, path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    damaged = [whole[:size] for size in rng.integers(0, len(whole), 60)]
    for place in rng.integers(0, len(whole), 300):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << int(rng.integers(8))]) + whole[place + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            found = load(path)
        except ValueError as error:
            assert "some.npz" in str(error)
            refused += 1
        else:  # a date or another field without meaning
            assert found.features.tobytes() == index.features.tobytes()
            assert (found.kinds, found.names, found.made_by) == (index.kinds, index.names, index.made_by)
    assert refused > 250
