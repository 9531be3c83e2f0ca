"""The paper's tables with rows of ours: published figures as they are, ours beside them, rounded as the paper's."""

from statistics import mean

import pytest

from tests.support.suites.result_files import OURS, cells, made, put
from vladva_benchmarks.report import tables

SOURCE, TABLES = tables.published()
BY_ID = {table.id: table for table in TABLES}


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


class TestPublished:
    def test_every_row_fills_its_table(self):
        assert [table.id for table in TABLES] == [
            *("retrieval", "sugarcrepe", "sugarcrepe_pp", "winoground", "imagenet1k", "ablation", "data"),
        ]
        for table in TABLES:
            assert {len(row) for row in table.rows.values()} == {len(table.columns)}
            figures = [(name, value) for name, row in table.rows.items() for value in row]
            assert all(0 < value <= 100 for _, value in figures if value is not None)
            assert {name for name, value in figures if value is None} <= {"BLIP-SGVL"}
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
        assert figure("retrieval", "VLM2Vec (Mistral-7B)", "COCO I2T R@1") == 68.2
        assert figure("sugarcrepe", "VLM2Vec (Mistral-7B)", "replace rel") == 81.7
        assert figure("sugarcrepe_pp", "VLM2Vec (Mistral-7B)", "replace rel TOT") == 70.7
        assert figure("sugarcrepe_pp", "CLIP-SVLC", "replace obj TOT") == 91.6
        assert figure("sugarcrepe_pp", "BLIP-SGVL", "replace rel ITT") == 30.7
        assert figure("sugarcrepe_pp", "BLIP-SGVL", "replace rel TOT") is None
        assert figure("data", "OpenImages (4M)", "SugarCrepe swap") == 79.6
        assert figure("data", "+ ShareGPT-4V (1.3M)", "Flickr30k I2T R@1") == 94.0

    def test_the_data_ablation_starts_and_ends_with_rows_of_the_other_tables(self):
        data, parts = BY_ID["data"], BY_ID["ablation"]
        assert [column.mean_of for column in data.columns] == [column.mean_of for column in parts.columns]
        assert data.rows["LLaVA-1.5-7B (0M)"] == parts.rows["LLaVA-1.5-7B"]
        assert data.rows["OpenImages (1M)"] == parts.rows["+ LoRA + soft prompt"]
        kinds = BY_ID["sugarcrepe"].rows["VladVA (LLaVA-1.5-7B)"]
        means = [mean(kinds[:3]), mean(kinds[3:5]), mean(kinds[5:])]
        retrieval = BY_ID["retrieval"].rows["VladVA (LLaVA-1.5-7B)"]
        assert data.rows["+ CC3M (2.8M)"] == pytest.approx([*means, retrieval[0], retrieval[6]], abs=0.051)

    def test_footnotes_are_about_rows_and_columns_that_there_are(self):
        for table in TABLES:
            for note in table.footnotes:
                assert note.row in table.rows and note.column in (None, *(column.name for column in table.columns))

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


class TestFootnotes:
    def test_each_follows_its_table_with_a_number_that_is_where_it_belongs(self, results):
        put(results)
        text = made(results, "--all-tables")
        for table in TABLES:
            section = text.split(f"## {table.title}\n")[1].split("\n## ")[0]
            for mark, note in zip("¹²³⁴", table.footnotes, strict=False):
                assert f"\n{mark} {note.text}" in section
                name = note.row + ("" if note.column else mark)
                row = cells(text, f"{name} |", table.title)
                assert [column for column, cell in row.items() if mark in cell] == ([note.column] * bool(note.column))
            assert section.count("\n¹ ") == bool(table.footnotes)

    @pytest.mark.parametrize(
        ("titles", "said"),
        [
            (("Zero-shot retrieval",), "open_clip's own figure is 99.8"),
            (("Zero-shot retrieval", "Winoground", "Zero-shot ImageNet"), "ViT-B/32 in retrieval, with its ViT-B/16"),
            (("Zero-shot retrieval",), "ViT-L/14 at 336 px"),
            (("Zero-shot retrieval", "SugarCrepe", "SugarCrepe++", "Winoground"), "ViT-g-14 (laion2b_s34b_b88k)"),
            (("The training data",), "OpenImages seems to have been contrastive only"),
        ],
    )
    def test_what_is_known_of_the_papers_labels(self, results, titles, said):
        put(results)
        sections = made(results, "--all-tables").split("\n## ")
        assert [section.split("\n")[0] for section in sections if said in section] == list(titles)

    def test_a_figure_keeps_its_value_before_the_mark(self, results):
        put(results)
        row = cells(made(results), "OpenCLIP (ViT-BigG/14)", "Zero-shot retrieval")
        assert row["Flickr30k I2T R@10"] == "97.1 ⁴" and row["Flickr30k T2I R@10"] == "97.1"


