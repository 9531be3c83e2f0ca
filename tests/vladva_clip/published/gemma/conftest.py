"""EmbeddingGemma 2 in a hand-made Hub cache, with a small tokenizer of its kind; skipped before transformers 5.19."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gemma(tmp_path_factory):
    """The cache, with its repository."""
    pytest.importorskip("transformers", minversion="5.19")
    from tests.support.published.gemma_repository import GemmaShelf

    shelf = GemmaShelf(tmp_path_factory.mktemp("published_gemma"))
    shelf.directory()
    return shelf


@pytest.fixture(scope="session")
def way(gemma):
    """The authors' way over it."""
    from tests.support.published.gemma_authors import GemmaAuthors

    return GemmaAuthors(gemma.directory())


@pytest.fixture
def copy(gemma, tmp_path) -> Path:
    """A copy of the repository's files, which a test may change."""
    return Path(shutil.copytree(gemma.directory(), tmp_path / "base"))
