"""VLM2Vec-V2's adapter and its base in a hand-made Hub cache, with the real tokenizer; skipped where it isn't here."""

import pytest


@pytest.fixture(scope="session")
def loras(shared_data, tmp_path_factory):
    """The cache; adapters of other kinds are written when they are first asked for."""
    from tests.support.published.lora_repositories import LoraShelf

    return LoraShelf(tmp_path_factory.mktemp("published_loras"), shared_data / "tokenizers" / "qwen2_vl")