class TestFigures:
    def test_the_official_tie_rule_needs_no_mark(self, results):
        put(results, "sugar_crepe/swap_obj", {"acc": 0.6})
        text = made(results)
        assert cells(text, OURS, "SugarCrepe")["swap obj"] == "**60.0** (-0.9)" and "‡" not in text

    def test_nocaps_is_the_mean_of_its_domains(self, results):
        name = "text_retrieval_recall@1"
        for domain, value in (("in", 0.5), ("near", 0.6), ("out", 0.7)):
            put(results, f"nocaps/{domain}-domain", {name: value})
        assert cells(made(results), OURS, "Zero-shot retrieval")["nocaps I2T R@1"] == "**60.0** (+7.9)"
        put(results, "nocaps/mean", {name: 0.61})
        assert cells(made(results), OURS, "Zero-shot retrieval")["nocaps I2T R@1"] == "**61.0** (+8.9)"

    def test_without_a_domain_there_is_no_mean_and_the_others_are_listed(self, results):
        put(results)
        for domain, value in (("in", 0.5), ("near", 0.6)):
            put(results, f"nocaps/{domain}-domain", {"text_retrieval_recall@1": value})
        text = made(results)
        assert cells(text, OURS, "Zero-shot retrieval")["nocaps I2T R@1"] == "-"
        assert "| nocaps/near-domain | text_retrieval_recall@1 0.6000 |" in text

    def test_the_ablations_columns_are_means_over_kinds(self, results):
        for kind, value in (("swap_obj", 0.5), ("swap_att", 0.7), ("add_obj", 0.9)):
            put(results, f"sugar_crepe/{kind}", {"acc": value})
        found = cells(made(results), OURS, "The recipe's parts")
        assert found["SugarCrepe swap"] == "**60.0** (+0.2)" and found["SugarCrepe add"] == "-"

    def test_models_are_held_against_the_first_and_the_last_row_of_the_data_ablation(self, results):
        put(results)
        put(results, model="mine", pretrained="registered", training_free=False)
        text = made(results)
        assert cells(text, OURS, "The training data")["Flickr30k T2I R@1"] == "**59.4** (-0.2)"
        assert cells(text, "**mine registered**", "The training data")["Flickr30k T2I R@1"] == "**59.4** (-25.6)"

    def test_a_figure_that_the_paper_lacks_is_a_dash(self, results):
        put(results, "sugarcrepe_pp/swap_obj", {"itt": 0.5, "tot": 0.5})
        found = cells(made(results), "BLIP-SGVL", "SugarCrepe++")
        assert found["swap obj ITT"] == "13.2" and found["swap obj TOT"] == "-"

    def test_part_of_a_data_set_is_marked_and_not_held_against_the_paper(self, results):
        put(results, subset=True)
        put(results, "mscoco_captions", subset=False)
        text = made(results)
        found = cells(text, OURS, "Zero-shot retrieval")
        assert found["Flickr30k T2I R@1"] == "**59.4**†" and found["COCO T2I R@1"] == "**59.4** (+25.0)"
        assert "| flickr30k† | image_retrieval_recall@5 0.8000 |" in text and "| mscoco_captions | image" in text
        assert "† on data" in text and "not comparable" in text

    def test_without_a_difference_none_is_explained(self, results):
        put(results, subset=True)
        assert "In parentheses" not in made(results)

    def test_part_of_one_domain_is_part_of_nocaps_mean(self, results):
        for domain in ("in", "near", "out"):
            put(results, f"nocaps/{domain}-domain", {"text_retrieval_recall@1": 0.6}, subset=domain == "near")
        assert cells(made(results), OURS, "Zero-shot retrieval")["nocaps I2T R@1"] == "**60.0**†"

    @pytest.mark.parametrize(
        ("right", "shown"),
        [(45, "**11.3** (+0.0)"), (49, "**12.3** (+1.0)"), (51, "**12.8** (+1.5)"), (0, "**0.0** (-11.3)")],
    )
    def test_a_half_is_rounded_up_as_in_the_paper(self, results, right, shown):
        """45 of Winoground's 400 are 11.25 %, its LLaVA-1.5-7B's 11.3: who measures the same has no difference."""
        put(results, "winoground", {"image": right / 400})
        assert cells(made(results), OURS, "Winoground")["image"] == shown

    def test_published_figures_stand_as_published(self, results):
        put(results, "sugarcrepe_pp/swap_obj", {"itt": 0.5, "tot": 0.5})
        found = cells(made(results), "CLIP (ViT-B)", "SugarCrepe++")
        assert found["replace rel TOT"] == "38.62" and found["swap obj ITT"] == "45.2"

    def test_what_no_table_has_is_listed(self, results):
        put(results, "scenes_retrieval", {"image_retrieval_recall@1": 0.25})
        put(results)
        beyond = made(results).split("## Beyond the paper's tables")[1]
        assert "| scenes_retrieval | image_retrieval_recall@1 0.2500 |" in beyond
        assert "| flickr30k | image_retrieval_recall@5 0.8000 |" in beyond

    def test_the_origin_of_each_figure_is_told(self, results):
        path = put(results)
        origins = made(results).split("## Where the figures come from")[1]
        for said in ("1000 images", "| 12.5 | 80.0 | a CPU | 0123456789ab |", path.name, "torch 2.14.0"):
            assert said in origins
        assert "    vladva-benchmark run flickr30k\n" in origins

    def test_a_command_can_be_typed_again(self, results):
        put(results, command=["vladva-benchmark", "run", "coco", "--data-root", "my data"])
        assert "    vladva-benchmark run coco --data-root 'my data'\n" in made(results)

    def test_signs_of_markdown_in_a_name(self, results):
        put(results, model="a|b*c", base=None, training_free=False)
        assert "**a\\|b\\*c training_free**" in made(results)
