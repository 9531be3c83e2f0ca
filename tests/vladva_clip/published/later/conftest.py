"""GVE and Qwen3-VL-Embedding in a hand-made Hub cache, with the real tokenizer; skipped where it is not at hand."""

import pytest


@pytest.fixture(scope="session")
def later(shared_data, tmp_path_factory):
    """The cache; its repositories are written when they are first asked for."""
    from tests.support.published.later_repositories import LaterShelf

    return LaterShelf(tmp_path_factory.mktemp("published_later"), shared_data / "tokenizers" / "qwen2_vl")
