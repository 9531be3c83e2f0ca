"""Hard negatives: captions in the wordings of a scene's own, false of it in one fact.

What is said beside that fact is chosen as in the scene's true captions: how many objects are named, and with how many
sizes. A text alone should not tell whether it is true.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from .captions import Statement
from .evaluation_foils import evaluation_foils, false_statements, wrong_count
from .facts import Saying, facts, statement_claims
from .foils import FOIL_KINDS, foil_statement, foils
from .sampling import pick, sample, shuffled, stable_seed
from .sayings import (
    Teller,
    background_saying,
    brief_relation,
    count_saying,
    exist_saying,
    is_short,
    place_saying,
    say_statement,
)
from .single_foils import single_foils
from .vocabulary import BACKGROUNDS, CLASSIC_BACKGROUNDS, PLACES, SIZES
from .world import Scene

_STATED_KINDS = ("replace_rel_axis", "swap_size", "add_obj_present")
_WITH_OTHERS = ("add_obj", "add_obj_present")  # false by the last of the others
_FALSE_RELATIONS = ("replace_rel", "replace_rel_axis", "swap_obj")  # false by the relation alone
_MOST_OTHERS = 2


def hard_negatives(scene: Scene) -> list[str]:
    """Return false captions of a scene: all kinds of `foils` and `evaluation_foils` that it allows.

    Those of a classic scene are the foils themselves. Those of other styles are in the wordings of `short_sayings`;
    one of a kind, no kind twice under two names, and for some scenes one about the background.
    """
    if scene.style != "classic":
        return [saying.text for saying in false_sayings(scene)]
    further = [one for _, false in evaluation_foils(scene).values() for one in false]
    return list(dict.fromkeys([*(foil for _, foil in foils(scene).values()), *further]))


def false_sayings(scene: Scene) -> list[Saying]:
    """The hard negatives of a scene that is not classic, each with the facts that it claims."""
    rng, known = random.Random(stable_seed("false sayings", scene.seed)), facts(scene)
    tellers = _of_one_object(scene) if len(scene.objects) == 1 else _of_statements(scene)
    further = (_misplaced, _miscounted, *([_on_another_background] if rng.random() < 0.35 else []))
    return [_told(teller, scene, known, rng) for teller in (*tellers, *further)]


def _told(teller: Teller, scene: Scene, known: frozenset[str], rng: random.Random) -> Saying:
    """What a teller says, told again until it is short enough, and false in what is left of it."""
    saying = teller(scene, rng)
    while not is_short(saying.text) or saying.claims <= known:
        saying = teller(scene, rng)
    return saying


def _of_statements(scene: Scene) -> Iterator[Teller]:
    for kind in FOIL_KINDS:
        _, false, _ = foil_statement(kind, scene)
        if false is not None:
            yield partial(_stated, kind, false)
    for kind in _STATED_KINDS:
        for false in false_statements(kind, scene):
            yield partial(_stated, kind, false)


def _stated(kind: str, false: Statement, scene: Scene, rng: random.Random) -> Saying:
    """The statement in words, or what makes it false alone: the relation, or the objects."""
    if kind in _FALSE_RELATIONS and rng.random() < 0.2:
        first, second = ((mention.color, mention.shape) for mention in (false.first, false.second))
        return brief_relation(first, false.relation, second, rng)
    false = _with_few_others(kind, false, rng)
    false = _with_sizes(false, scene, rng) if rng.random() < 0.4 else false
    if kind not in _FALSE_RELATIONS and rng.random() < 0.12:
        return exist_saying(shuffled(rng, false.mentions), rng)
    return Saying(say_statement(false, rng), statement_claims(false))


def _with_few_others(kind: str, false: Statement, rng: random.Random) -> Statement:
    """The statement with all others or none, and at most as many as true ones have; an added object stays."""
    if kind not in _WITH_OTHERS:
        return false if rng.random() < 0.3 else replace(false, others=())
    *others, added = false.others
    kept = sample(rng, others, min(len(others), int(rng.random() * _MOST_OTHERS)))
    return replace(false, others=tuple(shuffled(rng, [*kept, added])))


def _with_sizes(false: Statement, scene: Scene, rng: random.Random) -> Statement:
    """The statement with a size wherever it leaves it out: the true one, or any for what is not in the scene."""
    sizes = {one.pair: one.size for one in scene.objects}
    first, second, *others = (
        replace(one, size=one.size or sizes.get((one.color, one.shape)) or pick(rng, list(SIZES)))
        for one in false.mentions
    )
    return Statement(first, false.relation, second, tuple(others))


def _of_one_object(scene: Scene) -> Iterator[Teller]:
    for foil in single_foils(scene):
        yield lambda scene, rng, false=foil.false: exist_saying(false, rng)


def _misplaced(scene: Scene, rng: random.Random) -> Saying:
    """One object in a free place, alone or among others in theirs."""
    moved, *others = shuffled(rng, scene.objects)
    free = pick(rng, [place for place in PLACES if place not in {one.place for one in scene.objects}])
    told = [replace(moved, place=free), *(others if rng.random() < 0.6 else others[: int(rng.random() * 2)])]
    return place_saying(shuffled(rng, told), len(told) == len(scene.objects), rng)


def _miscounted(scene: Scene, rng: random.Random) -> Saying:
    """Another number of objects, with the name of one, with as many names as the number says, or with none."""
    wrong = wrong_count(scene, rng)
    return count_saying(wrong, sample(rng, scene.objects, pick(rng, _numbers_of_names(wrong, scene))), rng)


def _numbers_of_names(count: int, scene: Scene) -> tuple[int, ...]:
    """How many objects may be named where that many are said to be there."""
    return (0, 1, count, count) if count < len(scene.objects) else (0, 1)


def _on_another_background(scene: Scene, rng: random.Random) -> Saying:
    """Another background behind one or two of the objects."""
    known = CLASSIC_BACKGROUNDS if scene.look.is_classic else BACKGROUNDS
    kind = pick(rng, [kind for kind in known if kind != scene.background.kind])
    return background_saying(scene, kind, rng)
