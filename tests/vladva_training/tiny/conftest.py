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
    """(model, processor) of the packaged base, if it is pre-trained on the rows of `vladva_training.tiny.tasks`."""
    from vladva_clip.sources.locate import Source
    from vladva_training.tiny.evaluate import SHIPPED_BASE
    from vladva_training.tiny.model import TEMPLATES, load_base

    if Source(SHIPPED_BASE, "").stated.prompt != TEMPLATES:
        pytest.skip("the packaged base was pre-trained on the rows of an earlier release")
    return load_base(SHIPPED_BASE)
