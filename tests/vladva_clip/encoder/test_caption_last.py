"""Text templates that end with their caption, or with line breaks behind it: the caption's last token is pooled."""

import pytest
import torch

import vladva_clip
from tests.support.models import embedders
from tests.support.published_templates import TEXTS, config_of, prompts_of, rows_of, whole
from vladva_clip.zero_shot.shared_prefix import encode_in_groups

BARE, QUERY = "{caption}", TEXTS["vlm2vec query"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A model that reads bare captions, and its tokenizer."""
    root = tmp_path_factory.mktemp("bare")
    name = f"local-dir:{embedders.write_qwen(root / 'base')}"
    profile = embedders.write_profile(root / "bare.json", text_template=BARE)
    model, _ = vladva_clip.create_model(name, precision="fp32", profile=profile)
    return model, vladva_clip.get_tokenizer(name, profile=profile)


def states(model: vladva_clip.VladvaCLIP, ids: list[int]) -> torch.Tensor:
    """The normalized state of the last of these tokens, by transformers' own forward."""
    lvlm = model.visual.backbone.lvlm
    last = lvlm.model.language_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    return torch.nn.functional.normalize(last, dim=0)


def test_bare_captions_have_their_own_ids(real_qwen, tokenizer_of, many_captions):
    config = config_of(BARE)
    tokenizer, prompts = tokenizer_of(config), prompts_of(real_qwen, config)
    captions = [caption for caption in many_captions if caption]
    assert prompts.text.ids == prompts.text.soft_ids == ()
    for caption, row in zip(captions, rows_of(prompts, tokenizer.ids(captions)), strict=True):
        assert row == whole(real_qwen, caption), caption
        assert tokenizer.decode(tokenizer.encode(caption)) == caption


def test_a_line_break_behind_a_caption_may_be_in_its_last_token(real_qwen, tokenizer_of):
    config = config_of(QUERY)
    dog, cats, nothing = rows_of(prompts_of(real_qwen, config), tokenizer_of(config).ids(["a dog.", "cats", ""]))
    assert (dog[-2:], cats[-2:], nothing[-2:]) == ([5562, 624], [19423, 198], [25, 715])
    assert len(prompts_of(real_qwen, config).text.suffix) == 0


def test_a_query_is_written_anew_from_bare_ids(real_qwen, tokenizer_of, many_captions):
    """The two tags of a profile share a tokenizer, which writes bare captions."""
    config = config_of(QUERY, tokens_template=BARE)
    rows = rows_of(prompts_of(real_qwen, config), tokenizer_of(config).ids(many_captions))
    for caption, row in zip(many_captions, rows, strict=True):
        assert row == whole(real_qwen, QUERY.replace("{caption}", caption)), caption


@torch.no_grad()
def test_the_feature_is_the_state_of_the_last_token(loaded):
    model, tokenizer = loaded
    captions = [caption for caption in embedders.CAPTIONS if caption]
    together = model.encode_text(tokenizer(captions), normalize=True)
    alone = [states(model, tokenizer.ids(caption)[0]) for caption in captions]
    torch.testing.assert_close(together, torch.stack(alone), atol=2e-6, rtol=0)


@torch.no_grad()
def test_captions_that_begin_alike_share_no_last_token(loaded):
    """One is the beginning of all the others, and its last token must still be run."""
    model, tokenizer = loaded
    captions = sorted({tuple(tokenizer.ids("a dog" + " dog" * count)[0]) for count in range(40)})
    assert all(one[: len(captions[0])] == captions[0] for one in captions)
    parts = list(encode_in_groups(model.text, captions))
    found = {row: one for rows, some in parts for row, one in zip(rows, some, strict=True)}
    for row, ids in enumerate(captions):
        feature = torch.nn.functional.normalize(found[row], dim=0)
        torch.testing.assert_close(feature, states(model, list(ids)), atol=2e-6, rtol=0)


def test_an_empty_caption_is_refused(loaded):
    model, tokenizer = loaded
    with pytest.raises(ValueError, match="a caption is empty.*leave empty captions out"):
        model.encode_text(tokenizer(["a dog", ""]))


@pytest.mark.wide
@torch.no_grad()
def test_a_recorded_text_tower_gives_it_nan(loaded):
    model, tokenizer = loaded
    tokens = tokenizer(["a dog", "", "two  cats"], context_length=8)
    recorded = torch.export.export(model.text, (tokens,), strict=False).module()(tokens)
    assert recorded[1].isnan().all()
    expected = model.encode_text(tokens[[0, 2]])
    torch.testing.assert_close(recorded[[0, 2]], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("caption_ids", ["in_place", "alone"])
def test_only_joined_captions_may_stand_last(real_qwen, caption_ids):
    with pytest.raises(ValueError, match="ends with its hole"):
        prompts_of(real_qwen, config_of("a photo of {caption}", caption_ids=caption_ids))
