"""JSON of any size: one reader for all three packages, one set of rules, and only ValueErrors."""

import ast
import codecs
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import vladva_clip
from vladva_clip.storage import json_files, plain_files
from vladva_clip.storage.config import read_json
from vladva_clip.storage.json_files import ANY_SIZE, Limits

ROOT = Path(__file__).parents[3]
SOURCES = [path for name in ("vladva_clip", "training", "benchmarks") for path in sorted((ROOT / name).rglob("*.py"))]

WRONG = {
    "empty": b"",
    "blank": b" \n",
    "nul bytes": bytes(64),
    "cut": b'{"a": [1, 2',
    "two values": b"{} {}",
    "twice": b'{"a": 1, "b": 2, "a": 3}',
    "NaN": b'{"a": NaN}',
    "infinite": b'{"a": 1e999}',
    "half a pair": b'{"a": "\\ud83d"}',
    "latin": '{"a": "é"}'.encode("latin-1"),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "deep": b"[" * 200_000,
    "digits": b"9" * 10_000,
}


@pytest.mark.parametrize("limits", [json_files.USUAL, ANY_SIZE], ids=["strangers", "any size"])
@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_refused_with_the_file(tmp_path, content, limits):
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} .*JSON"):
        json_files.read(path, limits)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing", "missing", "device"])
def test_what_is_no_regular_file(tmp_path, kind):
    """A pipe would be waited for, a device has no end."""
    path = tmp_path / "some.json"
    make = {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "missing": lambda: None}
    make |= {"link to nothing": lambda: path.symlink_to("nowhere"), "device": lambda: path.symlink_to("/dev/zero")}
    make[kind]()
    with pytest.raises(ValueError, match=f"{path} .*JSON.*(not a regular file|No such file)"):
        json_files.read(path, ANY_SIZE)
    with pytest.raises(ValueError, match=f"{path} .*text"):
        plain_files.read_text(path)


def test_the_place_is_said(tmp_path):
    (tmp_path / "some.json").write_text('{"a": 1,\n "b": }')
    with pytest.raises(ValueError, match="line 2 column 7"):
        json_files.read(tmp_path / "some.json", ANY_SIZE)
    with pytest.raises(ValueError, match="not UTF-8 at byte 6"):
        json_files.parse(b'{"a": \xff}')
    with pytest.raises(ValueError, match="UTF-16"):
        json_files.parse('{"a": 1}'.encode("utf-16"))


def test_a_byte_order_mark_is_skipped_everywhere(tmp_path):
    path = tmp_path / "some.json"
    path.write_bytes(codecs.BOM_UTF8 + '{"a": "é"}'.encode())
    assert json_files.read(path) == json_files.read(path, ANY_SIZE) == read_json(path) == {"a": "é"}
    assert plain_files.read_text(path) == '{"a": "é"}'


def test_a_base_whose_files_begin_with_one(tmp_path):
    """The library that reads the vocabulary knows no mark: it gets the file without."""
    base = tmp_path / "base"
    shutil.copytree(ROOT / "vladva_clip" / "assets" / "vladva-tiny" / "base", base)
    ids = vladva_clip.get_tokenizer(f"local-dir:{base}")(["a red ball"])
    for path in base.glob("*.json"):
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert vladva_clip.get_tokenizer(f"local-dir:{base}")(["a red ball"]).equal(ids)


def test_any_size_has_no_bounds_of_its_own():
    data = {"rows": [{"id": 1 << 100, "deep": [[[[1]]]]}] * 40_000}
    assert json_files.parse(json.dumps(data), ANY_SIZE) == data
    assert json_files.parse("[" * 100 + "]" * 100, ANY_SIZE)
    with pytest.raises(ValueError, match="more than"):
        json_files.parse(json.dumps(data))


def test_pairs_of_surrogates_are_text():
    assert json_files.parse(json.dumps({"a": "😀"}), ANY_SIZE) == {"a": "😀"}


def test_a_call_deep_down(tmp_path):
    """Where the stack is nearly used up, an object of a few levels is too deep."""

    def down(left: int):
        return down(left - 1) if left else json_files.parse(b"[" * 30 + b"]" * 30)

    depth = len(_frames())
    with pytest.raises(ValueError, match="deep"):
        down(sys.getrecursionlimit() - depth - 12)


def _frames() -> list:
    found, frame = [], sys._getframe()
    while frame:
        found.append(frame)
        frame = frame.f_back
    return found


def test_memory(monkeypatch):
    """It ends the file, not the run."""

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(json_files.json, "loads", full)
    with pytest.raises(ValueError, match="memory"):
        json_files.parse(b"{}", ANY_SIZE)


def test_what_only_python_writes_where_it_is_asked_for():
    found = json_files.parse(b'[NaN, -Infinity, 1e999, "\\udcff"]', Limits(lenient=True))
    assert str(found) == "[nan, -inf, inf, '\\udcff']"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_else_reads_json(path):
    """`json.loads(json.dumps(...))`, plain data as JSON gives them back, reads no file. `direct_url.json` is the
    installer's, and `interface`, which needs it for an error, imports no other folder.
    """
    if path == ROOT / "vladva_clip" / "storage" / "json_files.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "json":
            raise AssertionError(f"line {node.lineno}: import json, whose calls are looked for by its name")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.load", "json.loads", "json.JSONDecoder"):
            given = ast.unparse(node.args[0])
            assert given.startswith("json.dumps(") or "direct_url.json" in given, (
                f"line {node.lineno}: json_files reads JSON"
            )
