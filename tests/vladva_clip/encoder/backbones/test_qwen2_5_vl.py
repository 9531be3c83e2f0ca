"""Qwen2.5-VL against transformers' own processor and full forward: images, captions, ids and generated texts."""

import inspect
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel

import vladva_clip
from tests.support.models import tiny_qwen2_5_vl
from vladva_clip.encoder.backbones import backbone_class

# pixels: whole windows, and windows cut at the right and lower edge (3 and 5 visual tokens a side, 2 in a window)
SIZES = (56, 84, 140)
CAPTIONS = [
    "a red circle.",
    'the sign says "left"',
    "",
    "🐈 and 猫, on the small dog",
    "a blue square left of the small dog " * 60,
]


@pytest.fixture(scope="module")
def base(bases):
    return bases["qwen2_5_vl"]


@pytest.fixture(scope="module")
def models(base):
    """Size -> (model, transform)."""
    return {
        size: vladva_clip.create_model(f"local-dir:{base}", precision="fp32", force_image_size=size) for size in SIZES
    }


@pytest.fixture(scope="module")
def model(models):
    return models[84][0]


@pytest.fixture(scope="module")
def stock(base):
    """transformers' processor and model, which know nothing of ours."""
    return AutoProcessor.from_pretrained(base), Qwen2_5_VLForConditionalGeneration.from_pretrained(base).eval()


def pictures(size: int, count: int = 3) -> list[Image.Image]:
    noise = np.random.default_rng(size)
    return [Image.fromarray(noise.integers(0, 255, (size, size, 3), dtype=np.uint8)) for _ in range(count)]


def written_out(model, caption: str) -> str:
    """The whole text row. The space in front of a caption is the caption's: an empty one has none."""
    template = model.config.prompt.rendered("text")
    assert template.count(" {caption}") == 1
    return template.replace(" {caption}", "".join(f" {word}" for word in caption.split()))


@torch.no_grad()
def last_states(stock, texts: list[str], images: list[Image.Image] | None = None) -> torch.Tensor:
    """The last token's state after the final norm, one row at a time."""
    processor, lvlm = stock
    found = []
    for row, text in enumerate(texts):
        inputs = processor(text=[text], images=images and [images[row]], return_tensors="pt")
        if "mm_token_type_ids" in inspect.signature(Qwen2_5_VLModel.get_rope_index).parameters:
            assert "mm_token_type_ids" in inputs  # without them its positions would silently be those of text
        lvlm.model.rope_deltas = None
        found.append(lvlm.model(**inputs, use_cache=False).last_hidden_state[0, -1])
    return torch.stack(found)


@pytest.mark.parametrize("size", SIZES)
def test_image_features_equal_the_full_forward(models, stock, size):
    model, preprocess = models[size]
    images = torch.stack([preprocess(picture) for picture in pictures(size)])
    text = model.config.prompt.rendered("image").replace("{visual}", model.visual.backbone.visual_span.text)
    found = model.encode_image(images)
    torch.testing.assert_close(found, last_states(stock, [text] * 3, pictures(size)), atol=1e-5, rtol=1e-5)
    singly = torch.cat([model.encode_image(image[None]) for image in images])
    torch.testing.assert_close(singly, found, atol=1e-5, rtol=1e-5)
    assert (found[0] - found[1]).abs().max() > 0.1


def test_text_features_equal_the_full_forward(model, stock, base):
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{base}", context_length=800)
    rows = [written_out(model, caption) for caption in CAPTIONS]
    found = model.encode_text(tokenizer(CAPTIONS))
    torch.testing.assert_close(found, last_states(stock, rows), atol=1e-5, rtol=1e-5)
    singly = torch.cat([model.encode_text(tokenizer([caption])) for caption in CAPTIONS])
    torch.testing.assert_close(singly, found, atol=1e-5, rtol=1e-5)


def test_ids_are_the_processors_own(model, stock, base):
    prompts, prompt = model.visual.prompts, model.config.prompt
    processor, _ = stock
    image = prompt.rendered("image").replace("{visual}", model.visual.backbone.visual_span.text)
    ids = processor(text=[image], images=pictures(84, 1), return_tensors="pt")["input_ids"][0]
    assert ids.tolist() == prompts.image_row(model.visual.num_visual_tokens)
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{base}", context_length=800)
    for caption in CAPTIONS:
        text = written_out(model, caption)
        row = [*prompts.text.prefix, *tokenizer.ids(caption)[0], *prompts.text.suffix]
        assert row == processor(text=[text], return_tensors="pt")["input_ids"][0].tolist()


def test_some_blocks_see_windows_and_others_the_image(base, models, tmp_path):
    """Otherwise the comparisons above would prove nothing of one of the two."""
    preprocess = models[84][1]
    images = torch.stack([preprocess(picture) for picture in pictures(84)])
    features = {(1, 3): models[84][0].encode_image(images)}
    for full in ((), (0, 1, 2, 3)):
        copy = shutil.copytree(base, tmp_path / str(len(full)))
        config = json.loads((copy / "config.json").read_text())
        config["vision_config"]["fullatt_block_indexes"] = list(full)
        (copy / "config.json").write_text(json.dumps(config))
        changed, _ = vladva_clip.create_model(f"local-dir:{copy}", precision="fp32", force_image_size=84)
        features[full] = changed.encode_image(images)
    for one, other in (((1, 3), ()), ((1, 3), (0, 1, 2, 3))):
        assert (features[one] - features[other]).abs().max() > 1e-3
    assert tiny_qwen2_5_vl.WINDOW < 84


def test_generates_what_transformers_generates(model, models, stock):
    processor, lvlm = stock
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe it."}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    expected = []
    for picture in pictures(84):
        inputs = processor(text=[text], images=[picture], return_tensors="pt")
        lvlm.model.rope_deltas = None
        ids = lvlm.generate(**inputs, do_sample=False, max_new_tokens=8)[0, inputs["input_ids"].shape[1] :]
        expected.append(processor.tokenizer.decode(ids, skip_special_tokens=True).strip())
    images = torch.stack([models[84][1](picture) for picture in pictures(84)])
    assert model.generate(images, "Describe it.", max_new_tokens=8) == expected
    assert any(expected)


def test_templates_are_those_of_qwen2_vl():
    own, older = (backbone_class(name) for name in ("qwen2_5_vl", "qwen2_vl"))
    assert own.prompt_config() == older.prompt_config() and own.chat_template == older.chat_template


@pytest.mark.parametrize("size", [27, 100, 120])
def test_a_size_that_is_no_multiple_of_a_merged_patch_is_refused(base, size):
    with pytest.raises(ValueError, match=rf"{size} pixels, expected a multiple of 28"):
        vladva_clip.create_model(f"local-dir:{base}", force_image_size=size)


def test_float16_is_warned_of(base):
    with pytest.warns(UserWarning, match=r"Qwen2\.5-VL.*overflows in float16.*bf16 or fp32"):
        vladva_clip.create_model(f"local-dir:{base}", precision="fp16", force_image_size=56)


def test_an_export_of_the_image_tower_is_refused_by_name(model):
    with pytest.raises(ValueError, match=r"can't record Qwen2\.5-VL's image tower"):
        torch.export.export(model.visual, (torch.zeros(1, 3, 84, 84),), strict=False)
