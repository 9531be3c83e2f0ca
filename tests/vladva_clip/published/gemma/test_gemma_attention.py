"""Attention both ways: transformers makes the mask of each layer from the padding mask, which a padded row needs."""

import pytest
import torch

import vladva_clip
from tests.support.published.ours import Ours
from vladva_clip.encoder.rows import Rows

NAME = "embeddinggemma-2"
SHORT, LONG = "a dog.", "a wide street with two red buses, parked; and people " * 4
FAR = 1e-3


@pytest.fixture(scope="module")
def ours(gemma):
    return Ours(NAME, image_size=384, cache_dir=gemma.cache_dir)


def rows_of(ours: Ours, captions: list[str]) -> Rows:
    return ours.model.text.rows([torch.tensor(ids, dtype=torch.long) for ids in ours.tokenizer.ids(captions)])


@torch.no_grad()
def normalized(rows: Rows) -> torch.Tensor:
    return torch.nn.functional.normalize(rows.features(), dim=1)


def test_a_longer_neighbor_changes_nothing(ours):
    alone, together = normalized(rows_of(ours, [SHORT])), normalized(rows_of(ours, [SHORT, LONG]))
    torch.testing.assert_close(together[:1], alone, atol=2e-6, rtol=0)


def test_without_the_padding_mask_it_would(ours, monkeypatch):
    """So the test above can fail: both the trunk and the mean need to know what is padding."""
    alone = normalized(rows_of(ours, [SHORT]))
    monkeypatch.setattr(Rows, "_both_ways", lambda rows: torch.ones(rows.layout.input_ids.shape, dtype=torch.bool))
    assert (normalized(rows_of(ours, [SHORT, LONG]))[:1] - alone).abs().max() > FAR
    torch.testing.assert_close(normalized(rows_of(ours, [SHORT])), alone, atol=2e-6, rtol=0)  # nothing is padding


def test_what_lies_in_the_padding_is_not_read(ours):
    rows = rows_of(ours, [SHORT, LONG])
    end = int(rows.layout.summary_index[0]) + 1
    features = normalized(rows)
    rows.embeddings[0, end:] = 100.0
    torch.testing.assert_close(normalized(rows), features, atol=2e-6, rtol=0)


def test_every_token_sees_those_behind_it(ours):
    """The state of the first token changes with the last one's; it would not under causality."""
    rows = rows_of(ours, [SHORT])
    with torch.no_grad():
        before = rows.hidden_states()[0, 0].clone()
        rows.embeddings[0, -2] += 1.0
        assert (rows.hidden_states()[0, 0] - before).abs().max() > FAR


def test_sliding_layers_see_their_window_only(ours):
    """In the first layer, a token reaches as far as the window's radius, 4 here, and no farther."""
    trunk, rows, seen = ours.model.visual.backbone.trunk_module, rows_of(ours, [LONG]), []
    hook = trunk.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    try:
        with torch.no_grad():
            rows.hidden_states()
            rows.embeddings[0, 20] += 1.0
            rows.hidden_states()
    finally:
        hook.remove()
    reached = torch.where((seen[1] - seen[0])[0].abs().max(-1).values > 1e-6)[0].tolist()
    assert (radius := trunk.config.sliding_window) == 4 and reached == list(range(20 - radius, 20 + radius + 1))


def test_a_mask_for_all_layers_alike_would_undo_the_window(ours):
    """transformers takes a mask of four dimensions as it is, for each layer."""
    rows = rows_of(ours, [LONG])
    length = rows.embeddings.shape[1]
    with torch.no_grad():
        whole = torch.zeros(1, 1, length, length)
        other = rows.backbone.trunk(rows.embeddings, rows.position_ids, attention_mask=whole)
        assert (other - rows.hidden_states()).abs().max() > FAR


def test_no_cache(ours):
    backbone, rows = ours.model.visual.backbone, rows_of(ours, [SHORT])
    with pytest.raises(ValueError, match="cache=None"):
        backbone.trunk(rows.embeddings, rows.position_ids, cache=object())
    with pytest.raises(ValueError, match="cache=None"):
        rows.hidden_states(cache=object())


def test_a_classifier_of_many_texts(ours):
    """No beginning is shared, though all of them begin alike."""
    templates, names = (
        [lambda name: f"a photo of a {name}.", lambda name: f"the {name}"],
        ["dog", "cat", "small circle"],
    )
    weights = vladva_clip.build_zero_shot_classifier(ours.model, ours.tokenizer, names, templates, device="cpu")
    by_hand = torch.stack([ours.text([write(name) for write in templates]).mean(0) for name in names])
    expected = torch.nn.functional.normalize(by_hand, dim=1)
    torch.testing.assert_close(weights.T, expected, atol=1e-5, rtol=0)


@pytest.mark.wide
def test_the_text_tower_is_recorded(ours):
    class Texts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = ours.model

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.model.encode_text(tokens)

    tokens = ours.tokenizer([SHORT, "a"])[:, :12]
    program = torch.export.export(Texts(), (tokens,)).module()
    other = ours.tokenizer(["two buses", "a small cat"])[:, :12]
    torch.testing.assert_close(program(other), ours.model.encode_text(other), atol=1e-5, rtol=0)
