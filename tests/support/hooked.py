"""Registered names that a test leaves nothing of."""

import contextlib
from collections.abc import Iterator

import open_clip
import pytest

from vladva_clip.integrations import clip_benchmark
from vladva_clip.sources import registry


@contextlib.contextmanager
def scratch_names() -> Iterator[pytest.MonkeyPatch]:
    """Copies of all tables that registering or a first warning writes to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_registered", {})
        patch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
        patch.setattr(open_clip.pretrained, "_PRETRAINED", dict(open_clip.pretrained._PRETRAINED))
        patch.setattr(clip_benchmark, "_warned", set())
        yield patch
