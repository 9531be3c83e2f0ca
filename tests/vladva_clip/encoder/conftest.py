"""The real Qwen tokenizer, opened once for all tests here: it takes seconds."""

import copy
import json

import pytest
from transformers import AutoTokenizer

from tests.support.published_templates import ODD, TEXTS, config_of
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.storage.prompt_config import PromptConfig


@pytest.fixture(scope="session")
def real_qwen(shared_data):
    """transformers' own tokenizer."""
    return AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2_vl")


@pytest.fixture(scope="session")
def tokenizer_of(shared_data):
    """Returns our tokenizer for a config."""
    opened = VladvaTokenizer(shared_data / "tokenizers" / "qwen2_vl", prompt=config_of(TEXTS["gme"]))

    def of(config: PromptConfig) -> VladvaTokenizer:
        tokenizer = copy.copy(opened)
        tokenizer.prompt = config
        return tokenizer

    return of


@pytest.fixture(scope="session")
def many_captions(shared_data) -> list[str]:
    """200 of SugarCrepe, then odd ones."""
    rows = json.loads((shared_data / "data" / "sugarcrepe" / "swap_att.json").read_text()).values()
    found = [row[key] for row in rows for key in ("caption", "negative_caption")][:200]
    assert len(found) == 200
    return found + ODD
