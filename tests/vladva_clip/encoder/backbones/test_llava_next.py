"""LLaVA-NeXT against transformers' own processor and full forward, loaded beside ours from the same directory."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration, LlavaNextImageProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

import vladva_clip
from tests.support.models.tiny_llava_next import PROCESSOR, SIDE, SYSTEM, crops_of
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources import registry

USER, ASSISTANT = "<|start_header_id|>user<|end_header_id|>\n\n", "<|start_header_id|>assistant<|end_header_id|>\n\n"
SYSTEM_TURN = f"<|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|>"
EMBED_IMAGE = f"{USER}Summarize the provided image in one word: <image><|eot_id|>{ASSISTANT}"
EMBED_TEXT = f"{USER}Summarize the provided text in one word:%s<|eot_id|>{ASSISTANT}"
CAPTIONS = [
    "a red circle.",
    'the small cat "left" of the large dog',
    "",
    "红色 🙂 dog",
    "is it\n\nred?\n",
    "a dog " * 60,
]
BY_ROUNDING = 1e-6  # cosine distance: the processor rounds the pixels of the whole image once more


class Theirs:
    """transformers alone: the base's processor and weights."""

    def __init__(self, directory) -> None:
        self.processor = AutoProcessor.from_pretrained(directory)
        self.lvlm = LlavaNextForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()

    def inputs(self, text: str, images: list[Image.Image]) -> dict:
        return dict(self.processor(text=[text] * len(images), images=images, return_tensors="pt"))

    def states(self, inputs: dict) -> torch.Tensor:
        """`(B, T, D)` of the full forward."""
        return self.lvlm.model(**inputs, use_cache=False).last_hidden_state

    def tokens(self, inputs: dict) -> torch.Tensor:
        """`(B, N, D)`, the visual tokens."""
        seen = self.lvlm.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"], return_dict=True)
        return torch.stack(list(seen.pooler_output))


@pytest.fixture(scope="module")
def directory(bases):
    return bases["llava_next"]


@pytest.fixture(scope="module")
def theirs(directory) -> Theirs:
    return Theirs(directory)


@pytest.fixture(scope="module")
def model_and_preprocess(directory):
    return vladva_clip.create_model(f"local-dir:{directory}", precision="fp32")


@pytest.fixture(scope="module")
def model(model_and_preprocess):
    return model_and_preprocess[0]


