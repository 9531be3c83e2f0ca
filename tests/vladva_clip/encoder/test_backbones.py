"""Every family against transformers' own full forward, positions, patching and generation."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoProcessor, Qwen2VLImageProcessor, Qwen2VLModel

import vladva_clip
from tests.support.models import tiny_llava_next, tiny_llava_onevision
from vladva_clip.encoder.backbones import backbone_class

CAPTIONS = ["a red circle", "a blue square left of the small dog on the large cat", ""]


AT_56 = ("llava", "llava_next", "llava_onevision", "internvl")


@pytest.fixture(scope="module")
def small(base):
    """A model at four visual tokens a side or more (InternVL: two), so that positions in the grid matter."""
    size = {**dict.fromkeys(AT_56, 56), "qwen3_vl": 256}.get(base.name, 112)
    return vladva_clip.create_model(f"local-dir:{base}", precision="fp32", force_image_size=size)


@pytest.fixture(scope="module")
def images(small):
    noise = np.random.default_rng(0)
    pictures = [Image.fromarray(noise.integers(0, 255, (90, 70, 3), dtype=np.uint8)) for _ in range(3)]
    return torch.stack([small[1](picture) for picture in pictures])


def full_inputs(model, images: torch.Tensor, behind: tuple[int, ...] = ()) -> dict:
    """Inputs of the full transformers model for the image sequence, made without our towers."""
    backbone, prompts = model.visual.backbone, model.visual.prompts
    ids = torch.tensor([[*prompts.image_row(model.visual.num_visual_tokens), *behind]] * len(images))
    if backbone.family in ("llava", "internvl"):
        return {"input_ids": ids, "pixel_values": images}
    if backbone.family == "idefics3":
        return {"input_ids": ids, "pixel_values": images[:, None]}
    if backbone.family == "llava_next":
        return {"input_ids": ids, **tiny_llava_next.crops_of(images)}
    if backbone.family == "llava_onevision":
        return {"input_ids": ids, **tiny_llava_onevision.crops_of(images)}
    side = images.shape[-1] // backbone.lvlm.config.vision_config.patch_size
    grid = torch.tensor([[1, side, side]] * len(images))
    inputs = {"input_ids": ids, "pixel_values": processor_patches(images, images.shape[-1] // side)}
    inputs["image_grid_thw"] = grid
    if "mm_token_type_ids" in inspect.signature(Qwen2VLModel.get_rope_index).parameters:  # transformers > 5.0
        inputs["mm_token_type_ids"] = (ids == backbone.lvlm.config.image_token_id).int()
    return inputs


def processor_patches(images: torch.Tensor, patch: int = 14) -> torch.Tensor:
    """transformers' own patching for Qwen2-VL and its successors of already preprocessed images."""
    side = images.shape[-1]
    processor = Qwen2VLImageProcessor(
        patch_size=patch,
        do_resize=False,
        do_rescale=False,
        do_normalize=False,
        do_convert_rgb=False,
        size={"shortest_edge": side**2, "longest_edge": side**2},
    )
    return processor(list(images), return_tensors="pt")["pixel_values"]


