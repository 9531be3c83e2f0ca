"""An LVLM known by its config alone: what is refused before anything is downloaded."""

import pytest

from vladva_training.config import ModelSection
from vladva_training.plan.architecture import find_base


def test_a_published_lora_cannot_be_in_four_bits():
    """Said by the plan, with none of its files here; other embedders can."""
    with pytest.raises(ValueError, match="VLM2Vec-V2.0 is published as an adapter.*expected model.train=lora"):
        find_base(ModelSection(name="vlm2vec-v2", train="qlora"))
    assert find_base(ModelSection(name="gme-qwen2-vl-2b", train="qlora")).trained
