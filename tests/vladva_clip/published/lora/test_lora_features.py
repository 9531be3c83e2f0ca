"""A published LoRA's ids and features equal those of PEFT's own model over transformers' class, with every tag."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from tests.support.published import samples
from tests.support.published.lora_repositories import LORAS, NAME, PROJECTIONS
from tests.support.published.ours import Ours, profile
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources import bases

CAPTIONS = [caption for caption in samples.CAPTIONS.values() if caption]  # the authors have no row for an empty one
PROMPT = [198, 65743, 279, 2661, 2168, 624]  # "\nRepresent the given image.\n"
QUERY = [9885, 752, 458, 17778, 2168, 429, 9071, 279, 2661, 17256, 25, 264, 5562, 624]

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module", params=LORAS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def way(loras, kind):
    return loras.authors(kind)


@pytest.fixture(scope="module", params=["default", "retrieval"])
def tag(request):
    return request.param


@pytest.fixture(scope="module")
def ours(loras, kind, tag):
    if kind == "published":
        return Ours(NAME, tag, cache_dir=loras.cache_dir)
    return Ours(f"local-dir:{loras.directory(kind)}", tag, profile=NAME, cache_dir=loras.cache_dir)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_lora_is_felt(loras, kind, way):
    """And nothing of it is left out by the reference."""
    bare = Ours(f"local-dir:{loras.base}", profile=NAME)
    assert (bare.text(CAPTIONS) - way.features(way.text_inputs(CAPTIONS))).abs().max() > 1e-3


def test_ids_are_those_counted_by_hand(ours, way, tag):
    assert ours.text_ids("a dog.") == ([64, 5562, 13] if tag == "default" else QUERY)
    assert ours.image_ids(samples.picture(448)) == [*[151655] * 256, *PROMPT]


def test_captions(ours, way, tag):
    query = tag == "retrieval"
    for caption in CAPTIONS:
        assert [ours.text_ids(caption)] == way.ids(way.text_inputs([caption], query))
    alone = [way.features(way.text_inputs([caption], query)) for caption in CAPTIONS]
    close(ours.text(CAPTIONS), torch.cat(alone))
    close(torch.cat([ours.text([caption]) for caption in CAPTIONS]), torch.cat(alone))
    close(ours.text(CAPTIONS * 2), way.features(way.text_inputs(CAPTIONS * 2, query)))  # 22: the beginning is shared


def test_pictures(ours, way):
    pictures = [samples.picture(448, seed) for seed in range(3)]
    assert [ours.image_ids(pictures[0])] == way.ids(way.image_inputs(pictures[:1]))
    close(ours.images(pictures), way.features(way.image_inputs(pictures)))
    close(ours.images(pictures[:1]), way.features(way.image_inputs(pictures[:1])))


@pytest.mark.parametrize("side", [56, 980])
def test_no_picture_of_these_sizes_is_resized(way, kind, side):
    if kind == "published":
        assert way.image_inputs([samples.picture(side)])["image_grid_thw"].tolist() == [[1, side // 14, side // 14]]


def test_ids_of_strange_captions(ours, way, kind, tag):
    if kind != "published":
        return
    captions = [caption for caption in samples.strange_captions(2000) if caption]
    expected = way.ids_of_texts(captions, tag == "retrieval")
    rows = ours.model.text.rows([torch.tensor(ids, dtype=torch.long) for ids in ours.tokenizer.ids(captions)])
    ends = (rows.layout.summary_index + 1).tolist()
    found = [row[:end] for row, end in zip(rows.layout.input_ids.tolist(), ends, strict=True)]
    wrong = [caption for caption, one, other in zip(captions, found, expected, strict=True) if one != other]
    assert wrong == []


def test_parameters_are_counted_as_published():
    """Of the published shapes on the meta device: the merged model, and the adapter as its authors trained it."""
    data = profile(NAME)
    backbone = backbone_class("qwen2_vl").from_config(bases.find(data["base"]).config, torch.bfloat16)
    assert backbone.embed_dim == data["config"]["embed_dim"] and backbone.num_visual_tokens(448) == 256
    assert sum(parameter.numel() for parameter in backbone.lvlm.parameters()) == data["num_parameters"]
    settings = LoraConfig(r=16, lora_alpha=64, use_dora=True, target_modules=PROJECTIONS.split())
    inject_adapter_in_model(settings, backbone.lvlm, low_cpu_mem_usage=True)
    added = {name: one.numel() for name, one in backbone.lvlm.named_parameters() if "lora_" in name}
    assert sum(added.values()) == data["adapter"]["num_parameters"]
    assert all(name.startswith("model.language_model.layers.") for name in added)
