"""Which files of InternVL are taken, what is refused before anything is built of it, and exports."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

import vladva_clip
from tests.support import exports
from tests.support.edits import edit_json
from tests.support.models.published_configs import PUBLISHED
from tests.support.models.tiny_internvl import untied
from tests.support.refusals import refused
from vladva_clip.encoder.admission.base_config import read_base_config
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.sources import registry
from vladva_clip.storage.base import BaseFiles

BOOKKEEPING = {"architectures", "torch_dtype", "dropout", "initializer_factor"}  # transformers reads none of them


@pytest.fixture
def copy(bases, tmp_path) -> Path:
    return Path(shutil.copytree(bases["internvl"], tmp_path / "base"))


def change(directory: Path, part: str | None, **values) -> None:
    path = directory / "config.json"
    edit_json(path, **({part: {**json.loads(path.read_text())[part], **values}} if part else values))


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("internvl")])
def test_the_published_settings_reach_transformers(name, tmp_path):
    """Each key of both parts but bookkeeping, and that the head is not tied, as the registered shapes say."""
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    admitted = read_base_config(BaseFiles(tmp_path))
    for part in ("text_config", "vision_config"):
        assert set(PUBLISHED[name][part]) - set(admitted[part]) <= BOOKKEEPING
    assert set(PUBLISHED[name]) - set(admitted) == {"architectures", "torch_dtype", "transformers_version"}
    assert "tie_word_embeddings" not in PUBLISHED[name] and admitted["tie_word_embeddings"] is False
    assert registry.architecture(name)["tie_word_embeddings"] is False


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("text_config", {"model_type": "llama"}, "qwen2"),  # the 9B's
        ("text_config", {"num_attention_heads": 5}, "multiple of its 5 heads"),
        ("text_config", {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type"),
        ("text_config", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type"),
        ("vision_config", {"model_type": "clip_vision_model"}, "internvl_vision"),
        ("vision_config", {"image_size": [56, 84]}, "two equal ones"),
        ("vision_config", {"patch_size": [14, 28]}, "two equal ones"),
        ("vision_config", {"image_size": [56]}, "two equal ones"),
        ("vision_config", {"num_attention_heads": 5}, "num_heads"),
        ("vision_config", {"norm_type": "batch_norm"}, "norm_type"),
        ("vision_config", {"use_mask_token": True}, "use_mask_token"),
        (None, {"vision_feature_layer": -2}, "vision_feature_layer"),
        (None, {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy"),
        (None, {"downsample_ratio": 0.25}, "downsample_ratio"),
        (None, {"image_seq_length": 256}, "image_seq_length is 256, but an image of 56 pixels makes 4 tokens"),
        (None, {"image_token_id": 5}, "token 5 for images"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(copy, part, values, words):
    change(copy, part, **values)
    refused(copy, "config.json", words, load_weights=False)


@pytest.mark.parametrize("side", [42, 70, 1288])
def test_an_odd_number_of_patches_or_too_many(copy, side):
    change(copy, "vision_config", image_size=side)
    change(copy, "text_config", max_position_embeddings=4096)
    edit_json(copy / "preprocessor_config.json", size={"height": side, "width": side})
    refused(copy, "config.json", f"{side} pixels has {side // 14} patches a side", load_weights=False)


def test_another_processor_or_size_is_refused(copy):
    with pytest.raises(ValueError, match="112 pixels.*takes 56 only"):
        vladva_clip.create_model(f"local-dir:{copy}", force_image_size=112)
    edit_json(copy / "preprocessor_config.json", size={"height": 448, "width": 448})
    refused(copy, "size is {'height': 448, 'width': 448}", "takes 56 pixels only")
    edit_json(copy / "preprocessor_config.json", processor_class="LlavaProcessor")
    refused(copy, "preprocessor_config.json", "InternVLProcessor")


def test_a_tied_head_is_taken_where_the_file_says_so(copy):
    """Files without a head of their own need that word, and a head that differs must not stand beside it."""
    change(copy, None, tie_word_embeddings=True)
    refused(copy, "ties the head")
    lvlm = untied(copy)
    lvlm.lm_head.weight = lvlm.model.language_model.embed_tokens.weight
    lvlm.config.tie_word_embeddings = True
    lvlm.save_pretrained(copy)
    tied, _ = vladva_clip.create_model(f"local-dir:{copy}", precision="fp32")
    assert tied.visual.backbone.head_is_tied
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "tie_word_embeddings"}))
    refused(copy, "missing_keys", "lm_head")


def test_what_transformers_saves_again_is_the_same(bases, tmp_path):
    """Its own layout of config.json and of the tokenizer's settings states what published files leave to it."""
    again = Path(shutil.copytree(bases["internvl"], tmp_path / "base"))
    untied(bases["internvl"]).save_pretrained(again)
    AutoProcessor.from_pretrained(bases["internvl"]).save_pretrained(again)
    assert "rope_parameters" in json.loads((again / "config.json").read_text())["text_config"]
    first, second = (
        vladva_clip.create_model(f"local-dir:{one}", precision="fp32")[0] for one in (bases["internvl"], again)
    )
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.encode_image(images), second.encode_image(images))
    assert first.config.image == second.config.image
    vladva_clip.export_model(again, tmp_path / "out", "fp32")


