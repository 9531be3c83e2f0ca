"""InternVL against transformers' own processor and full forward, loaded beside ours from the same directory."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, DynamicCache

import vladva_clip
from tests.support.edits import edit_json
from tests.support.models.tiny_internvl import rename_to_modules, untied, write_internvl
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.backbones.qwen2_vl import Qwen2VLBackbone
from vladva_clip.sources import registry

USER, ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
EMBED_IMAGE = f"{USER}Summarize the provided image in one word: <IMG_CONTEXT>{ASSISTANT}"
EMBED_TEXT = f"{USER}Summarize the provided text in one word:%s{ASSISTANT}"
CAPTIONS = ["a red circle.", 'the small cat "left" of the large dog', "", "红色 🙂 dog", "a red dog " * 60 + "on"]
TOWERS = {  # side in pixels, and what differs from the published towers
    "published": (112, {}),
    "one token": (28, {}),
    "as the 38B's": (56, {"norm_type": "rms_norm", "use_qk_norm": True, "attention_bias": False}),
    "normalized": (84, {"use_mean_pooling": False, "image_size": 84, "patch_size": 14}),
}
OTHERS = ("one token", "as the 38B's", "normalized")


class Theirs:
    """transformers alone: the base's processor and weights."""

    def __init__(self, directory) -> None:
        self.processor = AutoProcessor.from_pretrained(directory)
        self.lvlm = untied(directory)

    def inputs(self, text: str, images: list[Image.Image]) -> dict:
        """What the processor makes of one text with one image each, without tiles."""
        options = {"images_kwargs": {"crop_to_patches": False}, "return_tensors": "pt"}
        return self.processor(text=[text] * len(images), images=images, **options)

    def states(self, inputs: dict) -> torch.Tensor:
        """`(B, T, D)` of the full forward, whose positions and mask are transformers' own."""
        return self.lvlm.model(**inputs, use_cache=False).last_hidden_state


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    root = tmp_path_factory.mktemp("towers")
    return {name: write_internvl(root / name, side=side, **settings) for name, (side, settings) in TOWERS.items()}


@pytest.fixture(scope="module")
def directory(directories):
    return directories["published"]


@pytest.fixture(scope="module")
def theirs(directory) -> Theirs:
    return Theirs(directory)


@pytest.fixture(scope="module")
def loaded(directory):
    return load(directory)


def load(directory):
    return vladva_clip.create_model(f"local-dir:{directory}", precision="fp32")


def pictures(size: int, count: int = 3) -> list[Image.Image]:
    noise = np.random.default_rng(size)
    return [Image.fromarray(noise.integers(0, 255, (size, size, 3), dtype=np.uint8)) for _ in range(count)]


