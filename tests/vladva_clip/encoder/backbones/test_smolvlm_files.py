"""Which files of SmolVLM are taken, what is refused before anything is built of it, and its exports."""

import json
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch
from transformers import AutoModelForImageTextToText, Idefics3ImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm

import vladva_clip
from tests.support import exports
from tests.support.edits import edit_json
from tests.support.models.published_configs import PUBLISHED
from tests.support.refusals import refused
from vladva_clip.encoder.admission.base_config import read_base_config
from vladva_clip.storage.base import BaseFiles

BOOKKEEPING = {"architectures", "transformers_version", "torch_dtype", "vocab_size", "use_cache", "hidden_size"}


@pytest.fixture
def copy(bases, tmp_path) -> Path:
    return Path(shutil.copytree(bases["idefics3"], tmp_path / "base"))


def change(directory: Path, part: str, **values) -> None:
    path = directory / "config.json"
    edit_json(path, **{part: {**json.loads(path.read_text())[part], **values}})


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("smolvlm")])
def test_the_published_settings_reach_transformers(name, tmp_path):
    """What is dropped of them is read nowhere; the given-up perceiver's model type chooses no code."""
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    admitted = read_base_config(BaseFiles(tmp_path))
    assert set(PUBLISHED[name]) - set(admitted) <= BOOKKEEPING | {"use_reentrant_checkpointing"}
    assert admitted["text_config"]["perceiver_config"] == {}
    dropped = set(PUBLISHED[name]["vision_config"]) - set(admitted["vision_config"])
    assert dropped == {"max_image_size", "size", "tie_word_embeddings", "use_base_siglip"}


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("text_config", {"model_type": "mistral"}, "llama"),
        ("text_config", {"num_key_value_heads": 3}, "heads"),
        ("text_config", {"moe": {"model_type": "mixtral"}}, "mixtral"),
        ("vision_config", {"model_type": "clip_vision_model"}, "model_type"),
        ("vision_config", {"num_attention_heads": 5}, "heads"),
        ("vision_config", {"image_size": 70}, "112 pixels"),  # smaller than what the processor makes
        ("vision_config", {"patch_size": 16}, "multiple of 2"),
        ("vision_config", {"num_channels": 1}, "num_channels"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(copy, part, values, words):
    change(copy, part, **values)
    for load_weights in (True, False):
        refused(copy, words, load_weights=load_weights)


def test_a_scale_that_does_not_divide_the_patches_is_refused(copy):
    edit_json(copy / "config.json", scale_factor=3)
    refused(copy, "112 pixels", "multiple of 3", "scale_factor")


def test_another_familys_processor_is_refused(copy):
    edit_json(copy / "preprocessor_config.json", image_processor_type="CLIPImageProcessor")
    refused(copy, "preprocessor_config.json", "CLIPImageProcessor")


def test_a_processor_without_resampling_has_transformers_default(copy):
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    del settings["resample"]
    (copy / "preprocessor_config.json").write_text(json.dumps(settings))
    model, _ = vladva_clip.create_model(f"local-dir:{copy}")
    assert model.config.image.interpolation == "lanczos"
    assert Idefics3ImageProcessorPil(**settings).resample == 1


def test_the_processors_square_is_the_models_own(copy):
    """It may be smaller than the vision tower's: then there are fewer visual tokens."""
    edit_json(copy / "preprocessor_config.json", max_image_size={"longest_edge": 56})
    model, _ = vladva_clip.create_model(f"local-dir:{copy}")
    assert model.visual.image_size == (56, 56) and model.visual.num_visual_tokens == 4


def test_what_transformers_saves_again_is_the_same(bases, tmp_path):
    again = Path(shutil.copytree(bases["smolvlm"], tmp_path / "base"))
    AutoModelForImageTextToText.from_pretrained(bases["smolvlm"]).save_pretrained(again)
    first, second = (
        vladva_clip.create_model(f"local-dir:{one}", precision="fp32")[0] for one in (bases["smolvlm"], again)
    )
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.encode_image(images), second.encode_image(images))


def test_long_captions_lose_their_end(bases):
    """The published tokenizers cut at the beginning (truncation_side)."""
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{bases['idefics3']}")
    assert tokenizer.tokenizer.truncation_side == "left"
    whole = tokenizer.ids("a red dog " * 200)[0]
    row = tokenizer(["a red dog " * 200])[0].tolist()
    assert row[:-1] == whole[: len(row) - 1] and row[-1] == tokenizer.eot_token_id


@pytest.mark.wide
@pytest.mark.parametrize("family", ["idefics3", "smolvlm"])
def test_stock_transformers_reads_an_export(bases, tmp_path, family):
    """A random adapter, folded in; its processor leaves images whole. tests/vladva_clip/export/test_run.py has more."""
    with mock.patch.object(processing_smolvlm, "num2words", processing_smolvlm.num2words or str):
        exported = exports.export_adapter(bases[family], tmp_path)
        plain = exports.PlainTransformers(exported.directory)
    settings = plain.processor.image_processor
    assert not settings.do_image_splitting and not settings.do_resize and plain.processor.image_seq_len == 16
    for inputs, ours in zip((exported.images, exports.CAPTIONS), exported.features(), strict=True):
        assert exports.cosine(plain.features(inputs), ours) > 0.9999


def test_an_export_of_smolvlm2_says_which_package_transformers_misses(bases, tmp_path):
    with (
        mock.patch.object(processing_smolvlm, "num2words", None),
        pytest.raises(ValueError, match="pip install num2words"),
    ):
        vladva_clip.export_model(bases["smolvlm"], tmp_path / "out", "fp32")


@pytest.mark.wide
def test_torch_export_records_the_image_tower(bases):
    """The vision tower runs on a batch of any images of the model's size."""
    model, _ = vladva_clip.create_model(f"local-dir:{bases['idefics3']}", precision="fp32")
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    recorded = torch.export.export(model.visual, (images,), strict=False).module()
    torch.testing.assert_close(recorded(images.flip(0)), model.encode_image(images.flip(0)), rtol=0, atol=1e-5)
