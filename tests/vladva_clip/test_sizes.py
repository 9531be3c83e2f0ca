"""The published sizes, built without memory on the meta device from the registry's shapes."""

from functools import cache

import pytest
import torch

from tests.support.models import llama
from vladva_clip import factory
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.prompts import Prompts
from vladva_clip.sources import registry

NAMES = ["vladva-7b", "vladva-13b", "vladva-2b"]


@cache
def backbone(name: str):
    config = registry.architecture(name)
    return backbone_class(config["model_type"]).from_config(config, torch.bfloat16)


@pytest.mark.parametrize(("name", "billions"), list(zip(NAMES, [7.06, 13.35, 2.21], strict=True)))
def test_parameter_counts_are_the_published_ones(name, billions):
    parameters = sum(parameter.numel() for parameter in backbone(name).parameters())
    assert round(parameters / 1e9, 2) == billions


@pytest.mark.parametrize(("name", "width"), list(zip(NAMES, [4096, 5120, 1536], strict=True)))
def test_widths(name, width):
    assert backbone(name).embed_dim == width
    assert factory.get_model_config(name)["embed_dim"] == width


@pytest.mark.parametrize(("name", "size", "tokens"), list(zip(NAMES, [336, 336, 448], [576, 576, 256], strict=True)))
def test_visual_tokens(name, size, tokens):
    assert factory.get_model_config(name)["vision_cfg"]["image_size"] == size
    assert backbone(name).num_visual_tokens(size) == tokens
    with torch.device("meta"):
        images = torch.empty(2, 3, size, size, dtype=torch.bfloat16)
    if backbone(name).family == "llava":  # Qwen2-VL's tower reads its grid's values, which meta tensors lack
        assert backbone(name).visual_tokens(images).shape == (2, tokens, backbone(name).embed_dim)
    else:
        patches = backbone(name).patches(images)
        assert patches.shape == (2 * 4 * tokens, 3 * 2 * 14 * 14)


@pytest.mark.parametrize(
    ("name", "depth", "vocabulary"),
    [(*pair, 32064) for pair in (("vladva-7b", 32), ("vladva-13b", 40))] + [("vladva-2b", 28, 151936)],
)
def test_trunk_and_head(name, depth, vocabulary):
    """The trunk as deep as published; the head, which no embedding uses, as wide as the vocabulary."""
    with torch.device("meta"):
        hidden_states = torch.empty(2, 30, backbone(name).embed_dim, dtype=torch.bfloat16)
    assert len(backbone(name).trunk_module.layers) == depth
    assert backbone(name).head(hidden_states).shape == (2, 30, vocabulary)
    assert backbone(name).vocab_size == vocabulary


def test_llava_sequence_with_the_real_llama_tokenizer(shared_data, tmp_path):
    """576 slots between the prompt and the role word; ids as the processor renders the prompt."""
    tokenizer = llama.llava_tokenizer(shared_data, tmp_path)
    family = type(backbone("vladva-7b"))
    config = family.prompt_config()
    prompts = Prompts.build(tokenizer, config, family.visual_span, family.starts_with_bos)
    row = prompts.image_row(576)
    assert row == tokenizer(config.rendered("image").replace("{visual}", "<image>" * 576)).input_ids
    start = row.index(32000)
    assert (row[0], row.count(32000), row[start : start + 576]) == (1, 576, [32000] * 576)
    pieces = tokenizer.convert_ids_to_tokens(row)
    assert pieces[:5] == ["<s>", "▁US", "ER", ":", "▁Sum"]
    assert pieces[start - 2 : start] == [":", "▁"] and pieces[start + 576 :] == ["▁A", "SS", "IST", "ANT", ":"]
