"""Published embedders through open_clip and clip_benchmark, by short name and Hub id, as by `create_model`."""

import clip_benchmark.models
import open_clip
import pytest
import torch

from tests.support.published import samples
from tests.support.published.ours import Ours, profile

NAME, TAG = "rzenembed", "retrieval"
CAPTIONS = ["a dog.", "\ntwo  cats "]
pytestmark = pytest.mark.wide


@pytest.fixture(scope="module")
def expected(shelf):
    shelf.directory(NAME)
    ours = Ours(NAME, TAG, cache_dir=str(shelf.cache_dir))
    return ours.images([samples.picture(448)]), ours.text(CAPTIONS)


def features(model, preprocess, tokenizer):
    with torch.no_grad():
        images = model.encode_image(preprocess(samples.picture(448))[None], normalize=True)
        return images, model.encode_text(tokenizer(CAPTIONS), normalize=True)


@pytest.mark.parametrize("name", [NAME, f"hf-hub:{profile(NAME)['repository']}"])
def test_open_clip(shelf, expected, name):
    """open_clip's tokenizer knows no tags: the model of the tag reads the ids of the default one."""
    options = {"cache_dir": str(shelf.cache_dir)}
    model, _, preprocess = open_clip.create_model_and_transforms(name, TAG, precision="fp32", **options)
    found = features(model, preprocess, open_clip.get_tokenizer(name, **options))
    assert all(map(torch.equal, found, expected))
    assert open_clip.get_model_config(name)["embed_dim"] == 3584
    assert (NAME, TAG) in open_clip.list_pretrained()


def test_clip_benchmark(shelf, expected):
    model, preprocess, tokenizer = clip_benchmark.models.load_clip("vladva", NAME, TAG, str(shelf.cache_dir), "cpu")
    found = features(model.float(), preprocess, tokenizer)
    for one, other in zip(found, expected, strict=True):
        assert torch.nn.functional.cosine_similarity(one, other).min() > 0.99  # bf16, rounded once
