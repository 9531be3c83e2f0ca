"""Captions that begin alike, embedded in groups, equal the same captions embedded one row at a time."""

import random

import pytest
import torch

import vladva_clip
from vladva_clip.zero_shot import shared_prefix
from vladva_clip.zero_shot.shared_prefix import Group, encode_in_groups, groups


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(shared_prefix, "MIN_ROWS", 2)


@pytest.fixture(scope="module")
def exact(base):
    """A float64 model with a trained soft prompt, of each family in turn."""
    model, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    weight = model.text.soft_prompt.weight
    with torch.no_grad():
        weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    return model.double()


def captions_of(tokenizer, texts) -> list[tuple[int, ...]]:
    return [tuple(ids) for ids in tokenizer.ids(texts)]


def embedded(model, captions) -> torch.Tensor:
    found = torch.full((len(captions), model.embed_dim), torch.nan, dtype=torch.float64)
    with model.evaluating():
        for rows, features in encode_in_groups(model.text, captions):
            assert features.dtype == torch.float64
            assert found[rows].isnan().all()  # each caption comes once
            found[rows] = features
    return found


def one_by_one(model, captions) -> torch.Tensor:
    eot = model.text.prompts.eot_token_id
    with torch.no_grad():
        return torch.cat([model.text(torch.tensor([[*ids, eot]])) for ids in captions])


@pytest.mark.parametrize("minimum", [2, 5, 20])
def test_groups_part_the_captions_and_share_what_they_say(minimum, monkeypatch):
    monkeypatch.setattr(shared_prefix, "MIN_ROWS", minimum)
    draw = random.Random(minimum)
    captions = list({tuple(draw.choices(range(3), k=draw.randrange(7))) for _ in range(400)})
    found = groups(captions)
    assert sorted(row for group in found for row in group.rows) == list(range(len(captions)))
    for group in found:
        assert len({captions[row][: group.length] for row in group.rows}) == 1
    assert sum(len(group.rows) < minimum for group in found) <= 1 < len(found)
    assert any(group.length >= 2 for group in found)


def test_groups_go_as_deep_as_enough_rows_go_together(monkeypatch):
    monkeypatch.setattr(shared_prefix, "MIN_ROWS", 3)
    photo = [(1, 2, 3, n) for n in (7, 8, 9)]
    alone, other = (1, 2, 4), (5,)
    assert groups([*photo, alone, other]) == [Group(3, [0, 1, 2]), Group(0, [3, 4])]
    assert groups([*photo, alone, (1, 2), (1, 2, 5)]) == [Group(3, [0, 1, 2]), Group(2, [4, 3, 5])]
    assert groups([]) == [] and groups([(1, 2)]) == [Group(2, [0])]


def test_a_long_ladder_of_captions_needs_no_deep_recursion(small_groups):
    captions = [(1,) * length for length in range(1, 3000)]
    assert sum(len(group.rows) for group in groups(captions)) == 2999


@pytest.mark.filterwarnings("error:.*past_key_values")  # transformers' old name of the cache
def test_features_are_those_of_single_rows(exact, tokenizer, small_groups):
    """Forks at several depths, an empty caption, one that another begins with, and one that goes on like the prompt."""
    nouns = ["dog", "red circle", "red square", "large green square above the cat", ""]
    texts = [template.format(noun) for template in ("a small {}", "a {}", "the {}.", "{}") for noun in nouns]
    texts += ["a dog\nSummarize the provided text in one word:", "a dog\nSummarize the provided text"]
    captions = list(dict.fromkeys(captions_of(tokenizer, texts)))
    assert len({group.length for group in groups(captions)}) > 3
    torch.testing.assert_close(embedded(exact, captions), one_by_one(exact, captions), rtol=0, atol=1e-10)


def test_captions_that_share_nothing(exact, tokenizer, small_groups):
    captions = captions_of(tokenizer, ["dog", "red", "large"])
    torch.testing.assert_close(embedded(exact, captions), one_by_one(exact, captions), rtol=0, atol=1e-10)


def test_fewer_tokens_run_in_batches_within_the_bound(exact, tokenizer, monkeypatch):
    """Micro-batches keep to their bound, a beginning runs once, and a batch leaves its cache as it was."""
    monkeypatch.setattr(shared_prefix, "MIN_ROWS", 16)
    captions = captions_of(
        tokenizer, [f"a small {colour} dog on the {n}" for colour in ("red", "blue") for n in range(20)]
    )
    trunk, calls = exact.text.backbone.trunk, []

    def counting(embeddings, positions, cache):
        before = cache.get_seq_length()
        calls.append((embeddings.shape[0] * embeddings.shape[1], before))
        assert positions.shape[-1] == embeddings.shape[1] and int(positions.min()) == before
        return trunk(embeddings, positions, cache)

    monkeypatch.setattr(exact.text.backbone, "trunk", counting)
    monkeypatch.setattr(exact.text, "_micro_batch_tokens", 60)
    found = embedded(exact, captions)
    prefixes = [tokens for tokens, before in calls if before == 0]
    batches = [tokens for tokens, before in calls if before > 0]
    assert len(prefixes) == len({before for _, before in calls if before > 0})  # those of a length run together
    assert len(batches) >= 3 and max(prefixes + batches) <= 60
    whole = sum(exact.text.prompts.text_length(len(ids)) for ids in captions)
    assert sum(prefixes) + sum(batches) < 0.8 * whole
    monkeypatch.undo()
    torch.testing.assert_close(found, one_by_one(exact, captions), rtol=0, atol=1e-10)
