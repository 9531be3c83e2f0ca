"""Questions about a scene: every answer follows from the scene."""

import random
import re
from collections import Counter

import pytest

from vladva_clip.scenes import (
    PLACE_PHRASES,
    RELATION_PHRASES,
    RELATIONS,
    facts,
    foils,
    hard_negatives,
    holds,
    scenes,
    short_captions,
    short_sayings,
)
from vladva_training.tiny.questions import comparison, questions, readable_questions

YES_NO = ("yes", "no")
STYLES = pytest.mark.parametrize("style", ["classic", "varied"])


@STYLES
def test_every_object_is_asked_about_and_every_claim_is_made(style):
    for drawn in scenes("train", 0, 40, style):
        counts = {kind: len(asked) for kind, asked in questions(drawn).items()}
        objects = len(drawn.objects)
        several = objects > 1
        claims = 2 * len(foils(drawn) if style == "classic" else hard_negatives(drawn))
        assert counts == {
            **dict.fromkeys(("color", "shape", "place"), objects),
            "relation": 2 * several,
            "neighbor": 4 * several,
            "claim": claims,
        }


def test_varied_claims_are_true_captions_and_hard_negatives():
    for drawn in scenes("test", 0, 40, "varied"):
        judged = [(one.prompt.removeprefix("Is this true: ")[:-1], one.answer) for one in questions(drawn)["claim"]]
        assert {text for text, answer in judged if answer == "yes"} <= set(short_captions(drawn))
        assert [text for text, answer in judged if answer == "no"] == hard_negatives(drawn)


@STYLES
def test_a_caption_answers_its_questions(style):
    """Every scene of which the caption is true has the same answer, and relations are those that it claims."""
    known = [(facts(scene), questions(scene)) for scene in scenes("train", 0, 400, style)]
    answers = [(true, {kind: dict(asked[kind]) for kind in ("color", "shape", "place")}) for true, asked in known]
    asked = Counter()
    for drawn in scenes("train", 0, 40, style):
        for said in short_sayings(drawn):
            found = readable_questions(drawn, said)
            asked.update({kind: len(each) for kind, each in found.items()})
            for own in (own for true, own in answers if said.claims <= true):
                for kind, right in own.items():
                    assert all(right.get(prompt, answer) == answer for prompt, answer in found[kind])
            for prompt, relation in found["relation"]:
                first, second = prompt.removeprefix("Where is the ").removesuffix("?").split(" to the ")
                assert {f"{first} {relation} {second}", f"{second} {RELATIONS[relation]} {first}"} & said.claims
    assert min(asked.values()) > 20


def test_questions_about_an_object_have_its_words_for_answers():
    for drawn in scenes("train", 0, 100):
        for kind, word in (("color", "color"), ("shape", "shape"), ("place", "place")):
            for question in questions(drawn)[kind]:
                asked = [o for o in drawn.objects if o.shape in question.prompt or o.color in question.prompt]
                assert len(asked) == 1
                expected = getattr(asked[0], word)
                assert question.answer == (PLACE_PHRASES[expected] if kind == "place" else expected)


def test_relations_and_neighbors_hold_in_the_scene():
    for drawn in scenes("train", 0, 100):
        names = {f"{o.color} {o.shape}": o for o in drawn.objects}
        asked = questions(drawn)
        for prompt, relation in asked["relation"]:
            first, second = prompt.removeprefix("Where is the ").removesuffix("?").split(" to the ")
            assert holds(relation, names[first], names[second])
        for prompt, neighbor in asked["neighbor"]:
            text = prompt.removeprefix("What is ").removesuffix("?")
            relation, phrase = next(
                (relation, phrase)
                for relation, phrases in RELATION_PHRASES.items()
                for phrase in sorted(phrases, key=len, reverse=True)
                if text.startswith(f"{phrase} the ")
            )
            second = text.removeprefix(f"{phrase} the ")
            assert holds(relation, names[neighbor.removeprefix("the ")], names[second])


def test_claims_are_the_captions_and_their_foils():
    for drawn in scenes("test", 0, 20):
        pairs = foils(drawn).values()
        expected = [
            (f"Is this true: {text}?", answer) for pair in pairs for text, answer in zip(pair, YES_NO, strict=True)
        ]
        assert questions(drawn)["claim"] == expected


@STYLES
def test_a_comparison_says_where_every_object_is_from_every_other(style):
    """Read by coordinates: across and down, where they differ by a fifth of the canvas."""
    for index, drawn in enumerate(scenes("train", 0, 60, style)):
        told, by_name = comparison(drawn, random.Random(index)), {f"{o.color} {o.shape}": o for o in drawn.objects}
        phrases = told.split(", ") if told else []
        assert len(phrases) == len(drawn.objects) * (len(drawn.objects) - 1) // 2
        for phrase in phrases:
            first, second, ways = re.fullmatch(r"from (\w+ \w+) to (\w+ \w+) ([\w ]+)", phrase).groups()
            right, down = (getattr(by_name[second], axis) - getattr(by_name[first], axis) for axis in "xy")
            across = ["right"] * (right > 0.2) + ["left"] * (right < -0.2)
            assert ways.split() == across + ["below"] * (down > 0.2) + ["above"] * (down < -0.2)
