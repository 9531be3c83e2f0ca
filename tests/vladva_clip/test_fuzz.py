"""Damaged adapters by the thousand: each is read or refused with ValueError, quickly and in little memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit of memory is Linux's")


def run(first: int, count: int, directory: Path, seconds: float) -> dict:
    command = [sys.executable, "-m", "tests.support.fuzz", str(first), str(count), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def check(report: dict, count: int) -> None:
    assert not report["failures"], "\n".join(report["failures"][:10])
    assert set(report["outcomes"]) == {"read", "refused"} and sum(report["outcomes"].values()) == count
    assert report["outcomes"]["refused"] > 0.5 * count  # the damage is real
    assert report["outcomes"]["read"] > 0.02 * count  # and some of it harmless, such as a picture
    assert report["memory"] <= 2 * report["honest_bytes"]  # beside it, the process had no more address space than that


@pytest.mark.wide
def test_hundreds(tmp_path):
    check(run(0, 300, tmp_path, 600), 300)


@pytest.mark.slow
def test_thousands(tmp_path):
    check(run(1000, 2500, tmp_path, 1200), 2500)  # half a minute on a machine of one's own


def test_the_damage_is_the_same_for_the_same_number(tmp_path):
    import random

    from tests.support.mutations import damage

    contents = []
    for name in ("first", "second"):
        directory = tmp_path / name
        directory.mkdir()
        for file in (
            "vladva_config.json",
            "adapter_config.json",
            "soft_prompt.safetensors",
            "adapter_model.safetensors",
        ):
            (directory / file).write_bytes(b"\x10" + bytes(7) + b'{"a": {"b": 1}  }' + bytes(64))
        done = [damage(directory, tmp_path, random.Random(f"adapter {number}")) for number in range(5)]
        contents.append((done, sorted(path.name for path in directory.iterdir())))
    assert contents[0] == contents[1] and len({str(one) for one in contents[0][0]}) > 1
