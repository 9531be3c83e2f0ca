"""The report: figures land in the right cells beside the published ones, and what is no result is refused."""

import json
import math
import os
import sys
from statistics import mean

import pytest

from vladva_benchmarks import report, report_results, report_tables
from vladva_benchmarks.cli import main

SOURCE, TABLES = report_tables.published()
BY_ID = {table.id: table for table in TABLES}
BASE = "llava-hf/llava-1.5-7b-hf"
RETRIEVAL = {"image_retrieval_recall@1": 0.594, "image_retrieval_recall@5": 0.8, "image_retrieval_recall@10": 0.893}


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def put(folder, dataset="flickr30k", metrics=RETRIEVAL, model="vladva-7b", pretrained="training_free", **ours):
    """Write a result as `vladva-benchmark run` does; with details=None as clip_benchmark does."""
    details = {"format": 1, "suite": "flickr30k", "command": ["vladva-benchmark", "run", "flickr30k"], "seconds": 12.5}
    details |= {"versions": {"torch": "2.14.0"}, "hardware": "a CPU", "images": 1000, "images_per_second": 80.0}
    details |= {"training_free": True, "base": BASE, "weights": "sha256:0123456789abcdef", "counts": {"images": 1000}}
    result = {"dataset": dataset, "model": model, "pretrained": pretrained, "task": "zeroshot_retrieval"}
    result |= {"metrics": metrics, "language": "en", "vladva": {**details, **ours}}
    if ours == {"details": None}:
        del result["vladva"]
    path = folder / f"{dataset}_{model}_{pretrained}.json".replace("/", "_")
    path.write_text(json.dumps(result))
    return path


def made(folder, *options, out="report.md") -> str:
    path = folder.parent / out
    report.main([str(folder), "--out", str(path), *options])
    return path.read_text(encoding="utf-8")


def cells(text: str, name: str, title: str) -> dict[str, str]:
    """A row of one of the report's tables, by column."""
    lines = text.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    head = next(line for line in lines if line.startswith("|"))
    row = next(line for line in lines if line.startswith(f"| {name}"))
    columns, values = ([cell.strip() for cell in line.split("|")[2:-1]] for line in (head, row))
    return dict(zip(columns, values, strict=True))


OURS = "**LLaVA-1.5-7B, training-free (vladva-7b training_free)**"


