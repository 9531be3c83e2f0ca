"""A published embedder in a folder of its name, and profiles of a user's own."""

import json
import shutil
from pathlib import Path

import pytest

from vladva_clip.sources import profiles


@pytest.fixture(scope="module")
def embedder(bases, tmp_path_factory) -> Path:
    """A tiny Qwen2-VL in a folder with the name of a published embedder."""
    return Path(shutil.copytree(bases["qwen2_vl"], tmp_path_factory.mktemp("gme") / "gme-Qwen2-VL-2B-Instruct"))


@pytest.fixture
def own(tmp_path):
    """Writes a profile of the user's: GME's with some keys at its top changed."""
    gme = profiles.named("gme-qwen2-vl-2b")

    def write(name: str = "own.json", **changes) -> Path:
        data = {"config": gme.config, "tags": gme.tags, **changes}
        (tmp_path / name).write_text(json.dumps(data))
        return tmp_path / name

    return write
