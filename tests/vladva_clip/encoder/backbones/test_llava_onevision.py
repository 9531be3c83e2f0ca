"""LLaVA-OneVision against transformers' own processor and full forward, loaded beside ours from the same directory."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, DynamicCache, LlavaOnevisionForConditionalGeneration

import vladva_clip
from tests.support.models.tiny_llava_onevision import SIDE, crops_of, ids_of, write_llava_onevision
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.backbones.qwen2_vl import Qwen2VLBackbone
from vladva_clip.sources import registry

USER, ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
EMBED_IMAGE = f"{USER}Summarize the provided image in one word: <image>{ASSISTANT}"
EMBED_TEXT = f"{USER}Summarize the provided text in one word:%s{ASSISTANT}"
CAPTIONS = ["a red circle.", 'the small cat "left" of the large dog', "", "红色 🙂 dog", "a red dog " * 60 + "on"]
TOWERS = {  # side in pixels, and what differs from the smallest published
    "published": (60, {}),  # as 384 pixels, no multiple of a patch
    "as the 7B's": (84, {"tied": False}),
    "with a pooling head": (56, {"vision_use_head": True}),
    "one patch": (20, {}),
}
OTHERS = ("as the 7B's", "with a pooling head", "one patch")


class Theirs:
    """transformers alone: the base's processor and weights."""

    def __init__(self, directory) -> None:
        self.processor = AutoProcessor.from_pretrained(directory)
        self.lvlm = LlavaOnevisionForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()

    def crops(self, images: list[Image.Image]) -> dict[str, torch.Tensor]:
        """Pixels of several images in a message, one crop each, as the processor makes them; nothing of ours."""
        pixels = self.processor.image_processor([images], return_tensors="pt")
        counts = torch.full((len(images),), len(images))
        return {
            "pixel_values": pixels["pixel_values"],
            "image_sizes": pixels["image_sizes"],
            "batch_num_images": counts,
        }

    def inputs(self, text: str, images: list[Image.Image]) -> dict[str, torch.Tensor]:
        """Inputs of the full model, a row per image."""
        return {
            "input_ids": torch.tensor([ids_of(self.processor, text, image) for image in images]),
            **self.crops(images),
        }

    def states(self, inputs: dict) -> torch.Tensor:
        """`(B, T, D)` of the full forward, whose positions and mask are transformers' own."""
        return self.lvlm.model(**inputs, use_cache=False).last_hidden_state


@pytest.fixture(scope="module")
def directory(bases):
    return bases["llava_onevision"]


@pytest.fixture(scope="module")
def theirs(directory) -> Theirs:
    return Theirs(directory)


@pytest.fixture(scope="module")
def loaded(directory):
    return load(directory)


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    """With a head of its own, as the 7B: random weights that are tied write the same of every image."""
    return write_llava_onevision(tmp_path_factory.mktemp("untied"), seed=2, tied=False)


def load(directory):
    return vladva_clip.create_model(f"local-dir:{directory}", precision="fp32")


def pictures(size: int, count: int = 3) -> list[Image.Image]:
    noise = np.random.default_rng(size)
    return [Image.fromarray(noise.integers(0, 255, (size, size, 3), dtype=np.uint8)) for _ in range(count)]


