"""The fused forward against the encoders, against separate forwards and against transformers' own."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.support.models import tiny_llava_next, tiny_llava_onevision
from tests.support.training.steps import (
    LOSSES,
    assert_equal,
    batch_of,
    double_model,
    fused_forward,
    gradients,
    in_double,
    moved,
    one_step,
    recipe,
    rows_of,
    small_model,
)
from vladva_clip.encoder.prompts import fill
from vladva_training.config import LossSection
from vladva_training.losses.contrastive import info_nce
from vladva_training.step.fused import text_rows


@pytest.fixture(scope="module")
def model(base):
    return double_model(base)


@pytest.fixture(scope="module")
def fused(model, base):
    return fused_forward(model, recipe(base, LossSection()))


@pytest.fixture(scope="module")
def batch(model):
    return replace(batch_of(model), hard_negatives=((),) * 6)


def forward(fused, batch, with_long=True):
    return fused(batch, fused.visual_tokens(batch.images), with_long)


def test_the_image_feature_does_not_change_whatever_caption_follows(model, fused, batch):
    alone = F.normalize(model.visual(batch.images.double()), dim=-1)
    torch.testing.assert_close(alone.float(), model.encode_image(batch.images.double(), normalize=True))
    for seed in range(3):
        captions = batch_of(model, seed=seed).long
        longer = tuple(None if caption is None else caption.repeat(1 + 4 * seed) for caption in captions)
        found = forward(fused, replace(batch, long=longer)).image_features
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(forward(fused, batch, with_long=False).image_features, alone, rtol=0, atol=1e-12)


def test_text_features_are_those_of_encode_text(model, fused, batch):
    batch = replace(batch_of(model), other_short=batch.other_short)  # with false captions
    captions = text_rows(batch)
    tokens = torch.zeros(len(captions), max(map(len, captions)) + 1, dtype=torch.long)
    for row, caption in zip(tokens, captions, strict=True):
        row[: len(caption) + 1] = torch.cat([caption, torch.tensor([model.text.prompts.eot_token_id])])
    found = forward(fused, batch).text_features
    torch.testing.assert_close(found, F.normalize(model.text(tokens), dim=-1), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.float(), model.encode_text(tokens, normalize=True))


def embedded(tower, layout):
    """The rows with the soft prompt filled in, by hand."""
    vectors = tower.soft_prompt.weight.repeat(len(layout.input_ids), 1)
    return fill(tower.backbone.embed_tokens(layout.input_ids), layout.soft_mask, vectors, "soft prompt vectors")


def separate_next_token_sum(model, batch):
    """The long captions in a forward of their own, the head on every position, one full cross-entropy."""
    visual = model.visual
    layout = visual.prompts.continued_batch(batch.long, visual.num_visual_tokens)
    embeddings = embedded(visual, layout)
    seen = visual.backbone.visual_tokens(batch.images.double())
    tokens = visual.backbone.slot_vectors(seen).flatten(0, 1)
    embeddings = fill(embeddings, layout.visual_mask, tokens, "visual tokens")
    positions = visual.backbone.position_ids(embeddings.shape[1], layout.visual_start, visual.image_size[0])
    more = visual.backbone.trunk_inputs(seen, layout.visual_mask)
    logits = visual.backbone.head(visual.backbone.trunk(embeddings, positions, **more))
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels_of(model, batch)[:, 1:].flatten(), reduction="sum")


def labels_of(model, batch):
    """transformers' labels of the image sequences: the long captions' ids, -100 elsewhere."""
    prompts = model.visual.prompts
    start = len(prompts.image_row(model.visual.num_visual_tokens)) + len(prompts.second_turn)
    width = max(len(caption) for caption in batch.long if caption is not None)
    labels = torch.full((len(batch), start + width), -100)
    for row, caption in zip(labels, batch.long, strict=True):
        if caption is not None:
            row[start : start + len(caption)] = caption
    return labels


def in_separate_forwards(model, batch):
    """The paper's loss without any fusion: each image twice through the LLM."""
    rows = [row for row, caption in enumerate(batch.short) if caption is not None]
    images = F.normalize(model.visual(batch.images[rows].double()), dim=-1)
    layout = model.text.prompts.text_batch([batch.short[row] for row in rows])
    embeddings = embedded(model.text, layout)
    hidden_states = model.text.backbone.trunk(
        embeddings, model.text.backbone.position_ids(len(layout.input_ids[0]), None, 0)
    )
    texts = F.normalize(hidden_states[torch.arange(len(rows)), layout.summary_index], dim=-1)
    known = [(batch.short_texts[row], batch.pictures[row]) for row in rows]
    same = torch.tensor([[one[0] == two[0] or one[1] == two[1] for two in known] for one in known])
    contrastive = info_nce(images, texts, model.logit_scale, same=same)
    ntp = separate_next_token_sum(model, batch) / batch.labeled_tokens
    (contrastive + ntp).backward()
    return {"loss": contrastive.item() + ntp.item(), "contrastive": contrastive.item(), "ntp": ntp.item()}


