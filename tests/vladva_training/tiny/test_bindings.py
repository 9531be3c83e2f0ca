"""Bindings of scenes and captions, against the scenes' own objects, and the head's loss, against a formula."""

import math
from itertools import permutations, product

import pytest
import torch

from vladva_clip.scenes import SIZES, facts, family, holds, scene, short_sayings
from vladva_training.tiny.bindings import CLASSES, BindingHead, bindings, false_bindings, labels

SCENES = [scene("validation", number * 9, "varied") for number in range(40)]


def own(drawn):
    """The bindings of a scene, from its objects."""
    found = set()
    for one in drawn.objects:
        words = (one.size, one.color, one.shape)
        found |= {("is", words[i], words[j]) for i, j in ((0, 1), (0, 2), (1, 2))}
        found |= {("is", one.place, word) for word in words[1:]}
    for first, second in permutations(drawn.objects, 2):
        for relation in ("left of", "above"):
            if holds(relation, first, second):
                found |= {(relation, a, b) for a, b in product(_named(first), _named(second))}
    return found


def _named(one):
    return one.color, one.shape


@pytest.mark.parametrize("number", range(0, 40, 4))
def test_facts_give_the_bindings_of_the_objects(number):
    drawn = SCENES[number]
    assert bindings(facts(drawn)) == own(drawn)


def test_a_caption_tells_some_of_them():
    told = 0
    for drawn in SCENES:
        for saying in short_sayings(drawn):
            found = bindings(saying.claims)
            assert found <= own(drawn), saying.text
            told += bool(found)
    assert told > 100


def test_false_ones_have_the_words_of_told_ones_and_are_false():
    for drawn in SCENES:
        true = bindings(facts(drawn))
        for saying in short_sayings(drawn):
            told = bindings(saying.claims)
            wrong = false_bindings(told, true)
            words = {word for _, *pair in told for word in pair} | {*SIZES}
            assert not wrong & own(drawn) and {word for _, *pair in wrong for word in pair} <= words


def test_swapped_scenes_say_the_opposite():
    first, _, swapped = family("validation", 1, "varied")[:3]
    told, other = dict(labels(facts(first), facts(first))), dict(labels(facts(swapped), facts(swapped)))
    kind = {index: one[0] for one, index in CLASSES.items()}
    both = [index for index in told.keys() & other.keys() if kind[index] != "is"]
    assert both and all(told[index] != other[index] for index in both)


def test_the_loss_is_the_mean_cross_entropy():
    head, states = BindingHead(8), torch.randn(3, 8)
    asked = torch.tensor([[0, 2, 2], [5, 7, 1000], [1, 0, 1]])
    logits = head.head(states).detach()
    values = [logits[0, 5].item(), -logits[2, 7].item(), logits[2, 1000].item()]
    expected = sum(math.log1p(math.exp(-value)) for value in values) / 3
    assert head(states, asked).item() == pytest.approx(expected, abs=1e-6)


def test_nothing_asked_costs_nothing():
    head, states = BindingHead(8), torch.randn(3, 8, requires_grad=True)
    loss = head(states, torch.empty(3, 0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0 and not states.grad.any()