def test_a_tokenizer_by_itself_is_not_taken_for_qwens(bases, tmp_path):
    """It has all of Qwen's tokens; those of images are spelled out even where its file doesn't flag them."""
    data = json.loads((bases["internvl"] / "tokenizer.json").read_text())
    tokens = [{**token, "special": False} for token in data["added_tokens"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps({**data, "added_tokens": tokens}))
    named = {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    alone = VladvaTokenizer(tmp_path, prompt=backbone_class("internvl").prompt_config())
    honest = vladva_clip.get_tokenizer(f"local-dir:{bases['internvl']}")
    captions = ["a <img> dog", "<IMG_CONTEXT>", "</img> on <|im_end|>"]
    assert torch.equal(alone(captions), honest(captions))


@pytest.fixture(scope="module")
def exported(bases, tmp_path_factory) -> exports.Exported:
    """A random adapter, folded in; tests/vladva_clip/export/test_run.py has more."""
    return exports.export_adapter(bases["internvl"], tmp_path_factory.mktemp("exported"))


def test_stock_transformers_reads_an_export(exported):
    plain = exports.PlainTransformers(exported.directory)
    for inputs, ours in zip((exported.images, exports.CAPTIONS), exported.features(), strict=True):
        assert exports.cosine(plain.features(inputs), ours) > 0.99999
    assert plain.lvlm.lm_head.weight is not plain.lvlm.get_input_embeddings().weight


def test_an_export_cuts_no_picture_into_tiles(exported):
    """Though transformers' processor asks for tiles whatever the files say, and the base's own makes some."""
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 900, 3), dtype=np.uint8))
    base, ours = (AutoProcessor.from_pretrained(one) for one in (exported.model.base_directory, exported.directory))
    assert len(base(text="<IMG_CONTEXT>", images=[wide], return_tensors="pt")["pixel_values"]) > 1
    plain = exports.PlainTransformers(exported.directory)
    assert ours(text="<IMG_CONTEXT>", images=[wide], return_tensors="pt")["pixel_values"].shape == (1, 3, 56, 56)
    with torch.no_grad():
        found = exported.model.encode_image(exported.preprocess(wide)[None], True)
    assert exports.cosine(plain.features([wide]), found) > 0.999


def test_the_token_beyond_the_rows_has_one_in_an_export(exported):
    tokenizer = AutoProcessor.from_pretrained(exported.directory).tokenizer
    rows = exports.PlainTransformers(exported.directory).lvlm.get_input_embeddings().weight
    number = tokenizer.convert_tokens_to_ids("<video>")
    assert number == exported.model.vocab_size < len(rows) and not rows[number].any()


def test_a_word_beyond_the_rows_is_refused(copy, tmp_path):
    """As for any base: some caption would have it."""
    tokenizer = AutoProcessor.from_pretrained(copy).tokenizer
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(copy)
    with pytest.raises(ValueError, match=r"ids up to .* only \d+ rows"):
        vladva_clip.export_model(copy, tmp_path / "out", "fp32")
