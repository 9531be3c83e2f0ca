"""Programs recorded from text towers that don't encode as the recipe does."""

import itertools

import pytest
import torch

import vladva_clip
from tests.support.models import embedders


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return embedders.write_qwen(tmp_path_factory.mktemp("published") / "base")


@pytest.mark.parametrize(
    ("attention", "pooling"), [*itertools.product(("causal", "bidirectional"), ("last", "mean"))][1:]
)
def test_an_exported_text_tower_equals_the_eager_one(base, tmp_path, attention, pooling):
    """For captions and widths that it was not made from: padding is neither seen nor averaged."""
    profile = embedders.write_profile(tmp_path / "own.json", attention=attention, pooling=pooling)
    model, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32", profile=profile)
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{base}", profile=profile)
    sizes = {0: torch.export.Dim("rows", max=4096), 1: torch.export.Dim("width", min=3, max=4096)}
    given = tokenizer(["a red circle", "a dog"], 24)
    program = torch.export.export(model.text, (given,), dynamic_shapes=(sizes,), strict=False).module()
    for captions, width in ((embedders.CAPTIONS, 256), (embedders.CAPTIONS[:3], 40), (["a dog"], 9)):
        tokens = tokenizer(captions, width)
        torch.testing.assert_close(program(tokens), model.encode_text(tokens), rtol=0, atol=1e-5)


def test_a_query_template_that_rewrites_captions_is_refused(base, tmp_path):
    profile = embedders.write_profile(
        tmp_path / "own.json",
        text_template=embedders.CHAT.format("Find it: {caption}"),
    )
    model, _ = vladva_clip.create_model(f"local-dir:{base}", "retrieval", precision="fp32", profile=profile)
    tokens = vladva_clip.get_tokenizer(f"local-dir:{base}", profile=profile)(["a dog"], 16)
    with pytest.raises(ValueError, match="query template.*'default'"):
        torch.export.export(model.text, (tokens,), strict=False)
