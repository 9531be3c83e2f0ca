"""Exports of GVE and Qwen3-VL-Embedding: sentence-transformers and this package find the model's features in them."""

import pytest
import torch
from sentence_transformers import SentenceTransformer

import vladva_clip
from tests.support.published import samples
from tests.support.published.later_repositories import NAMES
from tests.support.published.ours import Ours
from vladva_clip.sources import registry

pytestmark = pytest.mark.wide
CAPTIONS = list(samples.CAPTIONS.values())


@pytest.mark.parametrize("name", NAMES)
def test_features_of_captions(later, name, tmp_path):
    """As queries, where the authors have a query instruction."""
    tag = next(iter(registry.find(name).tags))
    later.directory(name)
    ours = Ours(name, tag, cache_dir=later.cache_dir)
    options = {"pretrained": tag, "precision": "fp32", "cache_dir": later.cache_dir}
    place = vladva_clip.export_model(name, tmp_path / "out", **options)
    theirs = SentenceTransformer(str(place), device="cpu").encode(CAPTIONS, convert_to_tensor=True)
    again, _ = vladva_clip.create_model(f"local-dir:{place}", precision="fp32")
    with torch.no_grad():
        own = again.encode_text(vladva_clip.get_tokenizer(f"local-dir:{place}")(CAPTIONS), True)
    for found in (theirs, own):
        torch.testing.assert_close(found, ours.text(CAPTIONS), atol=1e-5, rtol=0)