def close(found, expected, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("tower", ["published", *(pytest.param(name, marks=pytest.mark.wide) for name in OTHERS)])
@torch.no_grad()
def test_image_features_are_transformers_own(directories, tower):
    (model, preprocess), theirs = load(directories[tower]), Theirs(directories[tower])
    side = TOWERS[tower][0]
    assert model.visual.image_size == (side, side) and model.visual.num_visual_tokens == (side // 28) ** 2
    images = pictures(side)
    inputs = theirs.inputs(EMBED_IMAGE, images)
    assert inputs["input_ids"][0].tolist() == model.visual.prompts.image_row(model.visual.num_visual_tokens)
    expected = theirs.states(inputs)[:, -1]
    close(model.encode_image(torch.stack([preprocess(image) for image in images])), expected)
    for image, row in zip(images, expected, strict=True):  # and one by one
        close(model.encode_image(preprocess(image)[None])[0], row)
    assert (expected[0] - expected[1]).abs().max() > 0.01  # they see their images


@pytest.mark.parametrize("shape", [(300, 90), (60, 400), (111, 113), (30, 30)])
def test_a_picture_of_any_shape_is_the_processors_one_square(loaded, theirs, shape):
    """Up to what two libraries round differently: a level for each side that is resized."""
    picture = pictures(12, 1)[0].resize(shape, Image.Resampling.BICUBIC)
    pixels = theirs.inputs(EMBED_IMAGE, [picture])["pixel_values"]
    assert pixels.shape == (1, 3, 112, 112)
    levels = 255 * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    ours = loaded[1](picture)
    assert ((ours - pixels[0]) * levels).abs().max() < 2.01 and (ours - pixels[0]).abs().mean() < 0.01


@torch.no_grad()
def test_text_features_are_transformers_own(loaded, theirs, directory):
    model, tokenizer = loaded[0], vladva_clip.get_tokenizer(f"local-dir:{directory}")
    template = model.text.prompts.text
    found = model.encode_text(tokenizer(CAPTIONS))  # of several lengths, in one batch
    for caption, row in zip(CAPTIONS, found, strict=True):
        ids = theirs.processor.tokenizer(EMBED_TEXT % (caption and f" {caption}"), return_tensors="pt").input_ids
        assert ids[0].tolist() == [*template.prefix, *tokenizer.ids(caption)[0], *template.suffix]
        close(row, theirs.states({"input_ids": ids})[0, -1])
        close(model.encode_text(tokenizer([caption]))[0], row)


def test_tokens_of_images_and_videos_are_words_in_a_caption(loaded, directory):
    """Also the one beyond the embedding's rows."""
    tokenizer, model = vladva_clip.get_tokenizer(f"local-dir:{directory}"), loaded[0]
    named = ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
    numbers = tokenizer.tokenizer.convert_tokens_to_ids(named)
    assert numbers[-1] == model.vocab_size == len(tokenizer.tokenizer) - 1
    assert not set(numbers) & set(tokenizer.ids(f"a dog {' '.join(named)} on")[0])
    assert model.encode_text(tokenizer(named)).isfinite().all()


@torch.no_grad()
def test_a_row_is_the_same_with_and_without_a_cache(loaded, theirs):
    model, preprocess = loaded
    images = pictures(112, 2)
    rows = model.visual.rows(torch.stack([preprocess(image) for image in images]))
    expected = theirs.states(theirs.inputs(EMBED_IMAGE, images))
    cache = DynamicCache(config=model.visual.backbone.lvlm.config.get_text_config())
    close(rows.hidden_states(), expected)
    close(rows.hidden_states(cache), expected)


@torch.no_grad()
def test_a_row_longer_than_the_llms_positions_changes_no_other(directory, tmp_path):
    """By `dynamic` alone, transformers turns the positions of all rows in a batch by the longest."""
    base = shutil.copytree(directory, tmp_path / "base")
    text = json.loads((base / "config.json").read_text())["text_config"]
    edit_json(base / "config.json", text_config={**text, "max_position_embeddings": 64})
    (model, _), tokenizer, theirs = load(base), vladva_clip.get_tokenizer(f"local-dir:{base}"), Theirs(base)
    close(model.encode_text(tokenizer(CAPTIONS))[0], model.encode_text(tokenizer(CAPTIONS[:1]))[0])
    long = theirs.processor.tokenizer(CAPTIONS[-1], return_tensors="pt").input_ids
    plain = model.visual.backbone.trunk(model.visual.backbone.embed_tokens(long), torch.arange(long.shape[1])[None])
    assert long.shape[1] > 64 and (theirs.states({"input_ids": long}) - plain).abs().max() > 0.01


def test_gradients_are_transformers_own(directory, theirs):
    """Of every parameter, as in transformers' own forward; the prompt's tokens are the soft prompt here."""
    model, preprocess = load(directory)
    images = pictures(112, 2)
    weights = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    (theirs.states(theirs.inputs(EMBED_IMAGE, images))[:, -1] * weights).sum().backward()
    expected = {name: parameter.grad for name, parameter in theirs.lvlm.model.named_parameters()}
    expected.pop("language_model.embed_tokens.weight")
    theirs.lvlm.zero_grad(set_to_none=True)
    ours = model.visual.backbone.lvlm.model.requires_grad_(True)
    (model.encode_image(torch.stack([preprocess(image) for image in images])) * weights).sum().backward()
    found = {name: parameter.grad for name, parameter in ours.named_parameters() if name in expected}
    for part in ("cls_token", "position_embeddings", "layer.0.lambda_1", "layer.2.lambda_2", "projector.layer_norm"):
        assert any(part in name and gradient.abs().max() > 1e-4 for name, gradient in expected.items()), part
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        close(found[name], gradient, 1e-4 * max(1.0, gradient.abs().max().item()))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (None, f"{EMBED_IMAGE}<|im_end|>\n{USER}Describe the image in detail.{ASSISTANT}"),
        ("Describe it.", f"{USER}<IMG_CONTEXT>\nDescribe it.{ASSISTANT}"),  # the published chat: no system message
    ],
)
def test_generated_texts_are_transformers_own(loaded, theirs, prompt, text):
    (model, preprocess), images, expected = loaded, pictures(112), []
    for image in images:
        inputs = theirs.inputs(text, [image])
        ids = theirs.lvlm.generate(**inputs, do_sample=False, max_new_tokens=12)
        new = ids[0, inputs["input_ids"].shape[1] :]
        expected.append(theirs.processor.decode(new, skip_special_tokens=True).strip())
    assert model.generate(torch.stack([preprocess(image) for image in images]), prompt, max_new_tokens=12) == expected
    assert all(expected) and len(set(expected)) >= 2


