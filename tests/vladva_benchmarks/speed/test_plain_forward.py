"""The plain forward gives the features of our own, family by family."""

import pytest
import torch

import vladva_clip
from tests.support.published.ours import Ours
from tests.support.published.samples import CAPTIONS
from vladva_benchmarks.speed.plain_forward import plain_image, plain_text
from vladva_benchmarks.speed.throughput import check_equal
from vladva_clip.scenes import scenes


def test_both_ways_give_the_same_features(model, tokenizer):
    tokens = tokenizer(["a red circle", "a blue square left of the small dog on the large cat", "a dog"])
    check_equal(model.encode_text(tokens), plain_text(model, tokens))


@pytest.mark.parametrize("family", ["llava", "idefics3"])
def test_images_too(bases, family):
    model, _ = vladva_clip.create_model(f"local-dir:{bases[family]}", precision="fp32")
    images = torch.randn(3, 3, *model.visual.image_size)
    check_equal(model.encode_image(images), plain_image(model, images))


def test_a_trained_soft_prompt_and_adapter_are_in_both():
    model, preprocess = vladva_clip.create_model("vladva-tiny")  # its default tag has both
    tokens = vladva_clip.get_tokenizer("vladva-tiny")(["a red circle", "a blue square left of a green star"])
    images = torch.stack([preprocess(scene.draw()) for scene in scenes("test", 0, 2)])
    check_equal(model.encode_text(tokens), plain_text(model, tokens))
    check_equal(model.encode_image(images), plain_image(model, images))


def test_an_llm_that_attends_both_ways(tmp_path):
    """Its states are projected and averaged; a longer neighbor stands beside a short caption."""
    pytest.importorskip("transformers", minversion="5.19")
    from tests.support.published.gemma_repository import GemmaShelf

    (shelf := GemmaShelf(tmp_path)).directory()
    ours = Ours("embeddinggemma-2", image_size=96, cache_dir=shelf.cache_dir)
    tokens, images = ours.tokenizer(["a", CAPTIONS["long"]]), torch.rand(2, 3, 96, 96)
    check_equal(ours.model.encode_text(tokens), plain_text(ours.model, tokens))
    check_equal(ours.model.encode_image(images), plain_image(ours.model, images))
