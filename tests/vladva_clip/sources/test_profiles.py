"""Profiles: the packaged ones, a user's own, and the revision, size and license with which they are read."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import vladva_clip
from tests.support import adapters
from tests.support.edits import edit_json
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.sources import bases, profiles, registry
from vladva_clip.storage.config import VladvaConfig

GME, REPO = "gme-qwen2-vl-2b", "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"
LICENSES = {"apache-2.0", "mit", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"}
DECIDING = ("image_template", "text_template", "positions", "pooling", "attention", "dtype", "context_length", "clean")
SMALL = {"precision": "fp32", "image_size": 56}


def with_config(**changes) -> dict:
    return {**json.loads(json.dumps(profiles.named(GME).config)), **changes}


def with_prompt(**changes) -> dict:
    return with_config(prompt={**profiles.named(GME).config["prompt"], **changes})


class TestPackaged:
    @pytest.mark.parametrize("profile", profiles.packaged(), ids=lambda one: one.name)
    def test_each_is_whole(self, profile):
        assert profile.name == profile.name.lower() and "/" not in profile.name
        assert list(profile.tags)[-1] == profile.default_tag == "default"
        assert set(profile.tags) == {*profile.instructions, "default"}
        assert bases.find(profile.base) is not None
        assert profile.license in LICENSES or (profile.name, profile.license) == ("e5-v", None)  # states none
        assert profile.revision is None or len(profile.revision) == 40
        assert {*DECIDING, "license", "image.size"} <= set(profile.sources)
        assert set(profile.sources) >= set(profile.tags) - {"default"}
        for tag in profile.tags:
            config = profile.config_of(tag)
            assert VladvaConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
            assert (config.base.id, config.base.profile) == (profile.repository, profile.name)
            assert config.prompt.clean == "none" and config.base.family == profile.family

    @pytest.mark.parametrize("profile", profiles.packaged(), ids=lambda one: one.name)
    def test_all_tags_share_the_default_ones_ids(self, profile):
        default = profile.config_of().prompt
        assert default.tokens_template is None
        for tag in profile.tags:
            prompt = profile.config_of(tag).prompt
            assert prompt.caption_place == default.caption_place
            assert prompt.rendered("image") == default.rendered("image")
            assert (prompt.text_template == default.text_template) == (tag == "default")

    def test_each_is_listed_and_found_by_its_hub_id(self):
        names = [one.name for one in profiles.packaged()]
        assert GME in names and set(names) <= set(vladva_clip.list_models()) and names == sorted(names)
        for one in profiles.packaged():
            assert profiles.of_repository(one.repository.upper()) is one and profiles.find(one.name) is one
            assert [tag for name, tag in vladva_clip.list_pretrained() if name == one.name] == list(one.tags)
            assert vladva_clip.get_model_config(one.name)["embed_dim"] == one.config["embed_dim"]

    def test_an_unknown_one_is_refused_with_the_nearest(self):
        with pytest.raises(ValueError, match=rf"unknown profile 'gme-qwen-vl-2b'.*{GME}"):
            profiles.find("gme-qwen-vl-2b")
        with pytest.raises(ValueError, match="unknown tag 'query' of the profile.*retrieval, default"):
            profiles.named(GME).config_of("query")


class TestFromADirectory:
    def test_the_name_of_a_packaged_one(self, embedder):
        model, _ = vladva_clip.create_model(f"local-dir:{embedder}", profile=GME, **SMALL)
        assert model.config.encoding.positions == "plain" and model.config.base.profile == GME
        assert model.config.prompt.text_template == profiles.named(GME).config["prompt"]["text_template"]
        assert model.config.image.size == 56 and model.embed_dim == 32 and model.context_length == 1780
        tokenizer = vladva_clip.get_tokenizer(f"local-dir:{embedder}", profile=GME)
        assert tokenizer.prompt.caption_ids == "joined" and tokenizer.context_length == 1780

    def test_a_tag_of_it(self, embedder):
        source = f"local-dir:{embedder}"
        default, query = (vladva_clip.create_model(source, tag, profile=GME, **SMALL)[0] for tag in (None, "retrieval"))
        assert "Find an image that matches" in query.config.prompt.text_template
        tokens = vladva_clip.get_tokenizer(source, profile=GME)(["a red dog."])
        assert not torch.allclose(default.encode_text(tokens), query.encode_text(tokens), atol=1e-2)
        images = torch.zeros(1, 3, 56, 56)
        assert torch.equal(default.encode_image(images), query.encode_image(images))

    def test_a_tag_in_capitals(self, embedder, caplog):
        options = {**SMALL, "profile": GME}
        found = vladva_clip.create_model(f"local-dir:{embedder}", "Retrieval", **options)[0]
        assert found.config == vladva_clip.create_model(f"local-dir:{embedder}", "retrieval", **options)[0].config
        assert not caplog.records

    def test_a_profile_of_ones_own(self, embedder, own):
        path = own(config=with_config(encoding={**with_config()["encoding"], "pooling": "mean"}))
        model, _ = vladva_clip.create_model(f"local-dir:{embedder}", profile=path, **SMALL)
        assert model.config.encoding.pooling == "mean" and model.config.base.profile is None
        assert model.visual.encoding.pooling == "mean"
        query, _ = vladva_clip.create_model(f"local-dir:{embedder}", "retrieval", profile=str(path), **SMALL)
        assert "Find an image that matches" in query.config.prompt.text_template

    @pytest.mark.parametrize("version", [2, 3])
    def test_a_config_by_itself(self, embedder, bases, tmp_path, version):
        """As it stands in an adapter, or beside the weights."""
        data = adapters.load(bases["qwen2_vl"]).config.to_dict()
        if version == 2:
            data |= {"format_version": 2, "encoding": None}
            data["prompt"] = {
                k: v for k, v in data["prompt"].items() if k not in ("visual_span", "clean", "tokens_template")
            }
        else:
            data["encoding"]["positions"] = "plain"
        (tmp_path / "mine.json").write_text(
            json.dumps({k: v for k, v in data.items() if v is not None or k != "encoding"})
        )
        model, _ = vladva_clip.create_model(f"local-dir:{embedder}", profile=tmp_path / "mine.json", precision="fp32")
        assert model.config.encoding.positions == {2: "family", 3: "plain"}[version]
        assert model.config.prompt == adapters.load(bases["qwen2_vl"]).config.prompt

    def test_a_config_beside_the_weights(self, embedder, tmp_path, caplog):
        place = Path(shutil.copytree(embedder, tmp_path / embedder.name))
        config = adapters.load(embedder, profile=GME, image_size=84).config
        (place / "vladva_config.json").write_text(json.dumps(config.to_dict()))
        model = adapters.load(place)
        assert (model.config.image.size, model.config.encoding.positions) == (84, "plain")
        assert "training-free" not in caplog.text
        assert model.config.prompt == config.prompt
        for tokenizer in (vladva_clip.get_tokenizer(f"local-dir:{place}"), VladvaTokenizer(place)):
            assert tokenizer.prompt == config.prompt
            assert tokenizer.ids(["a\ndog "]) == VladvaTokenizer(place, prompt=config.prompt).ids(["a\ndog "])

    def test_with_a_models_name_it_is_refused(self):
        for load in (vladva_clip.create_model, vladva_clip.get_tokenizer):
            with pytest.raises(ValueError, match=f"profile='{GME}'.*'vladva-tiny'"):
                load("vladva-tiny", profile=GME)

    def test_a_registered_directory_takes_one(self, embedder, monkeypatch):
        monkeypatch.setattr(registry, "_registered", {})
        vladva_clip.register("mine", embedder)
        model, _ = vladva_clip.create_model("mine", profile=GME, **SMALL)
        assert model.config.base.profile == GME
        assert vladva_clip.get_tokenizer("mine", profile=GME).prompt.text_template == model.config.prompt.text_template

    def test_one_of_another_family(self, embedder, tmp_path):
        place = Path(shutil.copytree(embedder, tmp_path / "other"))
        edit_json(place / "config.json", auto_map={"AutoModel": "modeling_gme.Gme"})
        for load in (vladva_clip.create_model, vladva_clip.get_tokenizer):
            with pytest.raises(ValueError, match=r"config\.json: model_type is 'qwen2_vl'.*gve-3b.*qwen2_5_vl"):
                load(f"local-dir:{place}", profile="gve-3b")

    def test_an_adapter_names_it(self, embedder, tmp_path):
        model = adapters.with_lora(adapters.load(embedder, profile=GME, image_size=84))
        model.save_pretrained(tmp_path / "adapter")
        again = adapters.load(tmp_path / "adapter")
        assert (again.config.base.profile, again.config.image.size) == (GME, 84)
        images = torch.randn(1, 3, 84, 84, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(again.encode_image(images), model.encode_image(images), rtol=0, atol=1e-4)

    def test_with_an_adapter_it_is_refused(self, honest_copy):
        for load in (vladva_clip.create_model, vladva_clip.get_tokenizer):
            with pytest.raises(ValueError, match=f"profile='{GME}'.*an adapter.*{honest_copy}"):
                load(f"local-dir:{honest_copy}", profile=GME)

    def test_an_adapter_over_a_profile_of_ones_own(self, embedder, own, tmp_path):
        """What it says is in the adapter; what it admits can't be, so the base's files must not need it."""
        place = Path(shutil.copytree(embedder, tmp_path / "odd"))
        path = own(admits={"model_type": "odd_qwen2_vl", "auto_map": True})
        adapters.with_lora(adapters.load(place, profile=path, image_size=56)).save_pretrained(tmp_path / "adapter")
        assert adapters.load(tmp_path / "adapter").config.encoding.positions == "plain"
        edit_json(place / "config.json", model_type="odd_qwen2_vl", auto_map={"AutoModel": "modeling_odd.Odd"})
        model = adapters.load(place, profile=path, image_size=56)
        with pytest.raises(ValueError, match="odd_qwen2_vl"):
            model.save_pretrained(tmp_path / "other")

    def test_an_adapter_over_a_packaged_profile_admits_what_that_does(self, embedder, tmp_path):
        place = Path(shutil.copytree(embedder, tmp_path / "Unite-Base-Qwen2-VL-2B"))
        edit_json(place / "config.json", model_type="unite_qwen2_vl")
        model = adapters.with_lora(adapters.load(place, profile="unite-2b", image_size=56))
        model.save_pretrained(tmp_path / "adapter")
        assert adapters.same(adapters.load(tmp_path / "adapter", merge_lora=False), model)
        with pytest.raises(ValueError, match="unite_qwen2_vl"):
            adapters.load(place, profile=GME, image_size=56)


class TestErrorsOfAFile:
    @pytest.mark.parametrize(("slot", "count"), [("", 0), ("<|vision_start|><|image_pad|>", 2)])
    def test_a_visual_slot_that_is_not_one_token(self, own, embedder, slot, count):
        config = profiles.named(GME).config
        given = own(config={**config, "prompt": {**config["prompt"], "visual_span": {"slot": slot}}})
        with pytest.raises(ValueError, match=f"slot is .*{count} tokens; expected one token"):
            vladva_clip.create_model(f"local-dir:{embedder}", profile=given, **SMALL)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"confg": {}}, "unknown key 'confg'; did you mean config"),
            ({"config": None}, "lacks config"),
            ({"config": {}}, "lacks config, with the family"),
            ({"config": {"family": "qwen2_vl"}}, "prompt"),
            ({"config": with_config(format_version=9)}, "format_version is 9"),
            ({"config": with_config(embed_dim="wide")}, "embed_dim"),
            ({"config": with_config(dims=3)}, "unknown key 'dims'"),
            ({"config": with_config(encoding={"pooling": "last"})}, "lacks attention"),
            ({"config": with_prompt(text_template="no hole")}, "0 holes {caption}"),
            ({"config": with_prompt(clean="some")}, "clean"),
            ({"tags": {"retrieval": {"text_template": "none"}, "default": {}}}, "0 holes {caption}"),
            ({"tags": {"retrieval": {"text": "{caption} a"}, "default": {}}}, "unknown key 'text'"),
            ({"tags": {}}, "tags"),
            ({"tags": []}, "tags"),
            ({"tags": {"default": None}}, "tags"),
            ({"admits": {"code": True}}, "admits"),
            ({"admits": []}, "admits"),
        ],
    )
    def test_what_is_wrong_is_said_with_the_path(self, own, embedder, changes, said):
        path = own(**changes)
        with pytest.raises(ValueError) as caught:
            vladva_clip.create_model(f"local-dir:{embedder}", profile=path)
        assert str(path) in str(caught.value) and said in str(caught.value), str(caught.value)
        assert "docs/published_models.md" in str(caught.value)

    @pytest.mark.parametrize("text", ["", "{", "[]", "7", "null"])
    def test_no_json_object(self, tmp_path, embedder, text):
        (tmp_path / "own.json").write_text(text)
        with pytest.raises(ValueError, match=r"own\.json"):
            vladva_clip.get_tokenizer(f"local-dir:{embedder}", profile=tmp_path / "own.json")

    def test_no_file(self, tmp_path, embedder):
        with pytest.raises(ValueError, match=r"none\.json does not exist"):
            vladva_clip.create_model(f"local-dir:{embedder}", profile=tmp_path / "none.json")
        with pytest.raises(ValueError, match=f"{tmp_path} is a directory"):
            vladva_clip.create_model(f"local-dir:{embedder}", profile=str(tmp_path))

    def test_another_family_than_the_files(self, bases, own):
        with pytest.raises(ValueError, match="llava.*qwen2_vl|qwen2_vl.*llava"):
            vladva_clip.create_model(f"local-dir:{bases['llava']}", profile=own())


class TestImageSize:
    def test_it_is_the_users_choice(self, embedder, tmp_path):
        sizes = {}
        for size in (56, 112):
            model, preprocess = vladva_clip.create_model(
                f"local-dir:{embedder}", profile=GME, precision="fp32", image_size=size
            )
            sizes[size] = (model.config.image.size, model.visual.num_visual_tokens, preprocess.transforms[0].size)
        assert [found[:2] for found in sizes.values()] == [(56, 4), (112, 16)] and sizes[56] != sizes[112]
        forced, _ = vladva_clip.create_model(
            f"local-dir:{embedder}", profile=GME, precision="fp32", force_image_size=112
        )
        assert forced.config.image.size == 112

    def test_an_adapter_keeps_it(self, embedder, tmp_path):
        adapters.load(embedder, profile=GME, image_size=112).save_pretrained(tmp_path / "adapter")
        assert json.loads((tmp_path / "adapter" / "vladva_config.json").read_text())["image"]["size"] == 112
        assert adapters.load(tmp_path / "adapter").visual.image_size == (112, 112)
        with pytest.raises(ValueError, match="56 pixels was requested.*takes 112"):
            adapters.load(tmp_path / "adapter", image_size=56)

    @pytest.mark.parametrize("size", [57, 14, 450])
    def test_no_multiple_of_the_unit(self, embedder, size):
        with pytest.raises(ValueError, match=f"{size} pixels.*multiple of 28"):
            adapters.load(embedder, profile=GME, image_size=size)

    @pytest.mark.parametrize("size", [56.0, "56", b"56"])
    def test_no_whole_number(self, embedder, size):
        with pytest.raises(ValueError, match="image size is .*expected a positive whole number"):
            vladva_clip.create_model(f"local-dir:{embedder}", profile=GME, image_size=size)


def test_an_unknown_tag_of_a_directory_is_refused(bases, tmp_path):
    place = Path(shutil.copytree(bases["qwen2_vl"], tmp_path / "base"))
    with pytest.raises(ValueError, match="unknown tag 'retreival' of the profile gme-.*valid tags: retrieval, default"):
        vladva_clip.create_model(f"local-dir:{place}", "retreival", profile=GME)