@pytest.fixture(scope="module")
def whole(directory):
    """The model that sees images whole, and its transform."""
    return vladva_clip.create_model(f"local-dir:{directory}", precision="fp32", image_size=SIDE)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 255, (2 * SIDE, 2 * SIDE, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture(scope="module")
def images(model_and_preprocess, pictures) -> torch.Tensor:
    return torch.stack([model_and_preprocess[1](picture) for picture in pictures])


def close(found, expected, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The greatest cosine distance of two rows."""
    return float((1 - torch.cosine_similarity(one.double(), other.double())).max())


@torch.no_grad()
def test_image_features_are_transformers_own(model, theirs, pictures, images):
    inputs = theirs.inputs(EMBED_IMAGE, pictures)
    assert inputs["pixel_values"].shape == (3, 5, 3, SIDE, SIDE) and model.visual.num_visual_tokens == 24
    assert inputs["input_ids"].tolist() == [model.visual.prompts.image_row(24)] * 3
    found = model.encode_image(images)
    assert distance(found, theirs.states(inputs)[:, -1]) < BY_ROUNDING
    inputs["pixel_values"][:, 0] = crops_of(images)["pixel_values"][:, 0]  # the whole image without that rounding
    close(found, theirs.states(inputs)[:, -1])
    for image, row in zip(images, found, strict=True):
        close(model.encode_image(image[None])[0], row)


@torch.no_grad()
def test_tiles_and_their_order_are_transformers_own(model, theirs, pictures, images):
    inputs, found = theirs.inputs(EMBED_IMAGE, pictures), model.visual.backbone.visual_tokens(images)
    expected = theirs.tokens(inputs)
    assert found.shape == (3, 4 + 4 * 5, 32)
    close(found[:, 4:], expected[:, 4:])
    newline = theirs.lvlm.model.image_newline
    assert all(torch.equal(row, newline) for row in found[:, 4:].unflatten(1, (4, 5))[:, :, 4].flatten(0, 1))
    inputs["pixel_values"] = inputs["pixel_values"][:, [0, 1, 3, 2, 4]]
    assert distance(model.encode_image(images), theirs.states(inputs)[:, -1]) > 100 * BY_ROUNDING


def test_both_processors_of_transformers_make_our_crops(images, pictures):
    """On PIL and on tensors. Tiles are equal; the whole image differs by what is rounded and cut off."""
    found, level = crops_of(images)["pixel_values"], 1 / 255 / 0.26
    for kind in (LlavaNextImageProcessor, LlavaNextImageProcessorPil):
        crops = kind(**PROCESSOR)(pictures, return_tensors="pt")["pixel_values"]
        close(found[:, 1:], crops[:, 1:], 1e-6)
        assert (found[:, 0] - crops[:, 0]).abs().mean() < 0.5 * level


@torch.no_grad()
def test_an_image_seen_whole_is_one_crop(whole, theirs, pictures):
    """Written out from transformers' parts: its own processor always makes tiles as well."""
    model, preprocess = whole
    images = torch.stack([preprocess(picture) for picture in pictures])
    assert images.shape[-1] == SIDE and model.visual.num_visual_tokens == 4
    parts = theirs.lvlm.model
    states = parts.vision_tower(images, output_hidden_states=True).hidden_states[-2][:, 1:]
    ids = torch.tensor([model.visual.prompts.image_row(4)] * 3)
    embeddings = parts.get_input_embeddings()(ids)
    embeddings[ids == parts.config.image_token_id] = parts.multi_modal_projector(states).flatten(0, 1)
    close(model.encode_image(images), parts.language_model(inputs_embeds=embeddings).last_hidden_state[:, -1])


@torch.no_grad()
def test_text_features_are_transformers_own(model, theirs, directory):
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{directory}")
    template = model.text.prompts.text
    found = model.encode_text(tokenizer(CAPTIONS))  # of several lengths, in one batch
    for caption, row in zip(CAPTIONS, found, strict=True):
        clean = " ".join(caption.split())
        inputs = dict(theirs.processor(text=EMBED_TEXT % (clean and f" {clean}"), return_tensors="pt"))
        ids = [*template.before, *tokenizer.ids(caption)[0], *template.suffix]
        assert inputs["input_ids"][0].tolist() == ids and ids.count(theirs.processor.tokenizer.bos_token_id) == 1
        close(row, theirs.states(inputs)[0, -1])
        close(model.encode_text(tokenizer([caption]))[0], row)


def test_gradients_are_transformers_own(directory, theirs, images):
    """Of every parameter, the vector between lines included; the prompt's tokens are the soft prompt here."""
    model, _ = vladva_clip.create_model(f"local-dir:{directory}", precision="fp32")
    weights = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([model.visual.prompts.image_row(24)] * 3)
    (theirs.states({"input_ids": ids, **crops_of(images)})[:, -1] * weights).sum().backward()
    expected = {name: parameter.grad for name, parameter in theirs.lvlm.model.named_parameters()}
    theirs.lvlm.zero_grad(set_to_none=True)
    ours = model.visual.backbone.lvlm.model.requires_grad_(True)
    (model.encode_image(images) * weights).sum().backward()
    unread = {"language_model.embed_tokens.weight"} | {name for name, grad in expected.items() if grad is None}
    assert {name.split(".")[0] for name in unread} == {
        "language_model",
        "vision_tower",
    }  # behind the layer that is read
    assert expected["image_newline"].abs().max() > 1e-3
    for name, parameter in ours.named_parameters():
        if name not in unread:
            close(parameter.grad, expected[name], 1e-4 * max(1.0, float(expected[name].abs().max())))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (None, f"{EMBED_IMAGE}<|eot_id|>{USER}Describe the image in detail.<|eot_id|>{ASSISTANT}"),
        ("Describe it.", f"{SYSTEM_TURN}{USER}<image>\nDescribe it.<|eot_id|>{ASSISTANT}"),
    ],
)
def test_generated_texts_are_transformers_own(model, theirs, images, prompt, text):
    expected, ids = (
        [],
        theirs.processor.tokenizer(text.replace("<image>", "<image>" * 24), return_tensors="pt").input_ids,
    )
    for image in images:
        written = theirs.lvlm.generate(
            input_ids=ids, attention_mask=ids.ne(-1), **crops_of(image[None]), do_sample=False, max_new_tokens=12
        )
        expected.append(theirs.processor.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip())
    assert model.generate(images, prompt, max_new_tokens=12) == expected
    assert all(expected) and len(set(expected)) > 1


def test_a_question_is_what_the_bases_chat_template_writes(theirs):
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe it."}]}]
    family = backbone_class("llava_next")
    written = family.chat_template.format(visual="<image>", prompt="Describe it.")
    assert written == theirs.processor.apply_chat_template(chat, add_generation_prompt=True)


@torch.no_grad()
def test_pixels_of_half_precision_are_scaled_in_single(directory, images):
    backbone = vladva_clip.create_model(f"local-dir:{directory}", precision="bf16")[0].visual.backbone
    half, seen = images.bfloat16(), []
    hook = backbone.vision_tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = backbone.visual_tokens(half)
    hook.remove()
    assert found.dtype == seen[0].dtype == torch.bfloat16
    assert torch.equal(seen[0][::5], crops_of(half.float())["pixel_values"][:, 0].bfloat16())


@pytest.mark.parametrize("name", ["llava-next-8b", "e5-v"])
def test_the_published_size(name):
    """Parameters: mteb's count for E5-V."""
    backbone, facts = (
        backbone_class("llava_next").from_config(registry.architecture(name), torch.bfloat16),
        registry.facts(name),
    )
    every = list(backbone.lvlm.parameters())
    assert sum(one.numel() for one in every) == facts.num_parameters == 8_355_276_800 and all(
        one.is_meta for one in every
    )
    assert backbone.lvlm.get_input_embeddings().weight.numel() == 525_598_720
    assert (backbone.embed_dim, facts.image_size) == (4096, 672)
    assert [backbone.num_visual_tokens(size) for size in (336, 672)] == [576, 2928]
    assert [(backbone.num_crops(size), backbone.num_patches(size)) for size in (336, 672)] == [(1, 576), (5, 576)]
    with torch.device("meta"):
        assert backbone.visual_tokens(torch.empty(2, 3, 672, 672, dtype=torch.bfloat16)).shape == (2, 2928, 4096)
