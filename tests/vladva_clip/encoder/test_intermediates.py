"""open_clip's `forward_intermediates` is refused by name, and what docs/api.md shows instead gives the model's own."""

import re
from pathlib import Path

import pytest
import torch

import vladva_clip

DOCS = Path(__file__).parents[3] / "docs/api.md"


def test_it_is_refused_on_the_model_and_on_both_towers():
    model, _ = vladva_clip.create_model("vladva-tiny", load_weights=False)
    for part in (model, model.visual, model.text):
        for kind in (NotImplementedError, ValueError):
            with pytest.raises(kind, match="forward_intermediates is not offered.*output_hidden_states"):
                part.forward_intermediates(torch.zeros(1, 3, 64, 64), indices=2, normalize_intermediates=True)


def test_what_the_document_shows_instead():
    section = DOCS.read_text().partition("## Hidden states of every layer")[2]
    names = {}
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], names)
    model, rows, states = names["model"], names["rows"], names["states"]
    own = rows.hidden_states()
    assert (
        torch.allclose(states[-1], own, atol=1e-6) and len(states) == len(model.visual.backbone.trunk_module.layers) + 1
    )
    assert torch.allclose(rows.pool(states[-1]), model.encode_image(names["images"]), atol=1e-6)
    assert names["visual"].shape == (1, model.visual.num_visual_tokens, own.shape[-1])
    assert torch.equal(states[0], rows.embeddings)
