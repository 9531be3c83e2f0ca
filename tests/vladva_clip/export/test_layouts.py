"""Exports of other layouts: either order, either choice of soft slots, the first format; trained slots on any side."""

import shutil
from dataclasses import replace

import pytest
import torch

import vladva_clip
from tests.support import exports
from tests.support.adapters import with_lora
from tests.support.models import layouts
from vladva_clip.encoder.backbones import backbone_class

SAME = 0.99999


def prompt_first(family):
    return backbone_class(family).prompt_config()


def all_soft(family):
    return replace(prompt_first(family), soft_slots="template")


def without_turn(family):
    return replace(prompt_first(family), second_turn=None)


def first_format(family):
    return layouts.FIRST_FORMAT.get(family, layouts.FIRST_FORMAT["qwen2_vl"])  # later families had none


LAYOUTS = [prompt_first, all_soft, without_turn, layouts.content_first, first_format]
SIDES = [("visual", "text"), ("visual",), ("text",), ()]
CASES = [(layout, SIDES[number % len(SIDES)]) for number, layout in enumerate(LAYOUTS)] + [
    (prompt_first, sides) for sides in SIDES[1:]
]


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", pytest.param("qwen2_5_vl", marks=pytest.mark.wide)])
@pytest.mark.parametrize(
    ("layout", "sides"), CASES, ids=[f"{layout.__name__}-{'+'.join(sides)}" for layout, sides in CASES]
)
def test_stock_libraries_compute_our_features_and_texts(family, layout, sides, bases, tmp_path):
    """Soft prompts that moved on both sides, on one or on none."""
    from sentence_transformers import SentenceTransformer

    base = layouts.state(shutil.copytree(bases[family], tmp_path / "base"), layout(family))
    adapter(base, sides, tmp_path / "adapter")
    exported = exports.export(f"local-dir:{tmp_path / 'adapter'}", tmp_path / "out")
    plain, sentences = exports.PlainTransformers(exported.directory), SentenceTransformer(str(exported.directory))
    loaded, _ = vladva_clip.create_model(f"local-dir:{exported.directory}", precision="fp32")
    again = vladva_clip.get_tokenizer(f"local-dir:{exported.directory}")
    images, texts = exported.features()
    for inputs, ours in ((exported.images[:2], images[:2]), (exports.CAPTIONS, texts)):
        assert exports.cosine(plain.features(inputs), ours) > SAME
        assert exports.cosine(sentences.encode(inputs, convert_to_tensor=True), ours) > SAME
    assert exports.cosine(loaded.encode_text(again(exports.CAPTIONS), True), texts) > SAME
    assert loaded.config.prompt.second_turn == layout(family).second_turn


def adapter(base, sides, directory):
    """An adapter with a random LoRA, whose soft prompts moved on some sides."""
    model = with_lora(vladva_clip.create_model(f"local-dir:{base}", precision="fp32")[0])
    fresh = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")[0]
    for side in {"visual", "text"} - {*sides}:
        with torch.no_grad():
            getattr(model, side).soft_prompt.weight.copy_(getattr(fresh, side).soft_prompt.weight)
    model.save_pretrained(directory)
