"""vladva-tiny's own tokenizer and base, in place of those of the random bases."""

import pytest


@pytest.fixture(scope="session")
def tokenizer():
    """The tokenizer, trained anew."""
    from vladva_training.tiny.tasks import all_texts
    from vladva_training.tiny.tokenizer import train_tokenizer

    return train_tokenizer(all_texts())


@pytest.fixture(scope="module")
def base():
    """(model, processor) of the shipped base."""
    from vladva_training.tiny.evaluate import SHIPPED_BASE
    from vladva_training.tiny.model import load_base

    return load_base(SHIPPED_BASE)
