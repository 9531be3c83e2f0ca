"""Short captions of a classic scene, each true of it by construction.

A short caption is a `Statement` (who is where relative to whom) put into one of several wordings; foils are
made from the same statements, so they differ from a true caption in one fact only.
"""

import random
from dataclasses import dataclass

from .objects import SceneObject
from .relations import holds, main_relation
from .sampling import pick, shuffled, stable_seed
from .vocabulary import PLACE_PHRASES, PLACES, RELATION_PHRASES, RELATIONS
from .world import Scene

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
        return with_article(self.name)

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
    """The statement about the focus pair (the first two objects) that mentions all objects of the scene.

    Raises:
        ValueError: the scene has one object.
    """
    if len(scene.objects) < 2:
        raise ValueError(f"the scene has one object ({Mention.of(scene.objects[0]).name}); a relation needs two")
    first, second, *others = scene.objects
    mentions = [Mention.of(scene_object, with_size) for scene_object in (first, second, *others)]
    return Statement(mentions[0], main_relation(first, second), mentions[1], tuple(mentions[2:]))


def classic_captions(scene: Scene) -> list[tuple[str, Statement | None]]:
    """Five captions of under 30 words in varied wording, each naming every object with its color and shape.

    Each of them distinguishes the scene from the other members of its family: it places the focus pair.

    Returns:
        (caption, what it states); None stands for every object with its place.
    """
    rng = random.Random(stable_seed("short", scene.seed))
    statement = focus_statement(scene)
    sized = focus_statement(scene, with_size=True)
    options = [statement, statement.inverse(), sized, sized.inverse()]
    captions = [(_say(option, rng), option) for option in shuffled(rng, options)]
    captions.insert(int(rng.random() * 5), (_placed_list(scene, rng), None))
    return captions


def placed_captions(scene: Scene) -> list[str]:
    """Five short captions that list every object with its place, in varied order and wording.

    The easiest captions that bind: each object's place stands beside it and need not be inferred from a relation.
    """
    rng = random.Random(stable_seed("placed", scene.seed))
    return [_placed_list(scene, rng) for _ in range(NUM_SHORT_CAPTIONS)]


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
    objects = shuffled(rng, scene.objects)
    places = [o.place if brief else PLACE_PHRASES[o.place] for o in objects]
    return enumerate_phrases([f"{Mention.of(o).phrase} {place}" for o, place in zip(objects, places, strict=True)])


def with_article(name: str) -> str:
    """The name with its indefinite article."""
    return f"{'an' if name.startswith('o') else 'a'} {name}"


def enumerate_phrases(phrases: list[str]) -> str:
    """One phrase after another, with commas and an "and"."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
