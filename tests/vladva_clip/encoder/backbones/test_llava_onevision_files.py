"""Which files of LLaVA-OneVision are taken, what is refused before anything is built of it, and exports."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, LlavaOnevisionForConditionalGeneration

import vladva_clip
from tests.support.edits import edit_json
from tests.support.models.published_configs import PUBLISHED
from tests.support.models.tiny_bases import drop, rename_to_hub_llava
from tests.support.models.tiny_llava_onevision import SIDE, write_llava_onevision
from tests.support.refusals import refused
from vladva_clip.encoder.admission.base_config import read_base_config
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.sources import registry
from vladva_clip.storage.base import BaseFiles

UNREAD = {"architectures", "image_grid_pinpoints", "torch_dtype", "transformers_version"}
UNREAD |= {"use_image_newline_parameter", "vision_aspect_ratio"}  # of tiles, but for a flag that is always set


@pytest.fixture
def copy(bases, tmp_path) -> Path:
    return Path(shutil.copytree(bases["llava_onevision"], tmp_path / "base"))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def features(directory: Path, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return vladva_clip.create_model(f"local-dir:{directory}", precision="fp32")[0].encode_image(images)


def change(directory: Path, part: str | None, **values) -> None:
    path = directory / "config.json"
    edit_json(path, **({part: {**json.loads(path.read_text())[part], **values}} if part else values))


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("llava-onevision")])
def test_the_published_settings_reach_transformers(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    admitted, config = read_base_config(BaseFiles(tmp_path)), PUBLISHED[name]
    assert set(config["text_config"]) - set(admitted["text_config"]) == {
        "_name_or_path",
        "architectures",
        "torch_dtype",
    }
    assert admitted["vision_config"] == config["vision_config"]
    assert set(config) - set(admitted) == UNREAD
    assert registry.facts(name).image_size is None  # the file leaves no choice


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("text_config", {"model_type": "llama"}, "qwen2"),
        ("text_config", {"num_attention_heads": 5}, "multiple of its 5 heads"),
        ("text_config", {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type"),
        ("vision_config", {"model_type": "clip_vision_model"}, "siglip_vision_model"),
        ("vision_config", {"num_attention_heads": 5}, "num_heads"),
        ("vision_config", {"image_size": 13}, "13 pixels makes 0 patches"),
        (None, {"vision_feature_layer": -5}, "vision_feature_layer is -5"),
        (None, {"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy"),
        (None, {"image_token_index": 5}, "token 5 for images"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(copy, part, values, words):
    change(copy, part, **values)
    size = values.get("image_size", SIDE)
    edit_json(copy / "preprocessor_config.json", size={"height": size, "width": size})
    refused(copy, "config.json", words, load_weights=False)


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("preprocessor_config.json", {"size": {"height": 384, "width": 384}}, ("size", "takes 56 pixels only")),
        ("preprocessor_config.json", {"size": {"shortest_edge": 56}}, ("size", "height and width")),
        ("preprocessor_config.json", {"crop_size": {"height": 28, "width": 28}}, ("crop_size", "56")),
        ("preprocessor_config.json", {"processor_class": "LlavaNextProcessor"}, ("LlavaOnevisionProcessor",)),
        ("tokenizer_config.json", {"eos_token": "<|endoftext|>"}, ("eos_token", "<|im_end|>")),
    ],
    ids=str,
)
def test_another_processor_or_tokenizer_is_refused(copy, file, values, words):
    edit_json(copy / file, **values)
    refused(copy, *words)


def test_another_size_is_refused(copy):
    with pytest.raises(ValueError, match="112 pixels.*takes 56 only"):
        vladva_clip.create_model(f"local-dir:{copy}", force_image_size=112)


def test_what_decides_tiles_changes_nothing(copy, bases, images):
    for file in ("config.json", "preprocessor_config.json"):
        edit_json(copy / file, image_grid_pinpoints=[[112, 112]])
    change(copy, None, vision_aspect_ratio="anyres_max_4")
    assert torch.equal(features(copy, images), features(bases["llava_onevision"], images))


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.wide)])
def test_a_head_is_tied_where_the_llms_settings_say_so(tmp_path, tied, images):
    """The top of the published files says no in either case; with the tensors' names on the Hub."""
    base = write_llava_onevision(tmp_path / "base", tied=tied)
    assert json.loads((base / "config.json").read_text())["tie_word_embeddings"] is False
    before = features(base, images)
    rename_to_hub_llava(base)
    model, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    assert model.visual.backbone.head_is_tied == tied and torch.equal(features(base, images), before)
    if not tied:
        drop(base, "language_model.lm_head.weight")
        refused(base, "missing_keys", "lm_head")


@pytest.mark.wide
def test_what_transformers_saves_again_is_the_same(tmp_path, images):
    """It writes the settings of the image processor into processor_config.json."""
    again, first = tmp_path / "again", write_llava_onevision(tmp_path / "first", tied=False)
    LlavaOnevisionForConditionalGeneration.from_pretrained(first, dtype=torch.float32).save_pretrained(again)
    AutoProcessor.from_pretrained(first).save_pretrained(again)
    assert "rope_parameters" in json.loads((again / "config.json").read_text())["text_config"]
    assert "image_processor" in json.loads((again / "processor_config.json").read_text())
    assert torch.equal(features(again, images), features(first, images))
    one, other = (vladva_clip.create_model(f"local-dir:{path}", load_weights=False)[0] for path in (first, again))
    assert one.config.image == other.config.image


def test_a_tokenizer_by_itself_is_not_taken_for_another_familys(bases, tmp_path):
    """SmolVLM's has most of its tokens, and it has most of SmolVLM's."""
    for family in ("llava_onevision", "idefics3"):
        alone = tmp_path / family
        alone.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(bases[family] / name, alone / name)
        prompt = backbone_class(family).prompt_config()
        honest = vladva_clip.get_tokenizer(f"local-dir:{bases[family]}")
        captions = ["a <image> dog", "<video>", "<end_of_utterance> on <|im_end|>"]
        assert torch.equal(VladvaTokenizer(alone, prompt=prompt)(captions), honest(captions))


@pytest.mark.wide
def test_the_image_tower_is_recorded(bases, images):
    """By torch.export, for any number of images."""
    model, _ = vladva_clip.create_model(f"local-dir:{bases['llava_onevision']}", precision="fp32")
    sizes = ({0: torch.export.Dim("count", min=1, max=64)},)
    program = torch.export.export(model.visual.eval(), (images,), dynamic_shapes=sizes, strict=False).module()
    with torch.no_grad():
        for given in (images, images[:1], images.repeat(2, 1, 1, 1)):
            torch.testing.assert_close(program(given), model.encode_image(given), rtol=1e-5, atol=1e-5)


def test_an_export_is_refused(copy, tmp_path):
    """Of a trained adapter and of the bare base: a stock reader would see tiles."""
    model, _ = vladva_clip.create_model(f"local-dir:{copy}")
    model.save_pretrained(tmp_path / "adapter")
    for source in (tmp_path / "adapter", copy):
        with pytest.raises(ValueError, match="always cuts tiles.*through vladva_clip"):
            vladva_clip.export_model(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
