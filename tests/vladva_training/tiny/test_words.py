"""Weights of targets: facts above fillers, and what a relation leads to above what a caption begins with."""

from vladva_clip.scenes import COLORS, SHAPES, SIZES, scenes, short_captions
from vladva_training.tiny.words import DECIDING, FACT, FACT_WORDS, FILLER, target_weights, words_of


def test_the_second_object_of_a_relation_decides():
    words = ["a", "small", "red", "circle", "is", "left", "of", "a", "blue", "star", ",", "with", "a", "green", "cross"]
    weights = dict(zip(words, target_weights(words), strict=True))
    assert all(weights[word] == DECIDING for word in ("small", "left", "blue", "star"))
    assert all(weights[word] == FACT for word in ("red", "circle", "green", "cross"))
    assert all(weights[word] == FILLER for word in ("a", "is", "of", "with", ","))


def test_a_place_leads_to_nothing():
    words = ["a", "red", "circle", "in", "the", "top", "left", "and", "a", "blue", "star"]
    assert target_weights(words) == [FILLER, FACT, FACT, FILLER, FILLER, DECIDING, DECIDING, FILLER, FILLER, FACT, FACT]


def test_the_worlds_words_are_facts():
    assert {*COLORS, *SHAPES, *SIZES, "left", "above", "beneath", "middle", "three"} <= FACT_WORDS
    assert not FACT_WORDS & {"a", "the", "with", "background", "objects", "of"}


def test_words_are_those_of_the_captions():
    captions = [caption for scene in scenes("train", 0, 400, "varied") for caption in short_captions(scene)]
    assert {word for caption in captions for word in words_of(caption)} >= FACT_WORDS
