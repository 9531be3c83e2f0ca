"""The report: whose row is whose, which tables are shown, and files that are whole or absent."""

import math
import os
import sys

import pytest

from tests.support.suites.result_files import OURS, RETRIEVAL, cells, made, put
from vladva_benchmarks.cli import main
from vladva_benchmarks.report import command, tables

_, TABLES = tables.published()


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


class TestRows:
    def test_a_training_free_row_has_the_papers_name_and_the_difference_to_it(self, results):
        put(results)
        text = made(results)
        found = cells(text, OURS, "Zero-shot retrieval")
        assert found["Flickr30k T2I R@1"] == "**59.4** (-0.2)" and found["Flickr30k T2I R@10"] == "**89.3** (+0.0)"
        assert found["Flickr30k I2T R@1"] == "-" and found["COCO T2I R@1"] == "-"
        assert cells(text, "LLaVA-1.5-7B |", "Zero-shot retrieval")["Flickr30k T2I R@1"] == "59.6"
        assert "difference to the paper's row 'LLaVA-1.5-7B'" in text

    def test_only_tables_with_a_figure_are_shown_unless_asked(self, results):
        put(results)
        text = made(results)  # both ablations have Flickr30k's R@1 too
        shown = [table.id for table in TABLES if f"## {table.title}\n" in text]
        assert shown == ["retrieval", "ablation", "data"]
        assert all(f"## {table.title}\n" in made(results, "--all-tables") for table in TABLES)

    def test_an_adapter_is_held_against_the_papers_vladva(self, results):
        put(
            results,
            "winoground",
            {"text": 0.41, "image": 0.18, "group": 0.12},
            "my-run",
            "registered",
            training_free=False,
        )
        found = cells(made(results), "**my-run registered**", "Winoground")
        assert found == {"image": "**18.0** (+0.5)", "text": "**41.0** (+0.5)", "group": "**12.0** (-0.8)"}

    def test_a_rival_has_no_row_in_the_paper(self, results):
        put(results, "imagenet1k", {"acc1": 0.5, "acc5": math.nan}, "ViT-B-32", "openai", details=None)
        assert cells(made(results), "**ViT-B-32 openai**", "Zero-shot ImageNet") == {"top-1": "**50.0**", "top-5": "-"}

    def test_a_base_that_the_paper_does_not_have_is_called_training_free(self, results):
        put(results, model="vladva-tiny", pretrained="base", base=None)
        assert cells(made(results), "**vladva-tiny base, training-free**", "Zero-shot retrieval")

    def test_a_published_embedder_is_not(self, results):
        """Not in clip_benchmark's own files either, which say no more than the name."""
        put(results, model="ops-mm-2b", pretrained="laion400m_e32", details=None)
        assert cells(made(results), "**ops-mm-2b laion400m_e32**", "Zero-shot retrieval")

    def test_a_source_has_no_tag(self, results):
        """And no space at its end, with which bold would not be bold."""
        source = {"model": "local-dir:/models/mine", "pretrained": ""}
        put(results, base="local-dir:/models/mine", **source)
        put(results, "winoground", {"text": 0.4}, training_free=False, **{**source, "model": "hf-hub:me/mine"})
        text = made(results)
        assert "| **local-dir:/models/mine, training-free** |" in text and "| **hf-hub:me/mine** |" in text
        assert "| local-dir:/models/mine | flickr30k |" in text

    def test_an_alias_is_the_model_that_it_stands_for(self, results):
        put(results)
        put(results, "winoground", {"text": 0.4}, model="vladva")
        assert len([line for line in made(results).splitlines() if line.startswith(f"| {OURS}")]) == 5  # 4 tables, R@5

    def test_clip_benchmarks_own_files_are_read(self, results):
        put(results, "wds/mscoco_captions", RETRIEVAL, pretrained="laion400m_e32", details=None)
        put(results, "sugar_crepe/swap_obj", {"acc": 0.6}, pretrained="laion400m_e32", details=None)
        text = made(results)
        assert (
            cells(text, OURS.replace("training_free", "laion400m_e32"), "Zero-shot retrieval")["COCO T2I R@1"]
            == "**59.4** (+25.0)"
        )
        assert (
            cells(text, OURS.replace("training_free", "laion400m_e32"), "SugarCrepe")["swap obj"] == "**60.0**‡ (-0.9)"
        )
        assert "a tie as right" in text and "not stated in the files" in text


class TestFiles:
    def test_a_plot_for_each_table(self, results):
        put(results)
        put(results, "winoground", {"text": 0.41, "image": 0.18, "group": 0.12})
        command.main([str(results), "--out", str(results.parent / "new" / "mine.md")])
        text = (results.parent / "new" / "mine.md").read_text(encoding="utf-8")
        plots = sorted((results.parent / "new").glob("*.png"))
        names = ("ablation", "data", "retrieval", "winoground")
        assert [path.name for path in plots] == [f"mine-{name}.png" for name in names]
        assert all(path.read_bytes().startswith(b"\x89PNG") and f"]({path.name})" in text for path in plots)

    def test_a_name_with_a_space_is_linked(self, results):
        put(results, "winoground", {"text": 0.41})
        command.main([str(results), "--out", str(results.parent / "my report.md")])
        assert (results.parent / "my report-winoground.png").exists()
        assert "](my%20report-winoground.png)" in (results.parent / "my report.md").read_text(encoding="utf-8")

    def test_the_same_files_give_the_same_report(self, results):
        put(results)
        assert made(results) == made(results)

    def test_results_may_be_files_and_folders(self, results, capsys):
        path = put(results)
        assert main(["report", str(path), str(results), "--no-plots", "--out", str(results.parent / "r.md")]) == 0
        assert "report of 1 model(s), 3 of the paper's tables, 0 plots" in capsys.readouterr().out

    def test_an_interruption_leaves_the_old_report(self, results, monkeypatch):
        put(results)
        old = made(results)

        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupted)
        put(results, "winoground", {"text": 0.4})
        with pytest.raises(KeyboardInterrupt):
            made(results)
        assert (results.parent / "report.md").read_text(encoding="utf-8") == old
        assert sorted(path.name for path in results.parent.iterdir()) == ["report.md", "results"]

    def test_without_matplotlib(self, results, monkeypatch):
        put(results)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ValueError, match=r'--no-plots.* not installed: pip install .*\[benchmarks\]"'):
            command.main([str(results), "--out", str(results.parent / "report.md")])
        assert made(results)