def test_a_question_is_what_the_bases_chat_template_writes(theirs):
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe it."}]}]
    family = backbone_class("internvl")
    written = family.chat_template.format(visual=family.processor_span.text, prompt="Describe it.")
    assert written == theirs.processor.apply_chat_template(chat, add_generation_prompt=True)
    assert family.prompt_config() == Qwen2VLBackbone.prompt_config()


def test_both_ways_to_name_the_tensors(loaded, directory, tmp_path):
    """As in the published files, which transformers 5 still writes, and as its own modules are named."""
    base = shutil.copytree(directory, tmp_path / "base")
    assert {"language_model.lm_head.weight", "vision_tower.encoder.layer.0.lambda_1"} <= set(
        load_file(base / "model.safetensors")
    )
    rename_to_modules(base)
    assert {"lm_head.weight", "model.vision_tower.encoder.layer.0.lambda_1"} <= set(
        load_file(base / "model.safetensors")
    )
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load(base)[0].encode_image(images), loaded[0].encode_image(images))


@pytest.mark.parametrize(
    ("name", "parameters", "tensors", "layers", "width"),
    [
        ("internvl3-1b", 938_193_024, 733, 24, 896),
        pytest.param("internvl3-2b", 2_088_957_440, 781, 28, 1536, marks=pytest.mark.wide),
        pytest.param("internvl3-8b", 7_944_373_760, 781, 28, 3584, marks=pytest.mark.wide),
    ],
)
def test_the_published_sizes(name, parameters, tensors, layers, width):
    """In bfloat16 they make files of 1.88, 4.18 and 15.9 GB, as the Hub lists them: the head is not tied."""
    backbone = backbone_class("internvl").from_config(registry.architecture(name), torch.bfloat16)
    every = list(backbone.lvlm.parameters())
    assert (sum(one.numel() for one in every), len(every)) == (parameters, tensors)
    assert sum(one.numel() for one in backbone.vision_tower.parameters()) == 304_012_288
    assert not backbone.head_is_tied and all(one.is_meta for one in every)
    assert len(backbone.trunk_module.layers) == layers and backbone.embed_dim == width
    facts = registry.facts(name)
    backbone.check_parts(facts.image_size)
    assert facts.image_size == 448 and backbone.num_visual_tokens(448) == 256 and backbone.num_patches(448) == 1024
    with torch.device("meta"):
        images = torch.empty(2, 3, 448, 448, dtype=torch.bfloat16)
    assert backbone.visual_tokens(images).shape == (2, 256, width)
