"""Result files: what is put together, and what is refused."""

import math
import os

import pytest

from tests.support.suites.result_files import OURS, cells, made, put
from vladva_benchmarks.cli import main
from vladva_benchmarks.report import results as reading


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


class TestTogether:
    """Several files of one model and one data set."""

    def test_the_same_by_us_and_by_clip_benchmark(self, results):
        """It writes float32; its file says nothing of the costs, ours does."""
        put(results, name="1", details=None, metrics={"image_retrieval_recall@1": 0.5940000000001})
        put(results, name="2")
        text = made(results)
        assert cells(text, OURS, "Zero-shot retrieval")["Flickr30k T2I R@1"] == "**59.4** (-0.2)"
        assert "| - | 1.json |" in text and "| 0123456789ab | 2.json |" in text

    def test_other_k_of_recall(self, results):
        put(results, name="1", details=None, metrics={"image_retrieval_recall@1": 0.594})
        put(results, name="2", details=None, metrics={"image_retrieval_recall@10": 0.893})
        found = cells(made(results), OURS, "Zero-shot retrieval")
        assert found["Flickr30k T2I R@1"] == "**59.4** (-0.2)" and found["Flickr30k T2I R@10"] == "**89.3** (+0.0)"

    def test_copies_with_what_is_no_number(self, results):
        for name in "12":
            put(results, "imagenet1k", {"acc1": 0.5, "acc5": math.nan}, name=name, details=None)
        assert cells(made(results), OURS, "Zero-shot ImageNet") == {"top-1": "**50.0** (+8.0)", "top-5": "-"}

    def test_other_tasks_and_languages_are_not_the_papers(self, results):
        """A linear probe's metrics, as clip_benchmark has them, hold its settings."""
        probe = {"lp_acc1": 0.9, "lp_acc5": 0.99, "weight_decay": 0.1, "seed": 0, "normalized": True}
        put(results, "imagenet1k", {"acc1": 0.5}, name="1")
        put(results, "imagenet1k", probe, details=None, name="2", more={"task": "linear_probe"})
        put(results, "imagenet1k", {"acc1": 0.3}, details=None, name="3", more={"language": "it"})
        text = made(results)
        assert cells(text, OURS, "Zero-shot ImageNet")["top-1"] == "**50.0** (+8.0)"
        assert "| imagenet1k, linear_probe | lp_acc1 0.9000, lp_acc5 0.9900, weight_decay 0.1000, seed 0.0000 |" in text
        assert "| imagenet1k, it | acc1 0.3000 |" in text


