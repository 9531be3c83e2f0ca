"""sentence-transformers loads Qwen3-VL-Embedding's directory and gives our features.

Its files there are in the form in which sentence-transformers itself writes this architecture. That the assistant's
turn is asked for, and the two prompts, are the authors' script's; the published files were not at hand.
"""

import pytest
import torch

from tests.support.published import samples
from tests.support.published.later_repositories import QWEN3
from tests.support.published.ours import Ours

pytestmark = pytest.mark.wide
CAPTIONS = list(samples.CAPTIONS.values())


@pytest.fixture(scope="module", params=QWEN3)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def theirs(later, name):
    library = pytest.importorskip("sentence_transformers", minversion="5.4")
    directory = str(later.directory(name))
    return library.SentenceTransformer(directory, device="cpu", model_kwargs={"dtype": "float32"})


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_its_modules_are_read(theirs):
    assert [type(module).__name__ for module in theirs] == ["Transformer", "Pooling", "Normalize"]
    assert theirs.supports("image") and theirs.default_prompt_name == "document"


@pytest.mark.parametrize("tag", ["default", "retrieval"])
def test_features_of_captions(theirs, later, name, tag):
    ours = Ours(name, tag, cache_dir=later.cache_dir)
    encode = theirs.encode_query if tag == "retrieval" else theirs.encode
    close(ours.text(CAPTIONS), encode(CAPTIONS, convert_to_tensor=True))
    each = torch.cat([encode([caption], convert_to_tensor=True) for caption in CAPTIONS])
    close(ours.text(CAPTIONS), each)


@pytest.mark.parametrize("side", [64, 512])
def test_features_of_pictures(theirs, later, name, side):
    ours, pictures = Ours(name, image_size=side, cache_dir=later.cache_dir), [samples.picture(side, 1)]
    close(ours.images(pictures), theirs.encode(pictures, convert_to_tensor=True))


def test_the_prompt_decides(theirs, later, name):
    ours = Ours(name, cache_dir=later.cache_dir)
    other = theirs.encode(["a dog."], prompt="You are a helpful assistant.", convert_to_tensor=True)
    assert (ours.text(["a dog."]) - other).abs().max() > 1e-3
