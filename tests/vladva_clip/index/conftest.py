"""An index made by hand."""

import pytest

from tests.support.index_rows import KINDS, NAMES, unit_rows
from vladva_clip.index.store import Index


@pytest.fixture
def made_by() -> dict:
    probes = {name: unit_rows(1, 6, seed)[0].tolist() for seed, name in enumerate(("image_probe", "text_probe"))}
    return {"model": "some-model", "pretrained": "a-tag", "precision": None, **probes}


@pytest.fixture
def index(made_by) -> Index:
    return Index(unit_rows(len(NAMES), 6), list(KINDS), list(NAMES), made_by)
