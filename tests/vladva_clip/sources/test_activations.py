"""The arithmetic of a micro-batch against the tensors that are really alive while one is embedded."""

import dataclasses

import pytest
import torch

import vladva_clip
from tests.support.memory import LiveBytes
from tests.support.models import mid_bases
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources import activations, fit

TOLERANCE = 0.02
DTYPES = (torch.float32, torch.bfloat16)
FAMILIES = (*mid_bases.FAMILIES, pytest.param("embedding_gemma2", marks=pytest.mark.wide))


def built(family: str, dtype: torch.dtype):
    config, size = mid_bases.config(family)
    return backbone_class(family).from_config(config, dtype, "cpu").requires_grad_(False).eval(), config, size


def peak(call) -> int:
    with torch.no_grad(), LiveBytes() as memory:
        kept = call()  # held until the end, as callers do
    del kept
    return memory.peak


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_vision_tower(family, dtype):
    backbone, config, size = built(family, dtype)
    images = torch.zeros(2, 3, size, size, dtype=dtype)
    predicted = activations.vision_of(config, size).bytes(2, dtype.itemsize)
    assert peak(lambda: backbone.visual_tokens(images)) == pytest.approx(predicted, rel=TOLERANCE)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_language_model(family, dtype):
    backbone, config, size = built(family, dtype)
    positions = backbone.position_ids(300, None, size)
    measured = peak(lambda: backbone.trunk(torch.zeros(2, 300, backbone.hidden_dim, dtype=dtype), positions))
    predicted = activations.trunk_of(config).bytes(600, dtype.itemsize)
    assert measured == pytest.approx(predicted, rel=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_term_of_the_vision_tower_can_be_dropped(family):
    """Each number of `Vision` that is not 0 changes the prediction by more than the tolerance in a dtype."""
    config, size = mid_bases.config(family)
    vision = activations.vision_of(config, size)
    small = {"head"}  # cos and sin; and whether queries are rotated at all
    for field in dataclasses.fields(vision):
        if not getattr(vision, field.name) or field.name in small | {"visual_tokens"}:
            continue
        without = dataclasses.replace(vision, **{field.name: 0})
        changes = [abs(1 - without.bytes(1, size) / vision.bytes(1, size)) for size in (2, 4)]
        assert max(changes) > TOLERANCE, field.name


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """family, precision -> the model and its config."""
    folders = {family: mid_bases.write(tmp_path_factory.mktemp(family), family) for family in ("llava", "qwen3_vl")}

    def load(family: str, precision: str):
        config, size = mid_bases.config(family)
        options = {} if family == "llava" else {"image_size": size}
        name = f"local-dir:{folders[family]}"
        return vladva_clip.create_model(name, precision=precision, **options)[0], config, size

    return load


@pytest.mark.parametrize(
    ("family", "precision"),
    [
        *(("llava", "fp32"), ("llava", "bf16"), ("qwen3_vl", "bf16")),
        pytest.param("qwen3_vl", "fp32", marks=pytest.mark.wide),
    ],
)
def test_a_batch_of_images(models, monkeypatch, family, precision):
    """More images than one micro-batch, from the caller's tensor to the features."""
    monkeypatch.setattr(fit, "BATCH", 20)
    monkeypatch.setitem(fit.MICRO_BATCH_TOKENS, "cpu", 1500)
    model, config, size = models(family, precision)
    model.visual.micro_batch_tokens = 1500
    predicted = fit.working_bytes(config, size, fit.ITEMSIZE[precision], "cpu")
    measured = peak(lambda: model.encode_image(torch.zeros(20, 3, size, size)))
    assert measured == pytest.approx(predicted, rel=0.05)
    assert fit.input_bytes(size, fit.ITEMSIZE[precision], "cpu") > 0.1 * predicted  # so that dropping it would be seen


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_a_batch_of_texts(models, family):
    model, config, _ = models(family, "bf16")
    tokens = model.text.prompts.eot_token_id * torch.ones(12, 40, dtype=torch.long)
    tokens[:, :32] = 70
    length = model.text.prompts.text_length(32)
    predicted = activations.trunk_of(config).bytes(12 * length, 2)
    # ids, masks and the soft prompt's vectors are not counted, which is more of a few short rows than of a batch
    assert peak(lambda: model.encode_text(tokens)) == pytest.approx(predicted, rel=0.2)


def test_a_family_that_is_not_known():
    assert activations.vision_of({"model_type": "strange"}, 448) is None
    assert fit.working_bytes({"model_type": "strange", **_SMALL}, 448, 2, "cpu") is None


_SMALL = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 1}
