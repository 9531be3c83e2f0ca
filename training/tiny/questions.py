"""Questions about a drawn scene, each with its one right answer."""

import random
from collections.abc import Iterator
from itertools import combinations, cycle
from typing import NamedTuple

from vladva_clip.scenes import (
    PLACE_PHRASES,
    RELATION_PHRASES,
    RELATIONS,
    Saying,
    Scene,
    SceneObject,
    Statement,
    focus_statement,
    foils,
    hard_negatives,
    holds,
    short_captions,
)


class Question(NamedTuple):
    """What is asked, and the answer."""

    prompt: str
    answer: str


Questions = dict[str, list[Question]]


def questions(scene: Scene) -> Questions:
    """Questions about a scene's objects and the relation in its captions, by kind; some kinds have none.

    An image answers all of them, a caption those of `readable_questions`.
    """
    told = focus_statement(scene) if len(scene.objects) > 1 else None
    sides = (told, told.inverse()) if told else ()
    return {
        "color": [Question(f"What color is the {one.shape}?", one.color) for one in scene.objects],
        "shape": [Question(f"What shape is {one.color}?", one.shape) for one in scene.objects],
        "place": [_place(one) for one in scene.objects],
        "relation": [_relation(statement) for statement in sides],
        "neighbor": [question for statement in sides for question in _neighbors(statement)],
        "claim": list(_claims(scene)),
    }


def readable_questions(scene: Scene, said: Saying) -> Questions:
    """Those of `questions` that a caption answers, by what it claims; without claims to judge."""
    all_told = " and ".join(said.claims)
    named = [one for one in scene.objects if f"{one.color} {one.shape}" in all_told]
    asked = {
        "color": [Question(f"What color is the {one.shape}?", one.color) for one in named],
        "shape": [Question(f"What shape is {one.color}?", one.shape) for one in named],
        "place": [_place(one) for one in named if f"{one.color} {one.shape} at {one.place}" in said.claims],
    }
    told = _told(scene, said)
    asked["relation"] = [_relation(statement) for statement in told]
    asked["neighbor"] = [question for statement in told for question in _neighbors(statement)]
    return asked


def _told(scene: Scene, said: Saying) -> list[Statement]:
    """The focus statement from both sides if a caption claims it from either side."""
    if len(scene.objects) < 2:
        return []
    told = focus_statement(scene)
    sides = [told, told.inverse()]
    facts = {f"{one.first.name} {one.relation} {one.second.name}" for one in sides}
    return sides if facts & said.claims else []


def _place(one: SceneObject) -> Question:
    return Question(f"Where is the {one.color} {one.shape}?", PLACE_PHRASES[one.place])


def comparison(scene: Scene, rng: random.Random) -> str:
    """Every pair of a scene's objects, in random order and direction, with all relations of the second to the first.

    Both objects stand before the relation, so each of its words has one right answer; in most captions the relation
    comes before the second object, and several may follow.
    """
    pairs = [rng.sample(pair, 2) for pair in combinations(scene.objects, 2)]
    rng.shuffle(pairs)
    return ", ".join(f"from {_name(first)} to {_name(second)} {_ways(second, first)}" for first, second in pairs)


def _name(one: SceneObject) -> str:
    return f"{one.color} {one.shape}"


def _ways(one: SceneObject, other: SceneObject) -> str:
    """The relations of one object to another, across before down."""
    return " ".join(name.removesuffix(" of") for name in RELATIONS if holds(name, one, other))


def relation_prompt(statement: Statement) -> str:
    """The question for a statement's relation."""
    return f"Where is the {statement.first.name} to the {statement.second.name}?"


def _relation(statement: Statement) -> Question:
    return Question(relation_prompt(statement), statement.relation)


def _neighbors(statement: Statement) -> list[Question]:
    answer = f"the {statement.first.name}"
    phrases = RELATION_PHRASES[statement.relation]
    return [Question(f"What is {phrase} the {statement.second.name}?", answer) for phrase in phrases]


def _claims(scene: Scene) -> Iterator[Question]:
    """As many true captions as false ones, to judge."""
    for true, false in _judged(scene):
        yield Question(f"Is this true: {true}?", "yes")
        yield Question(f"Is this true: {false}?", "no")


def _judged(scene: Scene) -> Iterator[tuple[str, str]]:
    if scene.style == "classic":
        return iter(foils(scene).values())
    return zip(cycle(short_captions(scene)), hard_negatives(scene), strict=False)


def statements(scene: Scene) -> list[Statement]:
    """The focus statement with each of the four relations in its place, the true one first."""
    told = focus_statement(scene)
    others = [relation for relation in RELATIONS if relation != told.relation]
    return [Statement(told.first, relation, told.second) for relation in (told.relation, *others)]
