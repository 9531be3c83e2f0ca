"""SmolVLM of both types against transformers' own processor and full forward, loaded beside ours."""

import json
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Idefics3ImageProcessor, Idefics3ImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm

import vladva_clip
from tests.support.models import tiny_smolvlm
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources import registry

USER, ASSISTANT = "<|im_start|>User:", "<end_of_utterance>\nAssistant:"
EMBED_IMAGE = f"{USER} Summarize the provided image in one word: <image>{ASSISTANT}"
EMBED_TEXT = f"{USER} Summarize the provided text in one word:%s{ASSISTANT}"
CAPTIONS = ["a red circle.", 'the small cat "left" of 66 dogs', "", "红色 🙂 dog", "a red dog " * 60 + "on"]
# (family, patches a side of a visual token, pixels of the tower, pixels of a picture)
CASES = [("idefics3", 2, 112, 112), ("smolvlm", 3, 130, 130)]
CASES += [pytest.param(case, marks=pytest.mark.wide) for case in (("smolvlm", 4, 112, 57), ("idefics3", 3, 100, 84))]


class Theirs:
    """transformers alone: the base's processor, with PIL's resampling, and its weights."""

    def __init__(self, directory, size: int, length: int) -> None:
        spells = processing_smolvlm.num2words or str  # it spells the number of a video's frames
        with mock.patch.object(processing_smolvlm, "num2words", spells):
            self.processor = AutoProcessor.from_pretrained(directory)
        self.processor.image_processor = Idefics3ImageProcessorPil.from_pretrained(directory)
        self.processor.image_seq_len = length
        self.options = {"do_image_splitting": False, "do_resize": False, "max_image_size": {"longest_edge": size}}
        self.lvlm = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()

    def inputs(self, text: str, images: list[Image.Image]) -> dict:
        """What the processor makes of one text with one image each, which it makes a square without splitting it."""
        options = {"images_kwargs": self.options, "return_tensors": "pt"}
        return self.processor(text=[text] * len(images), images=[[image] for image in images], **options)

    def states(self, inputs: dict) -> torch.Tensor:
        """`(B, T, D)` of the full forward."""
        return self.lvlm.model(**inputs, use_cache=False).last_hidden_state


def noise(width: int, height: int) -> Image.Image:
    drawn = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(drawn)


PICTURES = [noise(160, 120), noise(112, 112), noise(40, 300), noise(31, 17)]


