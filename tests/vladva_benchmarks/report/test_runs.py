"""The report of what `vladva-benchmark run` and `clip_benchmark eval` really write, by commands alone."""

import sys
from pathlib import Path

import clip_benchmark.cli
import pytest

from tests.support import hub_cache
from tests.support.models import tiny_clips
from tests.support.suites import data_copies
from tests.support.suites.result_files import cells, made
from vladva_benchmarks.cli import main

LLAVA = "**LLaVA-1.5-7B, training-free (vladva-7b training_free)**"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for suite in ("sugarcrepe", "nocaps", "winoground"):
        data_copies.WRITERS[suite](root)
    return root


@pytest.fixture(scope="module")
def results(data, bases, tmp_path_factory) -> Path:
    """A miniature under the name of the paper's base, and a model of open_clip's."""
    root = tmp_path_factory.mktemp("runs")
    hub_cache.put(root / "hub", "llava-hf/llava-1.5-7b-hf", bases["llava"])
    words = ["--data-root", str(data), "--output", str(root / "results"), "--num-workers", "0", "--subset"]
    ours = ["run", "nocaps", "winoground", "--model", "vladva-7b", "--cache-dir", str(root / "hub"), *words]
    assert main(ours) == main(["run", "winoground", "--model", tiny_clips.write_directory(root / "clip"), *words]) == 0
    return root / "results"


def test_the_rows_of_a_run(results):
    text = made(results)
    found = cells(text, LLAVA, "Zero-shot retrieval")
    assert found["nocaps T2I R@10"].endswith("**†") and found["COCO T2I R@1"] == "-"
    assert set(cells(text, f"**local-dir:{results.parent}/clip** |", "Winoground")) == {"image", "text", "group"}
    assert "| nocaps/near-domain† | image_retrieval_recall@1 " in text
    assert "6 quadruples" in text and "vladva-benchmark run winoground --model local-dir:" in text


def test_a_data_set_of_the_published_size_is_no_part(data, results, monkeypatch):
    """Though --subset was given."""
    from vladva_benchmarks.suites import catalog

    whole = catalog.Suite("winoground", catalog.SUITES["winoground"].read, {"winoground": {"quadruples": 6}})
    monkeypatch.setitem(catalog.SUITES, "winoground", whole)
    words = ["--data-root", str(data), "--output", str(results.parent / "whole"), "--num-workers", "0", "--subset"]
    assert main(["run", "winoground", "--model", f"local-dir:{results.parent}/clip", *words]) == 0
    assert "†" not in made(results.parent / "whole")


def test_a_file_of_clip_benchmarks_own(data, results, tmp_path, monkeypatch):
    words = ["eval", "--dataset", "sugar_crepe/swap_obj", "--dataset_root", str(data / "sugarcrepe"), "--quiet"]
    words += ["--model", f"local-dir:{results.parent}/clip", "--pretrained", "", "--num_workers", "0"]
    (tmp_path / "own").mkdir()
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", *words, "--output", str(tmp_path / "own" / "own.json")])
    clip_benchmark.cli.main()
    text = made(tmp_path / "own")
    assert cells(text, "**local-dir:", "SugarCrepe")["swap obj"].endswith("**‡") and "a tie as right" in text
