"""Model cards: metadata that huggingface_hub reads back, what a record and result files say, nobody's card lost."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.support import fuzz
from vladva_clip import cli
from vladva_clip.hub import card, card_text
from vladva_clip.hub.card_results import SCENES, read_results
from vladva_clip.storage import adapter_files

ROOT = Path(__file__).parents[3]
RECORD = {
    "recipe": {
        "name": "llava15_7b",
        "model.name": "vladva-7b",
        "model.pretrained": None,
        "model.lora_rank": 16,
        "optim.learning_rate": 1e-4,
        "data.train": ["webdataset:/home/someone/data/cc3m-{000..331}.tar", "https://me:secret@host.org/a.tar?token=x"],
        "data.evaluation": None,
        "output_dir": "/home/someone/runs/7b",
        "resume": True,
    },
    "state": {"step": 500, "pairs": 512000, "tokens": 60000000, "seconds": 1234.5},
    "world_size": 8,
    "device": "cuda:0",
    "versions": {"torch": "2.6.0"},
}
RETRIEVAL = {
    "dataset": "wds/flickr30k",
    "model": "vladva-7b",
    "task": "zeroshot_retrieval",
    "metrics": {"image_retrieval_recall@1": 0.8125, "text_retrieval_recall@1": 0.925, "n": float("inf")},
}
REPORT = {
    "next-token loss, test": {"image_long/image": 0.0963},
    "captions, test": {"names exactly the objects": 0.988},
    "captions, heldout": {"names exactly the objects": 0.098},
}
RUN = {"row": "both", "figures": {"test": {"retrieval": {"text_to_image_R@1": 0.5}, "itt": {"swap_att": 0.25}}}}


def put(path: Path, data: dict) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data, allow_nan=False))
    return path


class TestMetadata:
    def test_what_the_hub_reads(self, honest_copy):
        put(honest_copy / "results/flickr.json", {**RETRIEVAL, "metrics": {"image_retrieval_recall@1": 0.8125}})
        put(honest_copy / "results/scenes.json", REPORT)
        found = ModelCard.load(card.write_card(honest_copy, record=RECORD, licence="llama2", name="our-7b"))
        data = found.data.to_dict()
        assert data["license"] == "llama2" and data["library_name"] == "vladva_clip"
        assert data["base_model"] == "org/base" and data["base_model_relation"] == "adapter"
        assert {"clip", "open_clip", "lora", "peft"} <= set(data["tags"])
        (index,) = data["model-index"]
        assert index["name"] == "our-7b" and len(index["results"]) == 3
        results = {(r.dataset_name, r.dataset_split, r.metric_name): r for r in found.data.eval_results}
        flickr = results["flickr30k", "test", "zeroshot_retrieval: image_retrieval_recall@1"]
        assert (flickr.metric_value, flickr.task_type) == (0.8125, "image-text-retrieval")
        assert results[SCENES, "heldout", "captions: names exactly the objects"].metric_value == 0.098

    def test_without_results_record_or_a_known_license(self, honest_copy):
        found = ModelCard.load(card.write_card(honest_copy))
        assert found.data.license == "other" and found.data.get("license_name")
        assert found.data.eval_results is None and "model-index" not in found.data.to_dict()
        for heading in ("Use", "Base and license", "Settings", "Intended use", "Limits"):
            assert f"\n## {heading}\n" in found.text
        assert "## Figures" not in found.text and "## Training data" not in found.text

    @pytest.mark.parametrize("part", ["lora", "num_image_soft_tokens", "num_text_soft_tokens", "record", None])
    def test_the_patent_application_is_told_where_the_recipe_made_the_adapter(self, honest_copy, part):
        """Not of a bare base with hand-written prompts."""
        bare = {"num_image_soft_tokens": None, "num_text_soft_tokens": None}
        config = adapter_files.read_config(honest_copy)
        config = replace(config, prompt=replace(config.prompt, **bare))
        if part in bare:
            config = replace(config, prompt=replace(config.prompt, **{part: 2}))
        text = card.compose(config, {"r": 4} if part == "lora" else None, True, RECORD if part == "record" else None)
        section = text.split("## Base and license\n")[1].split("\n## ")[0]
        assert section.count("EP 4742185 A1 (published 2026-05-13)") == text.count("EP 4742185") == bool(part)

    @pytest.mark.parametrize(
        ("base", "license", "expected"),
        [
            (
                "Qwen/Qwen2.5-VL-3B-Instruct",
                None,
                ("other", "qwen-research", "-3B-Instruct/blob/main/LICENSE"),
            ),
            ("org/base", None, ("other", "see-the-base", "https://huggingface.co/org/base")),
            ("org/base", "Our Own License 1.0", ("other", "our-own-license-1.0", "https://huggingface.co/org/base")),
            ("llava-hf/llava-1.5-7b-hf", None, ("llama2", None, "")),
            ("Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", None, ("apache-2.0", None, "")),
        ],
    )
    def test_a_license_by_the_hubs_name_or_as_another(self, honest_copy, base, license, expected):
        """The Hub takes a license from its list, or `other` with a name and a link."""
        config = adapter_files.read_config(honest_copy)
        config = replace(config, base=replace(config.base, id=base))
        data = ModelCard(card.compose(config, None, True, None, license=license)).data.to_dict()
        assert (data["license"], data.get("license_name")) == expected[:2]
        assert data.get("license_link", "").endswith(expected[2]) and ("license_link" in data) == bool(expected[2])
        assert data["base_model"] == base

    def test_a_license_without_commercial_use(self, honest_copy):
        def section(license):
            text = card.write_card(honest_copy, license=license).read_text()
            return text.split("## Base and license\n")[1].split("\n## ")[0]

        for license in ("cc-by-nc-4.0", "qwen-research"):
            assert "no commercial use" in section(license) and f"`{license}`" in section(license)
        assert "commercial" not in section("apache-2.0")

    @pytest.mark.parametrize("keyword", ["license", "licence"])
    def test_a_license_by_todays_and_the_earlier_keyword(self, honest_copy, keyword):
        assert ModelCard.load(card.write_card(honest_copy, **{keyword: "mit"})).data.license == "mit"
        path = card.write_named_card("vladva-tiny", honest_copy / "tiny.md", **{keyword: "mit"})
        assert ModelCard.load(path).data.license == "mit"

    def test_a_base_on_a_disk_is_no_hub_id(self, honest_copy):
        config = json.loads((honest_copy / adapter_files.CONFIG).read_text())
        config["base"]["id"] = "local-dir:/home/someone/models/my-base"
        put(honest_copy / adapter_files.CONFIG, config)
        found = ModelCard.load(card.write_card(honest_copy))
        assert found.data.base_model is None
        assert "`my-base`" in found.text and "/home/someone" not in str(found)


class TestText:
    def test_the_record(self, honest_copy):
        text = card.write_card(honest_copy, record=RECORD).read_text()
        assert "recipe `llava15_7b`" in text and "500 steps, 512000 pairs" in text and "8 process" in text
        assert "| optim.learning_rate | 0.0001 |" in text and "torch 2.6.0" in text
        assert "`webdataset:cc3m-{000..331}.tar`" in text and "`https://host.org/a.tar`" in text
        for private in ("someone", "secret", "token=", "resume", "1234.5", "cuda"):  # nor what differs from run to run
            assert private not in text

    def test_the_record_is_found_where_the_trainer_puts_it(self, honest_copy):
        put(honest_copy.parent / card.RECORD, RECORD)
        assert "llava15_7b" in card.write_card(honest_copy).read_text()
        put(honest_copy.parent / card.RECORD, {"some": "other file"})
        with pytest.raises(ValueError, match="training_record.json has no recipe"):
            card.write_card(honest_copy)

    def test_how_to_load_it(self, honest_copy):
        text = card.write_card(honest_copy).read_text()
        for call in (
            "vladva_clip.create_model(",
            "open_clip.create_model_and_transforms(",
            'SentenceTransformer("OUT")',
        ):
            assert call in text
        assert f"| LoRA | rank {fuzz.RANK}, alpha 8 |" in text and f"{fuzz.WIDTH} dimensions" in text

    def test_an_adapter_over_a_published_embedder(self, honest_copy):
        """Its profile, how it encodes, and no command that would refuse it."""
        config = adapter_files.read_config(honest_copy)
        before = card.compose(config, None, True, None)
        base = replace(config.base, id="Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", profile="gme-qwen2-vl-2b")
        encoding = replace(config.encoding, positions="plain")
        config = replace(config, base=base, encoding=encoding, prompt=replace(config.prompt, clean="none"))
        text = card.compose(config, None, True, None)
        assert f"`{base.id}`" in text and "profile `gme-qwen2-vl-2b`" in text
        assert "| positions | plain |" in text and "not cleaned" in text
        assert "positions" not in before and "not cleaned" not in before
        assert "vladva export" in before and "vladva export" not in text
        data = ModelCard(text).data
        assert (data.license, data.base_model, data.base_model_relation) == ("apache-2.0", base.id, "adapter")

    def test_notes_join_the_sections_of_their_name(self, honest_copy):
        (honest_copy / card.NOTES).write_text("We made it.\n\n## Limits\n\n- Birds.\n\n## Thanks\n\nTo all.\n")
        text = card.write_card(honest_copy).read_text()
        body = text[text.index(card.MARK) :]
        assert "We made it." in body.split("## Use")[0] and "behind open_clip's API" not in body
        assert "- Birds.\n\n- It inherits" in body and body.rstrip().endswith("## Thanks\n\nTo all.")

    def test_notes_under_an_earlier_heading(self, honest_copy):
        (honest_copy / card.NOTES).write_text("## Base and licence\n\nOurs too.\n")
        text = card.write_card(honest_copy).read_text()
        assert "\n## Base and license\n\nOurs too.\n" in text and "licence" not in text

    @pytest.mark.parametrize(
        ("private", "shown"),
        [
            ("hf_abcdefgh1234567890", "hf_***"),
            ("pipe:curl -H 'Authorization: Bearer abc.def' x", "pipe:curl -H 'Authorization: Bearer ***' x"),
            ("https://me:pw@host.org/a/b.tar?sig=1&token=2", "https://host.org/a/b.tar"),
            ("s3://bucket/a/b.tar", "s3://bucket/a/b.tar"),
            ("jsonl:/home/me/a/b.jsonl", "jsonl:b.jsonl"),
            ("~/data/b.csv", "b.csv"),
            ("file:///home/me/b.csv", "b.csv"),
            ("C:\\Users\\me\\b.csv", "b.csv"),
            ("scenes:train:400000", "scenes:train:400000"),
            ("runs/a/b.csv", "runs/a/b.csv"),
        ],
    )
    def test_what_is_not_public(self, private, shown):
        assert card_text.public(private) == shown


class TestResults:
    def test_each_form(self, tmp_path):
        figures = read_results(put(tmp_path / "a.json", {**RETRIEVAL, "metrics": {"recall@1": 0.5, "note": "x"}}))
        assert [(f.dataset, f.split, f.metric, f.text) for f in figures] == [("flickr30k", "test", "recall@1", "50.0%")]
        figures = read_results(put(tmp_path / "b.json", REPORT))
        assert [(f.task, f.split, f.text) for f in figures] == [
            ("next-token loss", "test", "0.096"),
            ("captions", "test", "98.8%"),
            ("captions", "heldout", "9.8%"),
        ]
        figures = read_results(put(tmp_path / "c.json", RUN))
        assert [(f.task, f.metric) for f in figures] == [("retrieval", "text_to_image_R@1"), ("itt", "swap_att")]

    @pytest.mark.parametrize("value", [None, float("nan"), float("inf"), [0.5], {}])
    def test_a_figure_that_is_no_number(self, tmp_path, value):
        path = tmp_path / "a.json"
        path.write_text(json.dumps({**RETRIEVAL, "metrics": {"recall@1": 0.5, "recall@5": value}}))
        with pytest.raises(ValueError, match=f"{path}"):
            read_results(path)

    @pytest.mark.parametrize(
        "data", [{}, {"a": 1}, {"metrics": {}, "dataset": "x"}, {"figures": {"test": 3}}, {"a, b": {}}]
    )
    def test_none_of_them(self, tmp_path, data):
        with pytest.raises(ValueError, match="x.json.*no figures.*clip_benchmark"):
            read_results(put(tmp_path / "x.json", data))

    def test_two_of_the_same_figure(self, honest_copy):
        for name in ("base", "adapter"):
            put(honest_copy / f"results/{name}.json", REPORT)
        with pytest.raises(ValueError, match="'next-token loss: image_long/image'.*--results"):
            card.write_card(honest_copy)


class TestCards:
    def test_someone_elses_is_kept(self, honest_copy):
        (honest_copy / "README.md").write_text("mine")
        with pytest.raises(ValueError, match="not written by `vladva card`.*--overwrite"):
            card.write_card(honest_copy)
        assert (honest_copy / "README.md").read_text() == "mine"
        assert card.beside(honest_copy, adapter_files.read_config(honest_copy), None) is None
        card.write_card(honest_copy, overwrite=True)
        written = (honest_copy / "README.md").read_text()
        assert card.write_card(honest_copy).read_text() == written  # its own it replaces, with the same text

    def test_the_command(self, honest_copy, tmp_path, capsys):
        results = put(tmp_path / "r.json", REPORT)
        arguments = [
            "card",
            str(honest_copy),
            "--results",
            str(results),
            "--license",
            "mit",
            "--output",
            str(tmp_path / "C.md"),
        ]
        assert cli.main(arguments) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / "C.md")
        assert ModelCard.load(tmp_path / "C.md").data.license == "mit" and not (honest_copy / "README.md").exists()
        assert cli.main(["card", "vladva-tiny"]) == 2 and "--output FILE" in capsys.readouterr().err
        assert cli.main(["card", "vladva-7b", "--output", str(tmp_path / "D.md")]) == 2
        assert "vladva-7b is not a packaged" in capsys.readouterr().err

    def test_the_model_card_of_this_repository_is_what_the_command_writes(self, tmp_path):
        written = card.write_named_card("vladva-tiny", tmp_path / "MODEL_CARD.md")
        assert written.read_text() == (ROOT / "MODEL_CARD.md").read_text(), (
            "remake it: vladva card vladva-tiny --output MODEL_CARD.md"
        )
        text = written.read_text()
        assert "drawn scenes only" in text and "no adapter has been published" in text
        assert text.count("EP 4742185 A1 (published 2026-05-13)") == 1
        assert ModelCard(text).data.license == "apache-2.0" and len(ModelCard(text).data.eval_results) > 40


def test_saving_writes_one_and_keeps_what_is_there(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert ModelCard.load(tmp_path / "README.md").text.count("## ") >= 5
    put(tmp_path / "results/x.json", {"of": "something else"})
    (tmp_path / card.NOTES).write_text("We made it.")
    model.save_pretrained(tmp_path)  # what was measured on another state is no figure of this one
    assert "We made it." in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_place_that_takes_no_card_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "card.md", tmp_path / "no" / "card.md"):
        assert cli.main(["card", "vladva-tiny", "--output", str(place)]) == 2
        assert f"vladva: {place} can't be written (" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
