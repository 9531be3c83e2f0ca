"""sentence-transformers loads the repository's directory, with its files as it writes them, and gives our features."""

import pytest
import torch

from tests.support.published import samples
from tests.support.published.ours import Ours, profile

pytestmark = pytest.mark.wide
NAME = "embeddinggemma-2"
CAPTIONS = list(samples.CAPTIONS.values())


@pytest.fixture(scope="module")
def theirs(gemma):
    library = pytest.importorskip("sentence_transformers", minversion="6.1")
    options = {"model_kwargs": {"dtype": "float32"}, "device": "cpu"}
    return library.SentenceTransformer(str(gemma.directory()), **options)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_its_modules_are_read(theirs):
    assert [type(module).__name__ for module in theirs] == ["Transformer", "Pooling", "Normalize"]
    assert theirs.supports("image")


@pytest.mark.parametrize("tag", profile(NAME)["tags"])
def test_features_of_captions(theirs, gemma, tag):
    from tests.support.published.gemma_repository import PROMPTS

    ours = Ours(NAME, tag, image_size=384, cache_dir=gemma.cache_dir)
    close(ours.text(CAPTIONS), theirs.encode(CAPTIONS, prompt_name=PROMPTS[tag], convert_to_tensor=True))


def test_features_of_pictures(theirs, gemma):
    ours, pictures = Ours(NAME, cache_dir=gemma.cache_dir), [samples.picture(768, seed) for seed in range(2)]
    each = [theirs.encode([one], convert_to_tensor=True) for one in pictures]  # 6.2 takes a flat list for one row
    close(ours.images(pictures), torch.cat(each))


@pytest.mark.parametrize("width", [8, 24])
def test_cut_features(theirs, gemma, width):
    ours = Ours(NAME, truncate_dim=width, image_size=384, cache_dir=gemma.cache_dir)
    options = {"prompt_name": "Document", "truncate_dim": width, "normalize_embeddings": True}
    close(ours.text(CAPTIONS), theirs.encode(CAPTIONS, convert_to_tensor=True, **options))