def close(found, expected, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("tower", ["published", *(pytest.param(name, marks=pytest.mark.wide) for name in OTHERS)])
@torch.no_grad()
def test_image_features_are_transformers_own(tmp_path, tower):
    """Those of images of one crop, which the model sees in a message of several."""
    side, settings = TOWERS[tower]
    base = write_llava_onevision(tmp_path, side=side, **settings)
    (model, preprocess), theirs = load(base), Theirs(base)
    tokens = (side // 14) ** 2 + 1
    assert model.visual.image_size == (side, side) and model.visual.num_visual_tokens == tokens
    images = pictures(side)
    inputs = theirs.inputs(EMBED_IMAGE, images)
    assert inputs["input_ids"].tolist() == [model.visual.prompts.image_row(tokens)] * 3
    expected = theirs.states(inputs)[:, -1]
    close(model.encode_image(torch.stack([preprocess(image) for image in images])), expected)
    for image, row in zip(images, expected, strict=True):  # and one by one
        close(model.encode_image(preprocess(image)[None])[0], row)
    assert (expected[0] - expected[1]).abs().max() > 0.01  # they see their images


@torch.no_grad()
def test_the_newline_stands_behind_the_towers_tokens(loaded, theirs):
    """The tower's without its last norm."""
    model, preprocess = loaded
    images = torch.stack([preprocess(image) for image in pictures(SIDE)])
    found, parts = model.visual.backbone.visual_tokens(images), theirs.lvlm.model
    states = parts.vision_tower(images, output_hidden_states=True).hidden_states[-1]
    close(found[:, :-1], parts.multi_modal_projector(states))
    normed = parts.multi_modal_projector(parts.vision_tower(images).last_hidden_state)
    assert (found[:, :-1] - normed).abs().max() > 0.01
    assert torch.equal(found[:, -1], parts.image_newline.expand(3, -1))


def test_pixels_are_the_processors(loaded, theirs):
    """Squares in a message of several images, and the crop of the whole that it makes of a picture of any shape."""
    preprocess, squares = loaded[1], pictures(SIDE)
    several = theirs.crops(squares)["pixel_values"]
    assert several.shape == (3, 1, 3, SIDE, SIDE)
    close(torch.stack([preprocess(image) for image in squares]), several[:, 0], 1e-6)
    for shape in ((300, 90), (60, 400), (111, 113), (30, 30), (SIDE, SIDE)):
        picture = pictures(12, 1)[0].resize(shape, Image.Resampling.BICUBIC)
        crops = theirs.processor.image_processor(picture, return_tensors="pt")["pixel_values"]
        difference = 127.5 * (preprocess(picture) - crops[0, 0])  # in levels; two libraries round differently
        assert crops.shape[1] > 1 and difference.abs().max() < 2.01 and difference.abs().mean() < 0.6


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


@torch.no_grad()
def test_a_row_is_the_same_with_and_without_a_cache(loaded, theirs):
    model, preprocess = loaded
    images = pictures(SIDE, 2)
    rows = model.visual.rows(torch.stack([preprocess(image) for image in images]))
    expected = theirs.states(theirs.inputs(EMBED_IMAGE, images))
    cache = DynamicCache(config=model.visual.backbone.lvlm.config.get_text_config())
    close(rows.hidden_states(), expected)
    close(rows.hidden_states(cache), expected)


def test_gradients_are_transformers_own(directory, theirs):
    """Of every parameter that is read, the newline included; the prompt's tokens are the soft prompt here."""
    model, preprocess = load(directory)
    images = pictures(SIDE, 2)
    weights = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    (theirs.states(theirs.inputs(EMBED_IMAGE, images))[:, -1] * weights).sum().backward()
    expected = {name: parameter.grad for name, parameter in theirs.lvlm.model.named_parameters()}
    theirs.lvlm.zero_grad(set_to_none=True)
    unread = {name for name, gradient in expected.items() if gradient is None}
    assert len(unread) == 2 and all(".post_layernorm." in name for name in unread)
    ours = model.visual.backbone.lvlm.model.requires_grad_(True)
    (model.encode_image(torch.stack([preprocess(image) for image in images])) * weights).sum().backward()
    assert expected["image_newline"].abs().max() > 1e-3
    found = dict(ours.named_parameters())
    for name in expected.keys() - unread - {"language_model.embed_tokens.weight"}:
        close(found[name].grad, expected[name], 1e-4 * max(1.0, float(expected[name].abs().max())))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (None, f"{EMBED_IMAGE}<|im_end|>\n{USER}Describe the image in detail.{ASSISTANT}"),
        ("Describe it.", f"{USER}<image>\nDescribe it.{ASSISTANT}"),
    ],
)
def test_generated_texts_are_transformers_own(untied, prompt, text):
    (model, preprocess), theirs, images, expected = load(untied), Theirs(untied), pictures(SIDE), []
    for image in images:
        inputs = {
            "input_ids": torch.tensor([ids_of(theirs.processor, text, image)]),
            **crops_of(preprocess(image)[None]),
        }
        written = theirs.lvlm.generate(**inputs, do_sample=False, max_new_tokens=12)
        new = written[0, inputs["input_ids"].shape[1] :]
        expected.append(theirs.processor.decode(new, skip_special_tokens=True).strip())
    assert model.generate(torch.stack([preprocess(image) for image in images]), prompt, max_new_tokens=12) == expected
    assert all(expected) and len(set(expected)) >= 2


def test_a_question_is_what_the_bases_chat_template_writes(theirs):
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe it."}]}]
    family = backbone_class("llava_onevision")
    written = family.chat_template.format(visual=family.visual_span.text, prompt="Describe it.")
    assert written == theirs.processor.apply_chat_template(chat, add_generation_prompt=True)
    assert family.prompt_config() == Qwen2VLBackbone.prompt_config()


@pytest.mark.parametrize(
    ("name", "parameters", "tensors", "width"),
    [
        ("llava-onevision-0.5b", 893_675_552, 716, 896),
        pytest.param("llava-onevision-7b", 8_030_807_584, 765, 3584, marks=pytest.mark.wide),
    ],
)
def test_the_published_sizes(name, parameters, tensors, width):
    backbone = backbone_class("llava_onevision").from_config(registry.architecture(name), torch.bfloat16)
    every = list(backbone.lvlm.parameters())
    assert (sum(one.numel() for one in every), len(every)) == (parameters, tensors)
    assert registry.facts(name).num_parameters == parameters and all(one.is_meta for one in every)
    assert sum(one.numel() for one in backbone.vision_tower.parameters()) == 397_747_744
    assert backbone.head_is_tied == (name == "llava-onevision-0.5b") and backbone.embed_dim == width
    assert len(backbone.vision_blocks) == 26 and backbone.num_patches(384) == 729 and backbone.num_crops(384) == 1
    with torch.device("meta"):
        images = torch.empty(2, 3, 384, 384, dtype=torch.bfloat16)
    assert backbone.visual_tokens(images).shape == (2, backbone.num_visual_tokens(384), width) == (2, 730, width)