def test_losses_and_gradients_equal_separate_forwards(model, base, fused, batch):
    losses = in_separate_forwards(model, batch)
    expected = {f"model.{name}": gradient for name, gradient in gradients(model).items()}
    found, found_losses = one_step(fused, recipe(base, LossSection()), batch)
    assert_equal(found, expected)
    assert found_losses == pytest.approx(losses, rel=1e-9)


def transformers_forward(model, batch):
    """transformers' own class on ids, pixels and labels: its own merging of the image, positions and shift."""
    lvlm, visual = model.visual.backbone.lvlm, model.visual
    ids = visual.prompts.continued_batch(batch.long, visual.num_visual_tokens).input_ids
    images = batch.images.double()
    if model.config.base.family in ("llava", "internvl"):
        inputs = {"pixel_values": images}
    elif model.config.base.family == "idefics3":
        inputs = {"pixel_values": images[:, None]}
    elif model.config.base.family == "llava_next":
        inputs = tiny_llava_next.crops_of(images)
    elif model.config.base.family == "llava_onevision":
        inputs = tiny_llava_onevision.crops_of(images)
    else:
        side = visual.image_size[0] // visual.backbone.lvlm.config.vision_config.patch_size
        inputs = {
            "pixel_values": visual.backbone.patches(images),
            "image_grid_thw": torch.tensor([[1, side, side]] * 6),
        }
        inputs["mm_token_type_ids"] = (ids == visual.prompts.visual_slot).int()
    return lvlm(input_ids=ids, labels=labels_of(model, batch), use_cache=False, **inputs)


def test_next_token_prediction_equals_transformers_own(base, batch):
    """Over hand-written prompts, which transformers looks up by itself; value and the LoRA's gradients."""
    model = in_double(moved(small_model(base), what=("lora_",)))
    output, labels = transformers_forward(model, batch), labels_of(model, batch)
    expected = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    expected.backward()
    gradient = {f"model.{name}": g for name, g in lora_gradients(model).items()}
    fused = fused_forward(model, recipe(base, LossSection()))
    found = forward(fused, batch).ntp_sum
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(found / batch.labeled_tokens, output.loss.double(), rtol=1e-6, atol=0)  # a float32
    assert_equal(lora_gradients(fused), gradient)


def lora_gradients(module):
    found = {name: parameter.grad for name, parameter in module.named_parameters() if "lora_" in name}
    module.zero_grad(set_to_none=True)
    return found


def test_gradient_checkpointing_gives_the_same_gradients(base, batch):
    whole = recipe(base, LossSection())
    model = double_model(base)
    expected, losses = one_step(fused_forward(model, whole), whole, batch)
    checkpointed = double_model(base, gradient_checkpointing=True)
    found, found_losses = one_step(fused_forward(checkpointed, whole), whole, batch)
    assert_equal(found, expected)
    assert found_losses == pytest.approx(losses, rel=1e-9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("micro_size", [None, 2])
def test_bf16_autocast_trains_float32_adapters(base, batch, precision, micro_size):
    model = small_model(base, precision=precision)
    whole = recipe(base, LOSSES["info_nce"], micro_size, autocast="bf16")
    fused = fused_forward(model, whole)
    found, losses = one_step(fused, whole, batch)
    assert all(p.dtype == torch.float32 for p in fused.parameters() if p.requires_grad)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in found.values())
    output = forward(fused, batch)
    assert {t.dtype for t in (output.image_features, output.text_features, output.ntp_sum)} == {torch.float32}
    exact = small_model(base)
    _, expected = one_step(
        fused_forward(exact, recipe(base, LOSSES["info_nce"])), recipe(base, LOSSES["info_nce"]), batch
    )
    assert losses == pytest.approx(expected, rel=0.05)


def test_the_logit_scale_is_clamped_at_100(model, fused):
    before = model.logit_scale.detach().clone()
    with torch.no_grad():
        fused.clamp_logit_scale()
        assert model.logit_scale == before
        model.logit_scale.fill_(7.0)
        fused.clamp_logit_scale()
        assert model.logit_scale.exp().item() == pytest.approx(100)
        model.logit_scale.copy_(before)


def test_a_full_bf16_base_trains_in_float32(base, batch):
    model = small_model(base, train="full", precision="bf16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    whole = recipe(base, LossSection(), train="full")
    found, _ = one_step(fused_forward(model, whole), whole, rows_of(batch, 0, 1))
    assert any("lm_head" in name or "embed_tokens" in name for name in found)


@pytest.mark.slow
def test_a_compiled_trunk_gives_the_same_gradients(bases):
    base = bases["llava"]
    whole = recipe(base, LOSSES["info_nce"], 2)
    model = small_model(base)
    batch = batch_of(model)
    expected, _ = one_step(fused_forward(model, whole), whole, batch)
    model.visual.backbone.trunk_module.compile(dynamic=True)
    assert_equal(one_step(fused_forward(model, whole), whole, batch)[0], expected, 1e-3)