def close(found, expected, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module", params=CASES, ids=str)
def pair(request, tmp_path_factory):
    """A loaded model with its transform and tokenizer, and transformers' own."""
    family, scale, side, size = request.param
    directory = tiny_smolvlm.write(tmp_path_factory.mktemp(family) / "base", family, scale=scale, image_size=side)
    source = f"local-dir:{directory}"
    model, preprocess = vladva_clip.create_model(source, precision="fp32", force_image_size=size)
    tokenizer = vladva_clip.get_tokenizer(source)
    return model, preprocess, tokenizer, Theirs(directory, size, (size // 14 // scale) ** 2)


@torch.no_grad()
def test_image_features_are_transformers_own(pair):
    model, preprocess, _, theirs = pair
    inputs = theirs.inputs(EMBED_IMAGE, PICTURES)
    assert inputs["input_ids"][0].tolist() == model.visual.prompts.image_row(model.visual.num_visual_tokens)
    images = torch.stack([preprocess(image) for image in PICTURES])
    assert torch.equal(images, inputs["pixel_values"][:, 0])
    expected = theirs.states(inputs)[:, -1]
    assert (expected[0] - expected[1]).abs().max() > 0.01  # different pictures differ
    close(model.encode_image(images), expected)
    for image, row in zip(images, expected, strict=True):  # and one by one
        close(model.encode_image(image[None])[0], row)


@torch.no_grad()
def test_text_features_are_transformers_own(pair):
    model, _, tokenizer, theirs = pair
    template = model.text.prompts.text
    found = model.encode_text(tokenizer(CAPTIONS))  # of several lengths, in one batch
    for caption, row in zip(CAPTIONS, found, strict=True):
        ids = theirs.processor.tokenizer(EMBED_TEXT % (caption and f" {caption}"), return_tensors="pt").input_ids
        assert ids[0].tolist() == [*template.prefix, *tokenizer.ids(caption)[0], *template.suffix]
        close(row, theirs.states({"input_ids": ids})[0, -1])
        close(model.encode_text(tokenizer([caption]))[0], row)


@torch.no_grad()
def test_a_picture_whose_pixels_are_all_zero_has_a_feature(pair):
    """transformers takes such an image for padding and leaves it out: its tokens are those of the tower itself."""
    model, preprocess, _, theirs = pair
    gray, picture = torch.zeros_like(preprocess(PICTURES[0])), preprocess(PICTURES[0])
    features = model.encode_image(torch.stack([picture, gray, picture, gray]))
    nearly = model.encode_image(torch.full_like(gray, 1e-7)[None])[0]
    for row in (1, 3):
        close(features[row], nearly)
    close(features[0], model.encode_image(picture[None])[0])
    assert (features[0] - features[1]).abs().max() > 0.01
    inputs = theirs.inputs(EMBED_IMAGE, PICTURES[:2])
    inputs["pixel_values"] = torch.stack([picture, gray])[:, None]
    with pytest.raises((RuntimeError, ValueError), match="tokens: .*features: "):
        theirs.states(inputs)


@torch.no_grad()
def test_a_black_and_a_gray_picture_are_no_zeros(pair):
    """127.5 would be zero, and no picture has that."""
    model, preprocess, _, theirs = pair
    plain = [Image.new("RGB", (90, 60), (level,) * 3) for level in (0, 127, 128, 255)]
    pixels = torch.stack([preprocess(image) for image in plain])
    assert (pixels != 0).all()
    close(model.encode_image(pixels), theirs.states(theirs.inputs(EMBED_IMAGE, plain))[:, -1])


@torch.no_grad()
def test_a_row_is_the_same_with_and_without_a_cache(pair):
    from transformers import DynamicCache

    model, preprocess, _, theirs = pair
    rows = model.visual.rows(torch.stack([preprocess(image) for image in PICTURES[:2]]))
    expected = theirs.states(theirs.inputs(EMBED_IMAGE, PICTURES[:2]))
    close(rows.hidden_states(), expected)
    close(rows.hidden_states(DynamicCache(config=theirs.lvlm.config.get_text_config())), expected)


def test_gradients_are_transformers_own(pair):
    """Of every part: embedding, LLM, connector, vision tower with its positions."""
    model, preprocess, _, theirs = pair
    weights = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    (theirs.states(theirs.inputs(EMBED_IMAGE, PICTURES))[:, -1] * weights).sum().backward()
    expected = {name: one.grad for name, one in theirs.lvlm.model.named_parameters() if one.grad is not None}
    expected.pop("text_model.embed_tokens.weight")  # ours are in the soft slots' vectors
    ours = model.visual.backbone.lvlm.model.requires_grad_(True)
    pixels = torch.stack([preprocess(image) for image in PICTURES])
    (model.encode_image(pixels) * weights).sum().backward()
    found = {name: one.grad for name, one in ours.named_parameters() if name in expected}
    ours.requires_grad_(False).zero_grad(set_to_none=True)
    theirs.lvlm.zero_grad(set_to_none=True)
    assert found.keys() == expected.keys() and any("position_embedding" in name for name in expected)
    for name, gradient in expected.items():
        close(found[name], gradient, 1e-4 * max(1.0, gradient.abs().max().item()))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (None, f"{EMBED_IMAGE}<end_of_utterance>\nUser: Describe the image in detail.{ASSISTANT}"),
        ("Describe it.", f"{USER}<image>Describe it.{ASSISTANT}"),
    ],
)
def test_generated_texts_are_transformers_own(pair, prompt, text):
    model, preprocess, _, theirs = pair
    expected = []
    for image in PICTURES[:3]:
        inputs = theirs.inputs(text, [image])
        stop = theirs.processor.tokenizer.eos_token_id
        ids = theirs.lvlm.generate(**inputs, do_sample=False, max_new_tokens=12, eos_token_id=stop)
        expected.append(
            theirs.processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        )
    images = torch.stack([preprocess(image) for image in PICTURES[:3]])
    assert model.generate(images, prompt, max_new_tokens=12) == expected
    assert all(expected)


def test_a_question_is_what_the_bases_chat_template_writes(pair):
    model, _, _, theirs = pair
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe it."}]}]
    family = backbone_class(model.config.base.family)
    written = family.chat_template.format(visual="<image>", prompt="Describe it.")
    assert written == theirs.processor.apply_chat_template(chat, add_generation_prompt=True)
    texts = [{"role": "user", "content": [{"type": "text", "text": "one"}]}]
    texts += [{"role": "assistant", "content": [{"type": "text", "text": "two"}]}, *texts]
    whole = theirs.processor.apply_chat_template(texts, add_generation_prompt=True)
    assert whole == f"{USER} one{ASSISTANT} two" + family.second_turn.format(caption="").replace(
        "Describe the image in detail.", "one"
    ).removesuffix(" ")


@pytest.mark.parametrize("size", [(640, 480), (96, 96), (37, 1000), (1200, 33), (1, 900)], ids=str)
def test_the_pixels_are_those_of_the_processor(bases, size):
    """To the bit PIL's own, which the model was trained on; torchvision's Lanczos is a level or a few off."""
    _, preprocess = vladva_clip.create_model(f"local-dir:{bases['idefics3']}", precision="fp32")
    settings = json.loads((bases["idefics3"] / "preprocessor_config.json").read_text())
    settings = {**settings, "do_resize": False, "do_image_splitting": False}
    picture, ours = noise(*size), preprocess(noise(*size))
    exact, torchvisions = (
        torch.as_tensor(np.asarray(one(**settings)([[picture]], return_tensors="np")["pixel_values"]))[0, 0]
        for one in (Idefics3ImageProcessorPil, Idefics3ImageProcessor)
    )
    assert torch.equal(ours, exact)
    assert (ours - torchvisions).abs().mean() < 0.01


def test_sizes(bases):
    source = f"local-dir:{bases['idefics3']}"
    for size, tokens in ((None, 16), (28, 1), (56, 4), (57, 4), (112, 16)):
        model, _ = vladva_clip.create_model(source, force_image_size=size)
        assert model.visual.num_visual_tokens == tokens and model.visual.image_size[0] == (size or 112)
    for size, words in ((70, "multiple of 2"), (13, "patches of 14"), (140, "112 at most")):
        with pytest.raises(ValueError, match=f"{size} pixels.*{words}"):
            vladva_clip.create_model(source, force_image_size=size)


@pytest.mark.parametrize(
    ("name", "parameters", "tensors", "tokens"),
    [
        ("smolvlm-256m", 256_484_928, 471, 64),
        ("smolvlm-500m", 507_482_304, 489, 64),
        ("smolvlm-2.2b", 2_246_784_880, 657, 81),
    ],
)
def test_the_published_sizes(name, parameters, tensors, tokens):
    """The 256M's numbers are those of its file; the others' files have as many bytes, two a parameter, and a header."""
    facts, config = registry.facts(name), registry.architecture(name)
    backbone = backbone_class(config["model_type"]).from_config(config, torch.bfloat16)
    every = list(backbone.lvlm.parameters())
    assert (sum(one.numel() for one in every), len(every)) == (
        parameters,
        tensors,
    ) and facts.num_parameters == parameters
    assert all(one.is_meta for one in every) and not backbone.head_is_tied
    size = config["vision_config"]["image_size"]
    backbone.check_parts(size)
    assert backbone.num_visual_tokens(size) == tokens and backbone.visual_size(tokens) == tokens * backbone.embed_dim
