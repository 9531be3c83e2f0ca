"""Rows: visual tokens are counted, columns are cut like the whole row, captions are predicted from the id before."""

import pytest
import torch

from vladva_clip.encoder.rows import Rows, caption_predictions


@pytest.fixture(scope="module")
def captions(model):
    return [torch.arange(60, 60 + length) for length in (4, 9, 2)]


def test_visual_tokens_of_another_number_of_images_are_refused_with_both_counts(model):
    visual, backbone = model.visual, model.visual.backbone
    tokens = backbone.visual_tokens(torch.zeros(1, 3, *visual.image_size))
    layout = visual.prompts.image_batch(2, visual.num_visual_tokens)
    count = visual.num_visual_tokens
    with pytest.raises(ValueError, match=f"{count} visual tokens for {2 * count} slots"):
        Rows.of_images(backbone, layout, visual.soft_prompt, tokens, visual.image_size[0])


def test_columns_are_those_of_the_whole_rows(model, captions):
    whole = model.text.rows(captions)
    length = whole.embeddings.shape[1]
    part = whole.columns(3, 7)
    for found, expected in (
        (part.embeddings, whole.embeddings[:, 3:7]),
        (part.layout.input_ids, whole.layout.input_ids[:, 3:7]),
        (part.layout.soft_mask, whole.layout.soft_mask[:, 3:7]),
        (part.position_ids, whole.position_ids[..., 3:7]),
        (whole.columns(3).layout.summary_index, whole.layout.summary_index - 3),
    ):
        assert torch.equal(found, expected)
    assert whole.columns(0).embeddings.shape[1] == whole.columns(0, length).embeddings.shape[1] == length


def test_columns_of_image_rows_are_refused(model):
    with pytest.raises(AssertionError, match="visual"):
        model.visual.rows(torch.zeros(1, 3, *model.visual.image_size)).columns(1)


def test_a_caption_is_predicted_from_the_summary_token_on():
    states = torch.arange(3 * 8 * 2.0).reshape(3, 8, 2)
    found, labels = caption_predictions(states, [torch.tensor([7, 8, 9]), None, torch.tensor([5])], first=4)
    assert torch.equal(found, torch.stack([states[0, 4], states[0, 5], states[0, 6], states[2, 4]]))
    assert labels.tolist() == [7, 8, 9, 5]
    found, labels = caption_predictions(states, [None, None, None], first=4)
    assert found.shape == (0, 2) and labels.shape == (0,) and labels.dtype == torch.long