class TestPublished:
    def test_every_row_fills_its_table(self):
        assert [table.id for table in TABLES] == [
            *("retrieval", "sugarcrepe", "sugarcrepe_pp", "winoground", "imagenet1k", "ablation"),
        ]
        for table in TABLES:
            assert {len(row) for row in table.rows.values()} == {len(table.columns)}
            assert all(0 < value <= 100 for row in table.rows.values() for value in row)
        assert SOURCE["arxiv"] == "2412.04378"

    def test_figures_of_the_paper(self):
        def figure(table, row, column):
            names = [one.name for one in BY_ID[table].columns]
            return BY_ID[table].rows[row][names.index(column)]

        assert figure("retrieval", "VladVA (LLaVA-1.5-7B)", "Flickr30k T2I R@1") == 85.0
        assert figure("retrieval", "VladVA (LLaVA-1.5-13B)", "nocaps I2T R@10") == 99.6
        assert figure("sugarcrepe", "Human", "swap att") == 100.0
        assert figure("sugarcrepe_pp", "LLaVA-1.5-7B", "swap obj ITT") == 23.8
        assert figure("winoground", "VladVA (LLaVA-1.5-7B)", "text") == 40.5
        assert figure("imagenet1k", "Qwen2-VL-2B", "top-5") == 79.4

    def test_the_ablations_first_row_is_the_mean_of_the_other_tables(self):
        kinds = dict(
            zip((c.name for c in BY_ID["sugarcrepe"].columns), BY_ID["sugarcrepe"].rows["LLaVA-1.5-7B"], strict=True)
        )
        means = [mean(v for kind, v in kinds.items() if kind.startswith(what)) for what in ("replace", "swap", "add")]
        assert BY_ID["ablation"].rows["LLaVA-1.5-7B"][:3] == pytest.approx(means, abs=0.051)
        retrieval = dict(
            zip((c.name for c in BY_ID["retrieval"].columns), BY_ID["retrieval"].rows["LLaVA-1.5-7B"], strict=True)
        )
        names = [column.name for column in BY_ID["ablation"].columns[3:]]
        assert BY_ID["ablation"].rows["LLaVA-1.5-7B"][3:] == [retrieval[name] for name in names]

    def test_columns_ask_for_names_that_the_suites_write(self):
        asked = {part for table in TABLES for column in table.columns for part in column.mean_of}
        assert {name for name, _ in asked if "/" not in name} == {
            *("flickr30k", "mscoco_captions", "winoground", "imagenet1k")
        }
        kinds = {"replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att"}
        assert {name for name, _ in asked if name.startswith("sugarcrepe_pp/")} == {f"sugarcrepe_pp/{k}" for k in kinds}
        more = kinds | {"add_obj", "add_att"}
        assert {name for name, _ in asked if name.startswith("sugar_crepe/")} == {f"sugar_crepe/{k}" for k in more}


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
        text = made(results, "--no-plots")  # the table of the recipe's parts has Flickr30k's R@1 too
        shown = [table.id for table in TABLES if f"## {table.title}\n" in text]
        assert shown == ["retrieval", "ablation"]
        assert all(f"## {table.title}\n" in made(results, "--no-plots", "--all-tables") for table in TABLES)

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
        put(
            results, "imagenet1k", {"acc1": 0.5, "acc5": math.nan}, "ViT-B-32", "openai", training_free=False, base=None
        )
        assert cells(made(results), "**ViT-B-32 openai**", "Zero-shot ImageNet") == {"top-1": "**50.0**", "top-5": "-"}

    def test_a_base_that_the_paper_does_not_have_is_called_training_free(self, results):
        put(results, model="vladva-tiny", pretrained="base", base=None)
        assert cells(made(results), "**vladva-tiny base, training-free**", "Zero-shot retrieval")

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
        assert "takes a tie for right" in text and "not stated in the files" in text

    def test_the_official_tie_rule_needs_no_mark(self, results):
        put(results, "sugar_crepe/swap_obj", {"acc": 0.6})
        text = made(results)
        assert cells(text, OURS, "SugarCrepe")["swap obj"] == "**60.0** (-0.9)" and "‡" not in text

    def test_nocaps_is_the_mean_of_its_domains(self, results):
        name = "text_retrieval_recall@1"
        for domain, value in (("in", 0.5), ("near", 0.6)):
            put(results, f"nocaps/{domain}-domain", {name: value})
        assert (
            "nocaps I2T" not in made(results)
            or cells(made(results), OURS, "Zero-shot retrieval")["nocaps I2T R@1"] == "-"
        )
        put(results, "nocaps/out-domain", {name: 0.7})
        assert cells(made(results), OURS, "Zero-shot retrieval")["nocaps I2T R@1"] == "**60.0** (+7.9)"
        put(results, "nocaps/mean", {name: 0.61})
        assert cells(made(results), OURS, "Zero-shot retrieval")["nocaps I2T R@1"] == "**61.0** (+8.9)"

    def test_the_ablations_columns_are_means_over_kinds(self, results):
        for kind, value in (("swap_obj", 0.5), ("swap_att", 0.7), ("add_obj", 0.9)):
            put(results, f"sugar_crepe/{kind}", {"acc": value})
        found = cells(made(results), OURS, "The recipe's parts")
        assert found["SugarCrepe swap"] == "**60.0** (+0.2)" and found["SugarCrepe add"] == "-"

    def test_a_part_of_the_data_is_marked(self, results):
        put(results, subset=True)
        text = made(results)
        assert "†" in text and "not comparable with published rows" in text

    def test_what_no_table_has_is_listed(self, results):
        put(results, "scenes_retrieval", {"image_retrieval_recall@1": 0.25})
        put(results)
        beyond = made(results).split("## Beyond the paper's tables")[1]
        assert "| scenes_retrieval | image_retrieval_recall@1 0.2500 |" in beyond
        assert "| flickr30k | image_retrieval_recall@5 0.8000 |" in beyond

    def test_the_origin_of_each_figure_is_told(self, results):
        path = put(results)
        origins = made(results).split("## Where the figures are from")[1]
        for said in ("1000 images", "| 12.5 | 80.0 | a CPU | 0123456789ab |", path.name, "torch 2.14.0"):
            assert said in origins
        assert "    vladva-benchmark run flickr30k\n" in origins


