"""`vladva-train caption`: names that are not UTF-8, damaged leftovers, and one writer at a time."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from vladva_clip.storage import file_locks
from vladva_training.captioning.command import main as caption_main
from vladva_training.captioning.shards import new_shard
from vladva_training.data.specs import open_source


@pytest.fixture
def pairs(tmp_path) -> Path:
    """Two pictures and two that are missing, in a folder and under names that are not UTF-8."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (40, 40), (90 * number, 50, 0)).save(folder / f"{number}.png")
    rows = ["0.png,one", "none.png,two", "1.png,three", os.fsdecode(b"\xe9.png,four")]
    path = folder / "pairs.csv"
    path.write_bytes(os.fsencode("\n".join(["image_path,caption", *rows])))
    return path


@pytest.fixture
def caption(bases, pairs):
    """Runs the command, a record to a shard."""

    def run(*further: str, output: Path = pairs.parent / "out") -> int:
        arguments = [f"csv:{pairs}", "--output", str(output), "--fill", "long", "--long-model", str(bases["llava"])]
        arguments += ["--tokenizer", str(bases["llava"]), "--short-max-tokens", "3", "--long-new-tokens", "40"]
        return caption_main([*arguments, "--samples-per-shard", "1", "--device", "cpu", *further])

    return run


def files(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir()}


def test_names_that_are_no_utf8_cost_their_record_only(caption, pairs, capsys):
    output = pairs.parent / "out"
    assert caption() == 1
    problems = [json.loads(line) for line in (output / "problems.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(problem["key"], problem["reason"]) for problem in problems] == [
        ("row 2", "missing image"),
        ("row 4", "missing image"),
    ]
    assert "\\udce9.png" in problems[1]["detail"] and "2 problems" in capsys.readouterr().err
    before = files(output)
    assert sorted(before) == sorted(
        ["00000.tar", "00002.tar", "manifest.json", "problems.jsonl", *(f"0000{n}_stats.json" for n in range(4))]
    )
    assert caption() == 1 and files(output) == before  # all is finished
    source = open_source(f"wds:{output}")
    assert len(source) == 2 and "three" in source[1].captions


def test_a_damaged_stats_file_means_that_the_shard_is_written_again(caption, pairs):
    output = pairs.parent / "out"
    assert caption("--part", "0/4") == 0
    before = files(output)
    for content in (b"", b"{", b"{}", b"[]", b'{"samples": 1, "tar_bytes": 5}', b"\xff"):
        (output / "00000_stats.json").write_bytes(content)
        assert caption("--part", "0/4") == 0
        assert files(output) == before
    (output / "manifest.json").write_bytes(b"{")
    assert caption("--part", "0/4") == 2


def test_one_writer_at_a_time(caption, pairs, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    with file_locks.held(output / ".lock"):
        assert caption(output=output) == caption("--part", "0/2", output=output) == 2
        assert "another process" in capsys.readouterr().err and files(output).keys() == {".lock"}
    with (
        file_locks.held(output / ".lock", shared=True),
        file_locks.held(output / ".1-of-4.lock"),
    ):  # as another part has it
        assert caption(output=output) == caption("--part", "1/4", output=output) == 2
        assert caption("--part", "0/4", output=output) == 0
    with new_shard(output, "00002"):
        with pytest.raises(ValueError, match="another process"), new_shard(output, "00002"):
            pass
        assert caption(output=output) == 2
    assert caption(output=output) == 1 and not list(output.glob(".*"))


def test_what_is_refused_leaves_no_directory(caption, tmp_path):
    assert caption("--long-model", "/nowhere", output=tmp_path / "a" / "b") == 2
    assert not (tmp_path / "a").exists()
