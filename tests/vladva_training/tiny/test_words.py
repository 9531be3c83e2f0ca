"""Weights of targets: facts above fillers, and what a relation leads to above what a caption begins with."""

from vladva_clip.scenes import COLORS, SHAPES, SIZES, scenes, short_captions
from vladva_training.tiny.words import DECIDING, FACT, FACT_WORDS, FILLER, target_weights, told_by, words_of


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


def test_what_a_caption_keeps_to_itself_weighs_no_more_than_a_filler():
    told = told_by("a red circle left of a blue star")
    words = [
        "the",
        "small",
        "blue",
        "star",
        "is",
        "right",
        "of",
        "the",
        "red",
        "circle",
        ",",
        "and",
        "three",
        "crosses",
    ]
    weights = dict(zip(words, target_weights(words, told), strict=True))
    assert weights["right"] == weights["red"] == weights["circle"] == DECIDING  # the same fact from the other side
    assert weights["blue"] == weights["star"] == FACT
    assert weights["small"] == weights["three"] == weights["crosses"] == FILLER
    assert target_weights(["above"], told) == [FILLER] and target_weights(["above"]) == [DECIDING]
