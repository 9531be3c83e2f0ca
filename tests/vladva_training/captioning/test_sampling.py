"""Captions that are sampled: each token from the right distribution, each caption independent of its batch."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.models.tiny_blip2 import write_blip2
from vladva_training.captioning.captioners import open_blip2
from vladva_training.captioning.sampling import OwnDraws

TEMPERATURE, TOP_P = 0.7, 0.8


def nucleus(logits: np.ndarray) -> np.ndarray:
    """Probabilities of a row's tokens by the definition, in float64: the fewest likely ones that reach `TOP_P`."""
    probabilities = np.exp(logits.astype(np.float64) / TEMPERATURE)
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities)
    size = int(np.searchsorted(np.cumsum(probabilities[order]), TOP_P)) + 1
    kept = np.zeros_like(probabilities)
    kept[order[:size]] = probabilities[order[:size]]
    return kept / kept.sum()


def drawn(seeds: list[str], logits: np.ndarray, steps: int = 1) -> np.ndarray:
    """Tokens `(B, steps)` for the same logits in each row and at each step."""
    draws = OwnDraws(seeds, TEMPERATURE, TOP_P)
    rows = torch.tensor(logits).expand(len(seeds), -1)
    scores = [draws(torch.zeros(len(seeds), 1, dtype=torch.long), rows.clone()) for _ in range(steps)]
    for one in scores:
        assert ((one == 0).sum(1) == 1).all() and ((one == -torch.inf).sum(1) == len(logits) - 1).all()
    return torch.stack([one.argmax(1) for one in scores], 1).numpy()


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.4, 12).astype(np.float32)


def test_tokens_come_from_the_nucleus_with_its_probabilities(logits):
    expected, count = nucleus(logits), 20_000
    assert 3 <= (expected > 0).sum() < 12  # else the test would prove little
    found = np.bincount(drawn([f"picture {n}" for n in range(count)], logits)[:, 0], minlength=12)
    assert (found[expected == 0] == 0).all()
    deviation = np.sqrt(count * expected * (1 - expected))
    assert (np.abs(found - count * expected) <= 4 * deviation).all()


def test_a_rows_tokens_follow_from_its_own_seed(logits):
    cumulative, seeds = np.cumsum(nucleus(logits)), [f"line {n}" for n in range(40)]
    found = drawn(seeds, logits, steps=3)
    for seed, tokens in zip(seeds, found, strict=True):
        numbers = random.Random(seed)
        assert tokens.tolist() == [int(np.searchsorted(cumulative, numbers.random(), side="right")) for _ in range(3)]
    assert (drawn(seeds[::-1][:7], logits, steps=3) == found[::-1][:7]).all()


@pytest.fixture(scope="module")
def blip2(tmp_path_factory):
    folder = write_blip2(tmp_path_factory.mktemp("blip2"), seed=3)  # one whose answers depend on the image
    return open_blip2(str(folder), "", "cpu", "fp32", max_new_tokens=9)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((28, 28), Image.Resampling.NEAREST) for one in pixels]


def seeds_of(images, count: int = 3, first: int = 0) -> list[list[str]]:
    return [[f"{image} {draw}" for draw in range(first, first + count)] for image in images]


def test_a_sampled_caption_does_not_depend_on_its_batch(blip2, images):
    together = blip2.sample(images, seeds_of(range(5)), 1.0, 0.9)
    assert len({text for texts in together for text in texts}) > 12  # else the test would prove nothing
    torch.manual_seed(17)  # transformers' own draws would follow this one
    apart = [blip2.sample([image], seeds_of([n]), 1.0, 0.9)[0] for n, image in enumerate(images)]
    assert apart == together
    assert blip2.sample(images[::-1], seeds_of(range(4, -1, -1)), 1.0, 0.9) == together[::-1]
    one_by_one = [blip2.sample(images, seeds_of(range(5), 1, draw), 1.0, 0.9) for draw in range(3)]
    assert [[texts[n][0] for texts in one_by_one] for n in range(5)] == together


def test_captions_follow_the_image_and_the_seed(blip2, images):
    same_seeds = blip2.sample(images, [["x 0", "x 1", "x 0"]] * 5, 1.0, 0.9)
    assert len({texts[0] for texts in same_seeds}) > 1
    assert all(texts[0] == texts[2] != texts[1] for texts in same_seeds)


def test_a_tiny_nucleus_is_greedy_decoding(blip2, images):
    greedy = blip2.caption(images)
    assert all(greedy)
    assert blip2.sample(images, seeds_of(range(5), 2), 1.0, 1e-6) == [[text, text] for text in greedy]
    assert blip2.sample(images, seeds_of(range(5), 1), 1e-4, 1.0) == [[text] for text in greedy]


def test_the_models_own_settings_for_sampling_do_not_count(blip2, images):
    before = blip2.sample(images, seeds_of(range(5)), 1.0, 0.9)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"temperature": 0.1, "top_k": 1, "top_p": 0.1, "do_sample": True}.items():
            patch.setattr(blip2.model.generation_config, name, value)
            patch.setattr(blip2.model.language_model.generation_config, name, value)
        assert blip2.sample(images, seeds_of(range(5)), 1.0, 0.9) == before
