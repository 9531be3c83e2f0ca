"""Questions about a drawn scene, each with its one right answer."""

from collections.abc import Iterator
from typing import NamedTuple

from vladva_clip.scenes import (
    PLACE_PHRASES,
    RELATION_PHRASES,
    Scene,
    SceneObject,
    Statement,
    focus_statement,
    foils,
)


class Question(NamedTuple):
    """What is asked, and the answer."""

    prompt: str
    answer: str


def questions(scene: Scene) -> dict[str, list[Question]]:
    """Questions about a scene's objects and the relation in its captions, by kind.

    An image answers all of them; a short caption all but exact places: it may only give the side.
    """
    told = focus_statement(scene)
    sides = (told, told.inverse())
    return {
        "color": [Question(f"What color is the {one.shape}?", one.color) for one in scene.objects],
        "shape": [Question(f"What shape is {one.color}?", one.shape) for one in scene.objects],
        "place": [_place(one) for one in scene.objects],
        "relation": [_relation(statement) for statement in sides],
        "neighbor": [question for statement in sides for question in _neighbors(statement)],
        "claim": list(_claims(scene)),
    }


def _place(one: SceneObject) -> Question:
    return Question(f"Where is the {one.color} {one.shape}?", PLACE_PHRASES[one.place])


def _relation(statement: Statement) -> Question:
    return Question(f"Where is the {statement.first.name} to the {statement.second.name}?", statement.relation)


def _neighbors(statement: Statement) -> list[Question]:
    answer = f"the {statement.first.name}"
    phrases = RELATION_PHRASES[statement.relation]
    return [Question(f"What is {phrase} the {statement.second.name}?", answer) for phrase in phrases]


def _claims(scene: Scene) -> Iterator[Question]:
    """True captions and their foils, to judge."""
    for true, false in foils(scene).values():
        yield Question(f"Is this true: {true}?", "yes")
        yield Question(f"Is this true: {false}?", "no")