class TestFiles:
    def test_a_plot_for_each_table(self, results):
        put(results)
        put(results, "winoground", {"text": 0.41, "image": 0.18, "group": 0.12})
        text = made(results, out="new/mine.md")
        plots = sorted((results.parent / "new").glob("*.png"))
        assert [path.name for path in plots] == [f"mine-{name}.png" for name in ("ablation", "retrieval", "winoground")]
        assert all(path.read_bytes().startswith(b"\x89PNG") and f"]({path.name})" in text for path in plots)

    def test_the_same_files_give_the_same_report(self, results):
        put(results)
        assert made(results) == made(results)

    def test_results_may_be_files_and_folders(self, results, capsys):
        path = put(results)
        assert main(["report", str(path), str(results), "--no-plots", "--out", str(results.parent / "r.md")]) == 0
        assert "report of 1 model(s), 2 of the paper's tables, 0 plots" in capsys.readouterr().out

    def test_an_interruption_leaves_the_old_report(self, results, monkeypatch):
        put(results)
        old = made(results, "--no-plots")

        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupted)
        put(results, "winoground", {"text": 0.4})
        with pytest.raises(KeyboardInterrupt):
            made(results, "--no-plots")
        assert (results.parent / "report.md").read_text(encoding="utf-8") == old
        assert sorted(path.name for path in results.parent.iterdir()) == ["report.md", "results"]

    def test_without_matplotlib(self, results, monkeypatch):
        put(results)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ValueError, match="pip install 'vladva-clip.benchmarks.', or --no-plots"):
            made(results)
        assert made(results, "--no-plots")


class TestBadInput:
    def refused(self, folder, capsys) -> str:
        assert main(["report", str(folder), "--no-plots", "--out", str(folder.parent / "report.md")]) == 2
        return capsys.readouterr().err

    @pytest.mark.parametrize("ours", [{"format": 2}, {"format": None}])
    def test_another_format_version(self, results, capsys, ours):
        path = put(results, **ours)
        said = self.refused(results, capsys)
        assert f"{path} is a result of format {ours['format']}, this version reads 1" in said

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("{", "is no valid JSON"),
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
        path = results / "some.json"
        path.write_text(content)
        found = self.refused(results, capsys)
        assert said in found and str(path) in found

    def test_bytes_that_are_no_text(self, results, capsys):
        (results / "some.json").write_bytes(b"\xff\xfe\x00")
        assert "is no valid JSON" in self.refused(results, capsys)

    def test_a_percentage_for_a_fraction(self, results, capsys):
        path = put(results, metrics={"image_retrieval_recall@1": 59.4})
        assert f"{path}: image_retrieval_recall@1 is 59.4, expected a fraction" in self.refused(results, capsys)

    def test_two_figures_of_one_thing(self, results, capsys):
        first, second = put(results), results / "another.json"
        second.write_text(first.read_text().replace("0.594", "0.6"))
        said = self.refused(results, capsys)
        assert "hold other figures of vladva-7b training_free on flickr30k" in said and str(second) in said

    def test_one_name_for_two_models(self, results, capsys):
        put(results)
        put(results, "winoground", {"text": 0.4}, weights="sha256:other")
        assert "were measured with other weights (sha256:0123456789abcdef and sha256:other)" in self.refused(
            results, capsys
        )

    def test_nothing_there(self, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        assert "holds no result file" in self.refused(tmp_path / "empty", capsys)
        assert "can't be read: No such file" in self.refused(tmp_path / "missing.json", capsys)

    def test_a_place_that_cannot_be_written(self, results, capsys):
        path = put(results)
        assert main(["report", str(results), "--no-plots", "--out", str(path / "report.md")]) == 2
        assert "report.md can't be written (" in capsys.readouterr().err

    def test_signs_of_markdown_in_a_name(self, results):
        put(results, model="a|b*c", base=None, training_free=False)
        assert "**a\\|b\\*c training_free**" in made(results, "--no-plots")


def test_a_value_that_is_missing_is_none(results):
    row = report_results.rows([report_results.read(put(results))])[0]
    assert row.value("flickr30k", "image_retrieval_recall@1") == 0.594
    assert row.value("flickr30k", "acc1") is row.value("coco", "acc1") is None
