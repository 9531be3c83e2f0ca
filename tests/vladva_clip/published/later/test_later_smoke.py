"""One picture and two captions: the quick part of `test_later_features`."""

import pytest
import torch

from tests.support.published import later_authors, samples
from tests.support.published.ours import Ours

CAPTIONS = ["\na dog.  ", "a cat"]


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        pytest.param("gve-7b", "default", marks=pytest.mark.wide),
        ("qwen3-vl-embedding-8b", "retrieval"),
    ],
)
def test_features_equal_the_authors(later, name, tag):
    way = later_authors.of(name, later.directory(name))
    ours = Ours(name, tag, image_size=448, cache_dir=later.cache_dir)
    pictures = [samples.picture(448)]
    expected = way.features(way.text_inputs(CAPTIONS, tag == "retrieval")), way.features(way.image_inputs(pictures))
    for found, exact in zip((ours.text(CAPTIONS), ours.images(pictures)), expected, strict=True):
        torch.testing.assert_close(found, exact, atol=1e-5, rtol=0)
