"""Long captions: all there is to say about a scene, in sentences that `claims` can read back."""

import random
from itertools import combinations

from .captions import Mention, enumerate_phrases, in_reading_order
from .objects import SceneObject
from .relations import holds, main_relation
from .sampling import pick, stable_seed
from .vocabulary import MORE_RELATION_PHRASES, NUMBERS, PLACE_PHRASES, RELATION_PHRASES, RELATIONS
from .world import Scene

CLASSIC_OPENINGS = ("{count} objects on", "the picture shows {count} objects on", "there are {count} shapes on")
OPENINGS = (
    *CLASSIC_OPENINGS,
    "this picture has {count} objects on",
    "you can see {count} shapes on",
    "{count} shapes against",
    "a drawing of {count} objects on",
)
LISTS = ("{objects}", "there is {objects}", "it shows {objects}", "we see {objects}")
VERBS = ("is", "is", "sits", "stands")
SINGLE_SENTENCES = (
    "the {name} is {size}",
    "its color is {color}",
    "its shape is a {shape}",
    "it is {place}",
    "the object is {color}",
    "the {color} object is a {shape}",
    "the {name} is found {place}",
)
_NUM_SINGLE = 4
_MAX_RELATIONS = 3
_HORIZONTAL = ("left of", "right of")

Relation = tuple[SceneObject, str, SceneObject]


def long_caption(scene: Scene) -> str:
    """One caption of 30 words and more: background, every object's size, color, shape and place, relations.

    Objects come in reading order (row by row from the top left), so that a reader can check them off. A single object
    is described again in further sentences.
    """
    rng = random.Random(stable_seed("long", scene.seed))
    sentences = _classic_sentences(scene, rng) if scene.style == "classic" else _sentences(scene, rng)
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def told_relations(scene: Scene) -> list[Relation]:
    """The relations that a long caption tells: of neighbors in reading order, on both axes where both are to be had.

    Classic captions tell at most two and don't look at the axes, others at most three.
    """
    objects = in_reading_order(scene)
    neighbors = [(a, main_relation(a, b), b) for a, b in zip(objects, objects[1:], strict=False)]
    if scene.style == "classic":
        return neighbors[:2]
    told = neighbors[:_MAX_RELATIONS]
    other = _other_axis(scene, told)
    return [*told[: _MAX_RELATIONS - 1], other] if other else told


def _other_axis(scene: Scene, told: list[Relation]) -> Relation | None:
    """A relation on the axis that the told ones leave out."""
    axes = {relation in _HORIZONTAL for _, relation, _ in told}
    for first, second in combinations(scene.objects, 2):
        for relation in RELATIONS:
            if axes == {relation not in _HORIZONTAL} and holds(relation, first, second):
                return first, relation, second
    return None


def _classic_sentences(scene: Scene, rng: random.Random) -> list[str]:
    return [
        opening(scene, pick_opening(scene, rng)),
        _all_objects(scene),
        *(_classic_relation(first, second, rng) for first, _, second in told_relations(scene)),
    ]


def _classic_relation(first: SceneObject, second: SceneObject, rng: random.Random) -> str:
    if rng.random() < 0.5:
        first, second = second, first
    relation = pick(rng, RELATION_PHRASES[main_relation(first, second)])
    return f"the {Mention.of(first).name} is {relation} the {Mention.of(second).name}"


def _sentences(scene: Scene, rng: random.Random) -> list[str]:
    start = opening(scene, pick_opening(scene, rng))
    listed = pick(rng, LISTS).format(objects=_all_objects(scene))
    if len(scene.objects) == 1:
        return [start, listed, *_single_sentences(scene.objects[0], rng)]
    return [start, listed, *(_relation(told, rng) for told in told_relations(scene))]


def _relation(told: Relation, rng: random.Random) -> str:
    first, relation, second = told
    if rng.random() < 0.5:
        first, relation, second = second, RELATIONS[relation], first
    phrase = pick(rng, MORE_RELATION_PHRASES[relation])
    return f"the {Mention.of(first).name} {pick(rng, VERBS)} {phrase} the {Mention.of(second).name}"


def _single_sentences(one: SceneObject, rng: random.Random) -> list[str]:
    """Some of the sentences on a single object; more than needed for 30 words."""
    left = list(SINGLE_SENTENCES)
    while len(left) > _NUM_SINGLE:
        left.pop(int(rng.random() * len(left)))
    words = {"name": Mention.of(one).name, "size": one.size, "color": one.color, "shape": one.shape}
    return [sentence.format(**words, place=PLACE_PHRASES[one.place]) for sentence in left]


def _all_objects(scene: Scene) -> str:
    return enumerate_phrases(
        [f"{Mention.of(o, with_size=True).phrase} {PLACE_PHRASES[o.place]}" for o in in_reading_order(scene)]
    )


def pick_opening(scene: Scene, rng: random.Random) -> str:
    """The wording of a long caption's first sentence."""
    return pick(rng, CLASSIC_OPENINGS if scene.style == "classic" else OPENINGS)


def opening(scene: Scene, wording: str, count: int | None = None) -> str:
    """A long caption's first sentence, on the number of objects and the background, without capital and period.

    Args:
        scene: what is described.
        wording: of `pick_opening`.
        count: what it says about the number of objects; by default the truth.
    """
    count = len(scene.objects) if count is None else count
    return f"{numbered(wording, count)} a {scene.background.kind} background"


def numbered(wording: str, count: int, **fields: str) -> str:
    """A wording about `{count} objects` with the number in words, in the singular for one, and its other fields."""
    if count == 1:
        wording = wording.replace("there are", "there is")
        wording = wording.replace("{count} objects", "{count} object").replace("{count} shapes", "{count} shape")
    return wording.format(count=NUMBERS[count], **fields)
