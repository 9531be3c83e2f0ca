"""Qwen3-VL against transformers' own processor and full forward, loaded beside ours from the same directory."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen3VLForConditionalGeneration
from transformers.masking_utils import find_packed_sequence_indices

import vladva_clip
from tests.support.models.tiny_qwen3_vl import write_qwen3_vl
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.backbones.qwen2_vl import Qwen2VLBackbone
from vladva_clip.sources import registry

USER, ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
EMBED_IMAGE = f"{USER}Summarize the provided image in one word: {IMAGE}{ASSISTANT}"
EMBED_TEXT = f"{USER}Summarize the provided text in one word:%s{ASSISTANT}"
CAPTIONS = ["a red circle.", 'the small cat "left" of the large dog', "", "红色 🙂 dog", "a red dog " * 60 + "on"]
SIZES = [128, 160, 256]


class Theirs:
    """transformers alone: the base's processor and weights."""

    def __init__(self, directory) -> None:
        self.processor = AutoProcessor.from_pretrained(directory)
        self.lvlm = Qwen3VLForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()

    def inputs(self, text: str, images: list[Image.Image]) -> dict:
        """What the processor makes of one text with one image each; small images are not scaled up."""
        size = {"shortest_edge": 1024, "longest_edge": 1 << 24}
        options = {"images_kwargs": {"size": size}, "return_tensors": "pt"}
        return self.processor(text=[text] * len(images), images=images, **options)

    def states(self, inputs: dict) -> torch.Tensor:
        """`(B, T, D)` of the full forward, whose positions and mask are transformers' own."""
        self.lvlm.model.rope_deltas = None  # kept between calls
        return self.lvlm.model(**inputs, use_cache=False).last_hidden_state


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A base with two maps."""
    return write_qwen3_vl(tmp_path_factory.mktemp("deep") / "base", depth=3)


@pytest.fixture(scope="module")
def theirs(directory) -> Theirs:
    return Theirs(directory)


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    """A base with a head of its own, as the 8B; a tied one of random weights repeats what it reads."""
    return write_qwen3_vl(tmp_path_factory.mktemp("untied") / "base", seed=1, tied=False, depth=3)


@pytest.fixture(scope="module")
def load(directory):
    """Load the model at a size, once."""
    loaded = {}

    def of(size: int):
        if size not in loaded:
            loaded[size] = vladva_clip.create_model(f"local-dir:{directory}", precision="fp32", force_image_size=size)
        return loaded[size]

    return of


def pictures(size: int, count: int = 3) -> list[Image.Image]:
    noise = np.random.default_rng(size)
    return [Image.fromarray(noise.integers(0, 255, (size, size, 3), dtype=np.uint8)) for _ in range(count)]


def close(found, expected, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_image_features_are_transformers_own(load, theirs, size):
    model, preprocess = load(size)
    images = pictures(size)
    inputs = theirs.inputs(EMBED_IMAGE, images)
    assert inputs["input_ids"][0].tolist() == model.visual.prompts.image_row(model.visual.num_visual_tokens)
    expected = theirs.states(inputs)[:, -1]
    found = model.encode_image(torch.stack([preprocess(image) for image in images]))
    close(found, expected)
    for image, row in zip(images, expected, strict=True):  # and one by one
        close(model.encode_image(preprocess(image)[None])[0], row)


@pytest.mark.parametrize("size", SIZES)
def test_positions_are_transformers_own(load, theirs, size):
    model, preprocess = load(size)
    inputs = theirs.inputs(EMBED_IMAGE, pictures(size, 2))
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw")
    expected, _ = theirs.lvlm.model.get_rope_index(**{name: inputs[name] for name in names if name in inputs})
    found = model.visual.rows(torch.zeros(2, 3, size, size)).position_ids
    assert torch.equal(found.expand(3, 2, -1), expected)


@torch.no_grad()
def test_text_features_are_transformers_own(load, theirs, directory):
    model, tokenizer = load(128)[0], vladva_clip.get_tokenizer(f"local-dir:{directory}")
    template = model.text.prompts.text
    found = model.encode_text(tokenizer(CAPTIONS))  # of several lengths, in one batch
    for caption, row in zip(CAPTIONS, found, strict=True):
        ids = theirs.processor.tokenizer(EMBED_TEXT % (caption and f" {caption}"), return_tensors="pt").input_ids
        assert ids[0].tolist() == [*template.prefix, *tokenizer.ids(caption)[0], *template.suffix]
        close(row, theirs.states({"input_ids": ids})[0, -1])
        close(model.encode_text(tokenizer([caption]))[0], row)


@torch.no_grad()
def test_a_row_is_the_same_with_and_without_a_cache(load, theirs):
    """Before transformers 5.3 the two have different masks, unless the positions prevent it."""
    from transformers import DynamicCache

    model, preprocess = load(160)
    images = pictures(160, 2)
    rows = model.visual.rows(torch.stack([preprocess(image) for image in images]))
    expected = theirs.states(theirs.inputs(EMBED_IMAGE, images))
    cache = DynamicCache(config=model.visual.backbone.lvlm.config.get_text_config())
    close(rows.hidden_states(), expected)
    close(rows.hidden_states(cache), expected)


def test_no_release_takes_the_positions_for_those_of_packed_texts(load):
    """Up to 5.2 transformers makes its mask of the first row of the positions, whatever that is."""
    model, _ = load(160)
    rows, seen = model.visual.rows(torch.zeros(2, 3, 160, 160)), []
    trunk = model.visual.backbone.trunk_module
    hook = trunk.register_forward_pre_hook(lambda *call: seen.append(call[2]["position_ids"]), with_kwargs=True)
    try:
        rows.hidden_states()
    finally:
        hook.remove()

    assert seen[0].shape[0] == 4 and torch.equal(seen[0][1:], rows.position_ids.expand_as(seen[0][1:]))
    assert find_packed_sequence_indices(seen[0][0]) is None
    assert find_packed_sequence_indices(rows.position_ids[0]) is not None  # what the fourth row is for


@torch.no_grad()
def test_without_the_maps_the_features_are_others(load, theirs, monkeypatch):
    model, preprocess = load(128)
    images = pictures(128, 2)
    pixels = torch.stack([preprocess(image) for image in images])
    expected = theirs.states(theirs.inputs(EMBED_IMAGE, images))[:, -1]
    backbone = model.visual.backbone
    seen = backbone.visual_tokens(pixels)
    assert len(seen.maps) == 2 and all(one.shape == seen.tokens.shape == (2, 16, 32) for one in seen.maps)
    inputs = backbone.trunk_inputs
    for kept in ((), seen.maps[:1], seen.maps[::-1]):  # none, the first alone, in the wrong order
        fewer = type(seen)(seen.tokens, kept)
        with monkeypatch.context() as patch:
            patch.setattr(backbone, "trunk_inputs", lambda _, mask, fewer=fewer: inputs(fewer, mask))
            assert (model.encode_image(pixels) - expected).abs().amax(1).min() > 0.1
    close(model.encode_image(pixels), expected)


def test_gradients_reach_the_vision_tower_through_the_maps(directory, theirs):
    """Of every parameter, as in transformers' own forward; the prompt's tokens are the soft prompt here."""
    model, preprocess = vladva_clip.create_model(f"local-dir:{directory}", precision="fp32", force_image_size=128)
    images = pictures(128, 2)
    weights = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    inputs = theirs.inputs(EMBED_IMAGE, images)
    (theirs.states(inputs)[:, -1] * weights).sum().backward()
    expected = {name: parameter.grad for name, parameter in theirs.lvlm.model.named_parameters()}
    expected.pop("language_model.embed_tokens.weight")
    theirs.lvlm.zero_grad(set_to_none=True)
    ours = model.visual.backbone.lvlm.model.requires_grad_(True)
    (model.encode_image(torch.stack([preprocess(image) for image in images])) * weights).sum().backward()
    found = {name: parameter.grad for name, parameter in ours.named_parameters() if name in expected}
    maps = [name for name in expected if "deepstack_merger_list" in name]
    assert len(maps) == 12 and all(expected[name].abs().max() > 1e-3 for name in maps)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        close(found[name], gradient, 1e-4 * max(1.0, gradient.abs().max().item()))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (None, f"{EMBED_IMAGE}<|im_end|>\n{USER}Describe the image in detail.{ASSISTANT}"),
        ("Describe it.", f"{USER}{IMAGE}Describe it.{ASSISTANT}"),  # the published chat: no system message
    ],
)
def test_generated_texts_are_transformers_own(untied, prompt, text):
    """Those of the tied base are compared in tests/vladva_clip/encoder/test_backbones.py."""
    model, preprocess = vladva_clip.create_model(f"local-dir:{untied}", precision="fp32", force_image_size=160)
    theirs, images, expected = Theirs(untied), pictures(160), []
    for image in images:
        inputs = theirs.inputs(text, [image])
        ids = theirs.lvlm.generate(**inputs, do_sample=False, max_new_tokens=12)
        new = ids[0, inputs["input_ids"].shape[1] :]
        expected.append(theirs.processor.decode(new, skip_special_tokens=True).strip())
    assert model.generate(torch.stack([preprocess(image) for image in images]), prompt, max_new_tokens=12) == expected
    assert all(expected) and len(set(expected)) == 3


def test_a_question_is_what_the_bases_chat_template_writes(theirs):
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe it."}]}]
    family = backbone_class("qwen3_vl")
    written = family.chat_template.format(visual=family.visual_span.text, prompt="Describe it.")
    assert written == theirs.processor.apply_chat_template(chat, add_generation_prompt=True)
    assert family.prompt_config() == Qwen2VLBackbone.prompt_config()


def test_the_head_is_tied_or_its_own(load, untied):
    model, _ = vladva_clip.create_model(f"local-dir:{untied}", precision="fp32")
    assert load(128)[0].visual.backbone.head_is_tied and not model.visual.backbone.head_is_tied


def test_sizes(directory):
    model, _ = vladva_clip.create_model(f"local-dir:{directory}", precision="fp32")
    assert model.visual.image_size == (512, 512) and model.visual.num_visual_tokens == 256
    for size in (32, 96, 768):
        model, _ = vladva_clip.create_model(f"local-dir:{directory}", force_image_size=size)
        assert model.visual.num_visual_tokens == (size // 32) ** 2
    for size in (500, 448 + 14, 16):
        with pytest.raises(ValueError, match=f"{size} pixels.*multiple of 32"):
            vladva_clip.create_model(f"local-dir:{directory}", force_image_size=size)


@pytest.mark.parametrize(
    ("name", "parameters", "tensors", "vision", "tied"),
    [
        ("qwen3-vl-2b", 2_127_532_032, 625, 406_957_056, True),
        ("qwen3-vl-4b", 4_437_815_808, 713, 415_347_712, True),
        ("qwen3-vl-8b", 8_767_123_696, 750, 576_388_336, False),
    ],
)
def test_the_published_sizes(name, parameters, tensors, vision, tied):
    """2B: that of Qwen3-VL-Embedding-2B, without a head of its own; 8B: the Hub's own count."""
    backbone = backbone_class("qwen3_vl").from_config(registry.architecture(name), torch.bfloat16)
    every = list(backbone.lvlm.parameters())
    assert (sum(one.numel() for one in every), len(every)) == (parameters, tensors)
    assert sum(one.numel() for one in backbone.vision_tower.parameters()) == vision
    assert backbone.head_is_tied == tied and all(one.is_meta for one in every)
    text = backbone.lvlm.config.get_text_config()
    assert text.rope_parameters["rope_theta"] == 5_000_000 and text.rope_parameters["mrope_section"] == [24, 20, 20]
    facts = registry.facts(name)
    backbone.check_parts(facts.image_size)
    assert backbone.num_visual_tokens(facts.image_size) == 256
    assert backbone.visual_size(256) == 4 * 256 * backbone.embed_dim