class TestBadInput:
    def refused_report(self, folder, capsys) -> str:
        assert main(["report", str(folder), "--no-plots", "--out", str(folder.parent / "report.md")]) == 2
        return capsys.readouterr().err

    @pytest.mark.parametrize("ours", [{"format": 2}, {"format": None}])
    def test_another_format_version(self, results, capsys, ours):
        path = put(results, **ours)
        said = self.refused_report(results, capsys)
        assert f"{path} is a result of format {ours['format']}, expected 1" in said

    @pytest.mark.parametrize(
        "ours",
        [
            *(
                {"base": 5},
                {"base": ["a"]},
                {"training_free": "no"},
                {"subset": "no"},
                {"weights": 5},
                {"images": True},
            ),
            *({"command": "vladva-benchmark"}, {"command": [1]}, {"command": None}, {"seconds": "12"}, {"versions": 5}),
            *({"counts": "many"}, {"images": True}, {"hardware": ["a CPU"]}, {"images_per_second": None}),
        ],
    )
    def test_an_entry_of_another_type(self, results, capsys, ours):
        """`"no"` would count as true."""
        path, ((name, value),) = put(results, **ours), ours.items()
        assert f"{path}: {name} of vladva is {value!r}" in self.refused_report(results, capsys)

    def test_a_name_that_is_no_text(self, results, capsys):
        put(results, model="a \ud800", name="some")
        assert "model is 'a \\ud800', expected a string" in self.refused_report(results, capsys)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("{", "can't be read as JSON"),
            ("", "empty"),
            ("[" * 200_000, "deep"),
            ('{"dataset": "a", "dataset": "b"}', "duplicate key 'dataset'"),
            ('{"dataset": "a", "model": "b", "pretrained": "c", "task": "d", "metrics": {}}', "metrics is {}"),
            ('{"dataset": "a", "model": "b", "pretrained": "c", "task": "d", "metrics": {"e": null}}', "e is None"),
            ('{"dataset": "a", "model": "b", "pretrained": "c", "task": "d", "metrics": {"e": true}}', "{'e': True}"),
            (
                f'{{"dataset": "a", "model": "b", "pretrained": "c", "task": "d", "metrics": {{"e": {10**400}}}}}',
                "bits",
            ),
            ("[]", "holds list"),
            ("{}", "dataset is None"),
            ('{"dataset": "a", "model": "b", "pretrained": "c", "task": "d"}', "metrics is None"),
            (
                '{"dataset": "a", "model": "b", "pretrained": "c", "task": "d", "metrics": {"e": "f"}}',
                "metric e is 'f'",
            ),
            (
                '{"dataset": "a", "model": "b", "pretrained": "c", "task": "d", "metrics": {"e": 1}, "vladva": 3}',
                "format",
            ),
        ],
    )
    def test_what_is_no_result(self, results, capsys, content, said):
        results.mkdir()
        path = results / "some.json"
        path.write_text(content)
        found = self.refused_report(results, capsys)
        assert said in found and str(path) in found

    def test_bytes_that_are_no_text(self, results, capsys):
        results.mkdir()
        (results / "some.json").write_bytes(b"\xff\xfe\x00")
        assert "not UTF-8" in self.refused_report(results, capsys)

    def test_a_percentage_for_a_fraction(self, results, capsys):
        path = put(results, metrics={"image_retrieval_recall@1": 59.4})
        assert f"{path}: image_retrieval_recall@1 is 59.4, expected a fraction" in self.refused_report(results, capsys)

    def test_two_figures_of_one_thing(self, results, capsys):
        first, second = put(results), results / "another.json"
        second.write_text(first.read_text().replace("0.594", "0.6"))
        said = self.refused_report(results, capsys)
        assert "different figures for vladva-7b training_free on flickr30k" in said and str(second) in said
        assert "(image_retrieval_recall@1 0.6000 and 0.5940)" in said

    def test_one_name_for_two_models(self, results, capsys):
        put(results)
        put(results, "winoground", {"text": 0.4}, weights="sha256:other")
        said = self.refused_report(results, capsys)
        assert "different weights" in said and "(sha256:0123456789abcdef and sha256:other)" in said

    def test_a_figure_of_ours_that_is_no_number(self, results, capsys):
        """clip_benchmark writes NaN where a metric has no meaning; we never do."""
        path = put(results, "imagenet1k", {"acc1": 0.5, "acc5": math.nan})
        assert f"{path}: metrics is {{'acc1': 0.5, 'acc5': nan}}" in self.refused_report(results, capsys)

    @pytest.mark.parametrize("ours", [{"subset": True, "data": "b"}, {"data": "b"}, {"counts": {"images": 12}}])
    def test_a_part_of_a_data_set_beside_the_whole(self, results, capsys, ours):
        """Other metrics of it would stand in one row."""
        put(results, name="1", subset=False, data="a")
        put(results, name="2", metrics={"text_retrieval_recall@1": 0.5}, **{"subset": False, "data": "a", **ours})
        assert "different data (" in self.refused_report(results, capsys)

    def test_a_pipe(self, results, capsys):
        results.mkdir()
        os.mkfifo(results / "some.json")
        assert "some.json can't be read as JSON: not a regular file" in self.refused_report(results, capsys)

    def test_nothing_there(self, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        assert "no result files" in self.refused_report(tmp_path / "empty", capsys)
        assert "can't be read as JSON: No such file" in self.refused_report(tmp_path / "missing.json", capsys)

    def test_a_place_that_cannot_be_written(self, results, capsys):
        path = put(results)
        assert main(["report", str(results), "--no-plots", "--out", str(path / "report.md")]) == 2
        said = capsys.readouterr().err
        assert path.name in said and "can't be written (" in said


def test_a_value_that_is_missing_is_none(results):
    row = reading.rows([reading.read(put(results))])[0]
    assert row.value("flickr30k", "image_retrieval_recall@1") == 0.594
    assert row.value("flickr30k", "acc1") is row.value("coco", "acc1") is None