def reference(model, inputs: dict) -> torch.Tensor:
    """Last token of hidden_states[-1] of the plain `...ForConditionalGeneration` forward."""
    lvlm = model.visual.backbone.lvlm
    mask = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        return lvlm(**inputs, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states[-1][:, -1]


def test_image_features_equal_the_full_forward(small, images):
    model = small[0]
    torch.testing.assert_close(
        model.encode_image(images), reference(model, full_inputs(model, images)), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_the_summary_feature_is_the_same_whatever_stands_behind_it(small, images, base):
    """Nothing, the second turn, or the turn with a caption of any length, in float32 and in one batch."""
    visual = small[0].visual
    tokens = visual.backbone.visual_tokens(images)
    expected = visual.rows(images).features()
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{base}")
    short, long = (torch.tensor(ids) for ids in tokenizer.long_ids([CAPTIONS[0], " ".join(CAPTIONS) * 9]))
    assert len(visual.prompts.second_turn) > 5 and len(long) > 100
    for captions in ([short] * 3, [short[:0]] * 3, [None, long, short], [long, None, short[:0]]):
        rows = visual.continued_rows(tokens, captions)
        torch.testing.assert_close(rows.features(), expected, rtol=0, atol=1e-5)
        # what predicts the caption stands behind the turn, and is what transformers computes there
        states = rows.hidden_states()[0, visual.answer_index]
        if captions[0] is not None:
            full = reference(small[0], full_inputs(small[0], images, visual.prompts.second_turn))[0]
            torch.testing.assert_close(states, full, rtol=1e-5, atol=1e-5)


def test_text_features_equal_the_full_forward_one_by_one(small, base):
    model = small[0]
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{base}")
    features = model.encode_text(tokenizer(CAPTIONS))  # padded and sorted in one batch
    template = model.text.prompts.text
    for caption, feature in zip(CAPTIONS, features, strict=True):
        ids = [*template.bos, *template.prefix, *tokenizer.ids(caption)[0], *template.suffix]
        expected = reference(model, {"input_ids": torch.tensor([ids])})[0]
        torch.testing.assert_close(feature, expected, atol=1e-5, rtol=1e-5)


def test_image_sequence_equals_the_processors_own_ids(small, base):
    model = small[0]
    backbone = model.visual.backbone
    asked = backbone.processor_span or backbone.visual_span
    rendered = model.config.prompt.rendered("image").replace("{visual}", asked.text)
    expected = model.visual.prompts.image_row(model.visual.num_visual_tokens)
    assert processors_ids(base, model, rendered) == expected


def processors_ids(base, model, text: str) -> list[int]:
    """What the base's processor writes of a text with one image of the model's size, uncut."""
    size, processor = model.visual.image_size[0], AutoProcessor.from_pretrained(base)
    if model.visual.backbone.family == "idefics3":
        processor.image_processor.do_image_splitting = False
    if model.visual.backbone.family == "llava_onevision":
        return tiny_llava_onevision.ids_of(processor, text, Image.new("RGB", (size, size)))
    return processor(text=[text], images=[Image.new("RGB", (size, size))], return_tensors="pt")["input_ids"][0].tolist()


def test_untrained_soft_prompt_is_bit_equal_to_its_template(small, images):
    model = small[0]
    backbone, prompts = model.visual.backbone, model.visual.prompts
    rows = model.visual.rows(images[:1])
    written = ~rows.layout.visual_mask
    by_hand = backbone.embed_tokens(torch.tensor([prompts.image_row(model.visual.num_visual_tokens)]))
    assert torch.equal(rows.embeddings[written], by_hand[written])


def test_changing_a_soft_prompt_changes_its_side_only(base, images):
    model, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32", force_image_size=images.shape[-1])
    tokens = vladva_clip.get_tokenizer(f"local-dir:{base}")(CAPTIONS)
    image, text = model.encode_image(images), model.encode_text(tokens)
    with torch.no_grad():
        model.text.soft_prompt.weight[0] += 1.0
    assert torch.equal(model.encode_image(images), image)
    assert not torch.allclose(model.encode_text(tokens), text, atol=1e-3)


def test_gradients_reach_the_image(small, images):
    pixels = images.clone().requires_grad_()
    small[0].encode_image(pixels, normalize=True)[:, 0].sum().backward()
    assert pixels.grad.abs().amax(dim=(1, 2, 3)).min() > 0


def test_trunk_runs_without_mask_head_or_other_layers(small, images):
    """No padding mask (causality stands in), no logits, no tuple of hidden states."""
    model, seen = small[0], []
    backbone = model.visual.backbone
    layer = backbone.trunk_module.layers[0]
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
        ),
        backbone.lvlm.get_output_embeddings().register_forward_hook(lambda *_: seen.append("head")),
        backbone.trunk_module.register_forward_hook(lambda _, __, out: seen.append(out.get("hidden_states"))),
    ]
    model.encode_image(images)
    for hook in hooks:
        hook.remove()
    assert seen == [None, None]


def test_generate_equals_transformers_own(small, images):
    model = small[0]
    inputs = full_inputs(model, images, model.visual.prompts.second_turn)
    mask = torch.ones_like(inputs["input_ids"])
    expected = model.visual.backbone.lvlm.generate(**inputs, attention_mask=mask, do_sample=False, max_new_tokens=12)
    texts = model._tokenizer.batch_decode(expected[:, mask.shape[1] :], skip_special_tokens=True)
    assert model.generate(images, max_new_tokens=12) == [text.strip() for text in texts]


def test_generate_with_an_instruction_uses_the_bases_chat(small, images, base):
    model = small[0]
    processor = AutoProcessor.from_pretrained(base)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe it."}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = model.visual.prompts.chat_batch(1, model.visual.num_visual_tokens, model._chat_ids("Describe it.")).input_ids
    assert ids.tolist() == [processors_ids(base, model, text)]
    assert len(model.generate(images, "Describe it.", max_new_tokens=3)) == len(images)


def test_generate_leaves_nothing_behind(small, images, base):
    model = small[0]
    tokens = vladva_clip.get_tokenizer(f"local-dir:{base}")(CAPTIONS)
    before = model.encode_text(tokens)
    model.generate(images, max_new_tokens=2)
    assert torch.equal(model.encode_text(tokens), before)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_qwen_positions_equal_get_rope_index(bases, family):
    model, _ = vladva_clip.create_model(f"local-dir:{bases[family]}", precision="fp32", force_image_size=112)
    images = torch.zeros(2, 3, 112, 112)
    inputs = full_inputs(model, images)
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw")
    expected, _ = model.visual.backbone.lvlm.model.get_rope_index(**{n: inputs[n] for n in names if n in inputs})
    assert torch.equal(model.visual.rows(images).position_ids.expand(3, 2, -1), expected)


def test_qwen_patches_equal_the_image_processors(bases):
    model, _ = vladva_clip.create_model(f"local-dir:{bases['qwen2_vl']}", precision="fp32", force_image_size=112)
    images = torch.randn(2, 3, 112, 112)
    assert torch.equal(model.visual.backbone.patches(images), processor_patches(images))


def test_unsupported_family_is_refused():
    with pytest.raises(ValueError, match="qwen2_vl"):
        backbone_class("qwen2vl")


def test_config_of_a_base_is_the_one_transformers_reads(base):
    model, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    assert model.config.embed_dim == AutoConfig.from_pretrained(base).get_text_config().hidden_size
