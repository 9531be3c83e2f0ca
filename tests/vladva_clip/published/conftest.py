"""Published embedders in a hand-made Hub cache, with the real tokenizer; skipped where it is not at hand."""

import pytest


@pytest.fixture(scope="session")
def shelf(shared_data, tmp_path_factory):
    """The cache; its repositories are written when they are first asked for."""
    from tests.support.published.shelf import Shelf

    return Shelf(tmp_path_factory.mktemp("published"), shared_data / "tokenizers" / "qwen2_vl")
