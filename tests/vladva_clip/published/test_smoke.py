"""One picture and two captions with two profiles: the quick part of `test_features`."""

import pytest
import torch

from tests.support.published import samples
from tests.support.published.ours import Ours

CAPTIONS = ["\na dog.  ", "a cat"]


@pytest.mark.parametrize("name", ["ops-mm-2b", "unite-2b"])
def test_features_equal_the_authors(shelf, name):
    way, ours = shelf.authors(name), Ours(name, cache_dir=shelf.cache_dir)
    expected = way.features(way.text_inputs(CAPTIONS)), way.features(way.image_inputs([samples.picture(448)]))
    for found, exact in zip((ours.text(CAPTIONS), ours.images([samples.picture(448)])), expected, strict=True):
        torch.testing.assert_close(found, exact, atol=1e-5, rtol=0)
