"""What is true of a scene, as a set of atomic facts, and sayings, which are true of a scene if all they claim is in it.

Any saying can so be judged against any scene: a caption of one scene that happens to be true of another is no negative
example for it.
"""

from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import NamedTuple

from .captions import Mention, Statement
from .objects import SceneObject
from .relations import holds
from .vocabulary import RELATIONS
from .world import Scene

Fact = str


class Saying(NamedTuple):
    """A short text and all it claims; it is true of a scene if the claims are among the scene's facts."""

    text: str
    claims: frozenset[Fact]

    def true_of(self, scene: Scene) -> bool:
        """Whether all claims are facts of the scene."""
        return self.claims <= facts(scene)


def facts(scene: Scene) -> frozenset[Fact]:
    """Return every atomic fact of a scene.

    Objects are named by color and shape ("red circle"), by color ("red") or by shape ("circle"); where only their
    existence is stated, also with their size ("small red circle", "small circle"). There are facts on the existence and
    the place of each object, on the relations of each two objects named in the same way, on the number of objects and
    on the background. A relation is a fact if `holds` says so; between objects that stand diagonally, two are.
    """
    found = {count_fact(len(scene.objects)), background_fact(scene.background.kind)}
    for one in scene.objects:
        found.update(_object_facts(one))
    for first, second in permutations(scene.objects, 2):
        found.update(_relation_facts(first, second))
    return frozenset(found)


def exists_fact(name: str) -> Fact:
    """There is an object of that name."""
    return f"there is {name}"


def place_fact(name: str, place: str) -> Fact:
    """An object of that name is in the place."""
    return f"{name} at {place}"


def relation_fact(first: str, relation: str, second: str) -> Fact:
    """An object of the first name stands in the relation to one of the second name."""
    return f"{first} {relation} {second}"


def count_fact(count: int) -> Fact:
    """The scene has that many objects."""
    return f"count {count}"


def background_fact(kind: str) -> Fact:
    """The background is of that kind."""
    return f"background {kind}"


def statement_claims(statement: Statement) -> frozenset[Fact]:
    """What a statement claims.

    No two objects of a scene have the same color and shape, so that sizes can be claimed apart from the relation.
    """
    first, second = (f"{one.color} {one.shape}" for one in (statement.first, statement.second))
    names = (mention.name for mention in statement.mentions)
    return frozenset({relation_fact(first, statement.relation, second), *map(exists_fact, names)})


def placed_claims(objects: Iterable[SceneObject]) -> frozenset[Fact]:
    """What a list of objects, each with its place, claims."""
    return frozenset(place_fact(Mention.of(one).name, one.place) for one in objects)


def _object_facts(one: SceneObject) -> Iterator[Fact]:
    names = _names(one)
    yield exists_fact(f"{one.size} {names[0]}")
    yield exists_fact(f"{one.size} {one.shape}")
    yield from map(exists_fact, names)
    yield from (place_fact(name, one.place) for name in names)


def _relation_facts(first: SceneObject, second: SceneObject) -> Iterator[Fact]:
    for relation in RELATIONS:
        if holds(relation, first, second):
            for name, name2 in zip(_names(first), _names(second), strict=True):
                yield relation_fact(name, relation, name2)


def _names(one: SceneObject) -> tuple[str, str, str]:
    return f"{one.color} {one.shape}", one.color, one.shape
