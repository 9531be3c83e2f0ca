"""Foils of scenes with one object: another shape, color or size, or an object more."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from .captions import Mention, enumerate_phrases
from .objects import SceneObject
from .sampling import pick, sample, stable_seed
from .vocabulary import CLASS_TEMPLATES, COLORS, HELD_OUT_PAIRS, SHAPES, SIZES
from .world import Scene

Mentions = tuple[Mention, ...]


class SingleFoil(NamedTuple):
    """The name of the object and false names in its place; caption and foil share the wording."""

    kind: str
    true: Mentions
    false: Mentions
    wording: str
    paraphrase: str

    @property
    def caption(self) -> str:
        """A true caption."""
        return _say(self.wording, self.true)

    @property
    def foil(self) -> str:
        """A false one in the same wording."""
        return _say(self.wording, self.false)

    @property
    def other_caption(self) -> str:
        """A true one in another wording."""
        return _say(self.paraphrase, self.true)


def single_foils(scene: Scene) -> Iterator[SingleFoil]:
    """Yields the foils of a scene of one object: `replace_obj`, `replace_att`, `add_obj`, `add_att`."""
    (one,) = scene.objects
    for kind, change in _CHANGES.items():
        rng = random.Random(stable_seed("foil", kind, scene.seed))
        false = pick(rng, _without_new_held_out(change(one), scene))
        yield SingleFoil(kind, (Mention.of(one),), false, *sample(rng, CLASS_TEMPLATES, 2))


def single_size_foil(scene: Scene) -> SingleFoil:
    """The object with its size and with the other one."""
    (one,) = scene.objects
    rng = random.Random(stable_seed("evaluation foil", "replace_size", scene.seed))
    true = Mention.of(one, with_size=True)
    (other,) = (replace(true, size=size) for size in SIZES if size != one.size)
    return SingleFoil("replace_size", (true,), (other,), *sample(rng, CLASS_TEMPLATES, 2))


def _say(wording: str, mentions: Mentions) -> str:
    return wording.format(enumerate_phrases([mention.phrase for mention in mentions]))


def _without_new_held_out(candidates: list[Mentions], scene: Scene) -> list[Mentions]:
    """Those that name no held-out pair but the scene's, or all if there are none."""
    held_out = HELD_OUT_PAIRS - scene.pairs
    seen = [one for one in candidates if not any((mention.color, mention.shape) in held_out for mention in one)]
    return seen or candidates


def _replace_obj(one: SceneObject) -> list[Mentions]:
    return [(Mention(one.color, shape),) for shape in SHAPES if shape != one.shape]


def _replace_att(one: SceneObject) -> list[Mentions]:
    return [(Mention(color, one.shape),) for color in COLORS if color != one.color]


def _add_obj(one: SceneObject) -> list[Mentions]:
    absent = [
        Mention(color, shape) for color in COLORS for shape in SHAPES if color != one.color and shape != one.shape
    ]
    return [(Mention.of(one), mention) for mention in absent]


def _add_att(one: SceneObject) -> list[Mentions]:
    return [(replace(Mention.of(one), size=size),) for size in SIZES if size != one.size]


_CHANGES: dict[str, Callable[[SceneObject], list[Mentions]]] = {
    "replace_obj": _replace_obj,
    "replace_att": _replace_att,
    "add_obj": _add_obj,
    "add_att": _add_att,
}
