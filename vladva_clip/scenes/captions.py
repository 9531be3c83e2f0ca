"""Short and long captions of a scene, each true of it by construction.

A short caption is a `Statement` (who is where relative to whom) put into one of several wordings; foils are
made from the same statements, so they differ from a true caption in one fact only.
"""

import random
from dataclasses import dataclass

from .relations import holds, main_relation
from .vocabulary import COUNTS, PLACE_PHRASES, PLACES, RELATION_PHRASES, RELATIONS
from .world import Scene, SceneObject, pick, stable_seed

NUM_SHORT_CAPTIONS = 5

WORDINGS = (
    "{first} {relation} {second}{others}",
    "there is {first} {relation} {second}{others}",
    "{first} is {relation} {second}{others}",
    "a picture of {first} {relation} {second}{others}",
    "{first} sits {relation} {second}{others}",
    "{others_first}{first} {relation} {second}",
)


@dataclass(frozen=True)
class Mention:
    """An object as a caption names it; `size` is None if the caption leaves it out."""

    color: str
    shape: str
    size: str | None = None

    @classmethod
    def of(cls, scene_object: SceneObject, with_size: bool = False) -> "Mention":
        """The mention of a drawn object."""
        return cls(scene_object.color, scene_object.shape, scene_object.size if with_size else None)

    @property
    def name(self) -> str:
        """Size, color and shape without an article, as in "small red circle"."""
        return " ".join(word for word in (self.size, self.color, self.shape) if word)

    @property
    def phrase(self) -> str:
        """The name with its indefinite article."""
        return f"{'an' if self.name.startswith('orange') else 'a'} {self.name}"

    def names(self, scene_object: SceneObject) -> bool:
        """Whether every word of the mention is true of the object."""
        return scene_object.pair == (self.color, self.shape) and self.size in (None, scene_object.size)


@dataclass(frozen=True)
class Statement:
    """What a short caption says: `first` stands in `relation` to `second`, and the `others` are there too."""

    first: Mention
    relation: str
    second: Mention
    others: tuple[Mention, ...] = ()

    @property
    def mentions(self) -> tuple[Mention, ...]:
        """All mentions, in order."""
        return (self.first, self.second, *self.others)

    def true_of(self, scene: Scene) -> bool:
        """Whether every mentioned object is in the scene and the relation holds between the first two."""
        found = [[o for o in scene.objects if mention.names(o)] for mention in self.mentions]
        if not all(found):
            return False
        return any(holds(self.relation, a, b) for a in found[0] for b in found[1] if a is not b)

    def inverse(self) -> "Statement":
        """The same fact, from the other object's side."""
        return Statement(self.second, RELATIONS[self.relation], self.first, self.others)

    def render(self, wording: str = WORDINGS[0], variant: int = 0) -> str:
        """The statement in words.

        Args:
            wording: one of `WORDINGS`.
            variant: which phrase of `RELATION_PHRASES` stands for the relation.
        """
        others = enumerate_phrases([mention.phrase for mention in self.others])
        return wording.format(
            first=self.first.phrase,
            second=self.second.phrase,
            relation=RELATION_PHRASES[self.relation][variant],
            others=f", with {others}" if others else "",
            others_first=f"with {others}, " if others else "",
        )


def focus_statement(scene: Scene, with_size: bool = False) -> Statement:
    """The statement about the focus pair (the first two objects) that mentions all objects of the scene."""
    first, second, *others = scene.objects
    mentions = [Mention.of(scene_object, with_size) for scene_object in (first, second, *others)]
    return Statement(mentions[0], main_relation(first, second), mentions[1], tuple(mentions[2:]))


def short_captions(scene: Scene) -> list[str]:
    """Five captions of under 30 words in varied wording, each naming every object with its color and shape.

    Each of them distinguishes the scene from the other members of its family: it places the focus pair.
    """
    rng = random.Random(stable_seed("short", scene.seed))
    statement = focus_statement(scene)
    sized = focus_statement(scene, with_size=True)
    options = [statement, statement.inverse(), sized, sized.inverse()]
    captions = [_say(option, rng) for option in _shuffled(options, rng)]
    captions.insert(int(rng.random() * 5), _placed_list(scene, rng))
    return captions


def placed_captions(scene: Scene) -> list[str]:
    """Five short captions that list every object with its place, in varied order and wording.

    The easiest captions that bind: each object's place stands beside it and need not be inferred from a relation.
    """
    rng = random.Random(stable_seed("placed", scene.seed))
    return [_placed_list(scene, rng) for _ in range(NUM_SHORT_CAPTIONS)]


def long_caption(scene: Scene) -> str:
    """One caption of 30 words and more: background, every object's size, color, shape and place, relations.

    Objects come in reading order (row by row from the top left), so that a reader can check them off.
    """
    rng = random.Random(stable_seed("long", scene.seed))
    objects = in_reading_order(scene)
    clauses = [f"{Mention.of(o, with_size=True).phrase} {PLACE_PHRASES[o.place]}" for o in objects]
    neighbors = list(zip(objects, objects[1:], strict=False))[:2]
    sentences = [
        opening(scene, rng),
        enumerate_phrases(clauses),
        *(_relation_sentence(a, b, rng) for a, b in neighbors),
    ]
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def in_reading_order(scene: Scene) -> list[SceneObject]:
    """The objects row by row from the top, each row from the left."""
    return sorted(scene.objects, key=lambda o: (PLACES[o.place][1], PLACES[o.place][0]))


def one_word_answers(scene: Scene) -> list[str]:
    """The single words that sum the scene up: every object's color and shape, in reading order."""
    return [word for scene_object in in_reading_order(scene) for word in scene_object.pair]


def _say(statement: Statement, rng: random.Random) -> str:
    return statement.render(pick(rng, WORDINGS), int(rng.random() * 2))


def _placed_list(scene: Scene, rng: random.Random) -> str:
    """Every object with its place; in scenes of four the prepositions are dropped to stay short."""
    brief = len(scene.objects) > 3 or rng.random() < 0.3
    objects = _shuffled(list(scene.objects), rng)
    places = [o.place if brief else PLACE_PHRASES[o.place] for o in objects]
    return enumerate_phrases([f"{Mention.of(o).phrase} {place}" for o, place in zip(objects, places, strict=True)])


def opening(scene: Scene, rng: random.Random) -> str:
    """A long caption's first sentence, on the number of objects and the background, without capital and period."""
    count = COUNTS[len(scene.objects)]
    start = pick(rng, ("{count} objects on", "the picture shows {count} objects on", "there are {count} shapes on"))
    return f"{start.format(count=count)} a {scene.background.kind} background"


def _relation_sentence(first: SceneObject, second: SceneObject, rng: random.Random) -> str:
    if rng.random() < 0.5:
        first, second = second, first
    relation = pick(rng, RELATION_PHRASES[main_relation(first, second)])
    return f"the {Mention.of(first).name} is {relation} the {Mention.of(second).name}"


def enumerate_phrases(phrases: list[str]) -> str:
    """One phrase after another, with commas and an "and"."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _shuffled(items: list, rng: random.Random) -> list:
    items = list(items)
    return [items.pop(int(rng.random() * len(items))) for _ in range(len(items))]
