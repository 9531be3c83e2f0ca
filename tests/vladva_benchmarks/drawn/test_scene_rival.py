"""The rival: as large as vladva-tiny, fed with the same batches, trained by open_clip's own loss."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from open_clip import ClipLoss
from torch.nn.functional import cross_entropy

import vladva_clip
from vladva_benchmarks.drawn.scene_evaluation import evaluate_worlds
from vladva_benchmarks.drawn.scene_rival import (
    END,
    OPTIM,
    START,
    TEXT,
    RivalTokenizer,
    build_rival,
    contrastive_loss,
    rival_encoder,
    rows,
    scene_batches,
    train_rival,
)
from vladva_benchmarks.drawn.scene_tasks import World
from vladva_clip.scenes import FAMILY_SIZE, SPLITS, facts, foils, scene, scenes, short_captions, short_sayings, triples

SPECS = ("scenes:train:400",)


def known_pairs(batch) -> torch.Tensor:
    """`(B, B)` bool, `[i, j]` where caption j is true of scene i, by the scenes' sayings."""
    numbers = [key.rsplit("/", 1) for key in batch.keys]
    drawn = [scene("train", int(number), "varied" if "varied" in shelf else "classic") for shelf, number in numbers]
    claims = {saying.text: saying.claims for one in drawn for saying in short_sayings(one)}
    return torch.tensor([[claims[text] <= facts(one) for text in batch.short_texts] for one in drawn])


@pytest.fixture(scope="module")
def batches():
    return list(islice(scene_batches(seed=0, batch_size=8, specs=SPECS), 3))


def number_of(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_it_is_as_large_as_vladva_tiny():
    tiny, _ = vladva_clip.create_model("vladva-tiny", "base")
    assert 1 <= number_of(build_rival(0)) / number_of(tiny) < 1.03


def test_a_row_is_start_ids_end_and_zeros():
    tokenizer = RivalTokenizer()
    row = tokenizer(["a red circle"])[0].tolist()
    ids = tokenizer.tokenizer.encode("a red circle")
    assert row == [START, *ids, END] + [0] * (TEXT.context_length - 2 - len(ids))
    assert rows([range(40)])[0].tolist() == [START, *range(30), END]
    assert max(tokenizer.tokenizer.tokenizer.get_vocab().values()) < START


def test_every_caption_that_is_asked_about_fits():
    texts = set()
    for one in (one for split in SPLITS for one in scenes(split, 0, 100)):
        texts |= {*short_captions(one), *(text for pair in foils(one).values() for text in pair)}
        texts |= {text for triple in triples(one).values() for text in triple}
    assert max(map(len, RivalTokenizer().tokenizer.ids(sorted(texts)))) <= TEXT.context_length - 2


def test_its_batches_hold_whole_families_and_depend_on_the_seed_alone(batches):
    numbers = [[int(key.split("/")[1]) // FAMILY_SIZE for key in batch.keys] for batch in batches]
    assert all(batch.count(number) == FAMILY_SIZE for batch in numbers for number in batch)
    again = next(iter(scene_batches(seed=0, batch_size=8, specs=SPECS)))
    assert again.keys == batches[0].keys and torch.equal(again.images, batches[0].images)
    assert again.short_texts == batches[0].short_texts
    assert next(iter(scene_batches(seed=1, batch_size=8, specs=SPECS))).keys != batches[0].keys


def test_its_loss_is_open_clips_where_no_caption_is_true_of_another_picture(batches):
    model, batch = build_rival(0), batches[0]
    assert not (known_pairs(batch) & ~torch.eye(len(batch), dtype=torch.bool)).any()
    tokens = RivalTokenizer()(list(batch.short_texts))
    torch.testing.assert_close(contrastive_loss(model, batch), ClipLoss()(*model(batch.images, tokens)))


def test_captions_that_are_true_of_another_picture_are_no_negatives_of_it():
    (batch,) = islice(scene_batches(0, 16, ["scenes:train:16:varied"]), 1)
    model, same = build_rival(0), known_pairs(batch)
    assert (same & ~torch.eye(len(batch), dtype=torch.bool)).any()
    images, texts, scale = model(batch.images, RivalTokenizer()(list(batch.short_texts)))
    logits = (scale * images @ texts.T).masked_fill(same & ~torch.eye(len(batch), dtype=torch.bool), float("-inf"))
    own = torch.arange(len(batch))
    expected = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(contrastive_loss(model, batch), expected)


def test_the_same_seed_gives_the_same_rival_and_moves_no_generator(batches):
    state = torch.get_rng_state()
    first, again, other = (train_rival(batches, 2, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


def test_it_learns(batches):
    losses = []
    optim = replace(OPTIM, learning_rate=3e-4)
    train_rival(batches[:1] * 10, 10, optim=optim, on_step=lambda step, loss: losses.append(loss))
    assert losses[-1] < losses[0] - 0.3


def test_too_few_batches_and_images_without_a_short_caption_are_refused(batches):
    with pytest.raises(ValueError, match="end after 1 of 2 steps"):
        train_rival(batches[:1], 2)
    with pytest.raises(ValueError, match="8 images have no short caption, such as train/"):
        train_rival([replace(batches[0], short=(None,) * 8)], 1)


def test_its_encoder_answers_the_scene_figures():
    figures = evaluate_worlds(rival_encoder(build_rival(0)), [World("heldout")], 4)["heldout"]
    assert all(0 <= score <= 1 for scores in figures.values() for score in scores.values())
