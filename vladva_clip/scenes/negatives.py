"""Hard negatives: captions in the wordings of a scene's own, false of it in one fact."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .captions import Mention, Statement
from .evaluation_foils import evaluation_foils, false_statements
from .facts import Saying, count_fact, exists_fact, place_fact, statement_claims
from .foils import FOIL_KINDS, foil_statement, foils
from .sampling import pick, stable_seed
from .sayings import is_short, say_count, say_exist, say_places, say_statement
from .single_foils import single_foils
from .vocabulary import NUMBERS, PLACES
from .world import Scene

_STATED_KINDS = ("replace_rel_axis", "swap_size", "add_obj_present")
_NEED_OTHERS = ("add_obj", "add_obj_present")


def hard_negatives(scene: Scene) -> list[str]:
    """Return false captions of a scene: all kinds of `foils` and `evaluation_foils` that it allows.

    Those of a classic scene are the foils themselves. Those of other styles are in the wordings of `short_sayings`;
    one of a kind, and no kind twice under two names.
    """
    if scene.style != "classic":
        return [saying.text for saying in false_sayings(scene)]
    further = [one for _, false in evaluation_foils(scene).values() for one in false]
    return list(dict.fromkeys([*(foil for _, foil in foils(scene).values()), *further]))


def false_sayings(scene: Scene) -> list[Saying]:
    """The hard negatives of a scene that is not classic, each with the facts that it claims."""
    rng = random.Random(stable_seed("false sayings", scene.seed))
    told = _false_singles(scene, rng) if len(scene.objects) == 1 else _false_stated(scene, rng)
    return [*told, _false_place(scene, rng), _false_count(scene, rng)]


def _false_stated(scene: Scene, rng: random.Random) -> Iterator[Saying]:
    for kind in FOIL_KINDS:
        _, false, _ = foil_statement(kind, scene)
        if false is not None:
            yield _stated(kind, false, rng)
    for kind in _STATED_KINDS:
        for false in false_statements(kind, scene):
            yield _stated(kind, false, rng)


def _stated(kind: str, false: Statement, rng: random.Random) -> Saying:
    """The statement in words, half the time about the focus pair alone, which is what makes it false."""
    if kind not in _NEED_OTHERS and rng.random() < 0.5:
        false = replace(false, others=())
    text = say_statement(false, rng)
    while not is_short(text):
        text = say_statement(false, rng)
    return Saying(text, statement_claims(false))


def _false_singles(scene: Scene, rng: random.Random) -> Iterator[Saying]:
    for foil in single_foils(scene):
        yield _existing([mention.name for mention in foil.false], rng)


def _existing(names: Sequence[str], rng: random.Random) -> Saying:
    return Saying(say_exist(names, rng), frozenset(map(exists_fact, names)))


def _false_place(scene: Scene, rng: random.Random) -> Saying:
    """One object in a free place, alone or among all the others in theirs."""
    moved = pick(rng, scene.objects)
    free = pick(rng, [place for place in PLACES if place not in {one.place for one in scene.objects}])
    told = [moved] if rng.random() < 0.5 else list(scene.objects)
    placed = [(Mention.of(one).name, free if one is moved else one.place) for one in told]
    return Saying(say_places(placed, rng), frozenset(place_fact(*one) for one in placed))


def _false_count(scene: Scene, rng: random.Random) -> Saying:
    """Another number of objects, with one of their names or with none."""
    wrong = pick(rng, [number for number in NUMBERS if number != len(scene.objects)])
    names = [Mention.of(pick(rng, scene.objects)).name] if rng.random() < 0.5 else []
    return Saying(say_count(wrong, names, rng), frozenset({count_fact(wrong), *map(exists_fact, names)}))
