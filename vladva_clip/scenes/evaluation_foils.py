"""More kinds of false captions: they close the shortcuts that the seven kinds of `foils` leave open.

No training on the classic world uses them; training on the varied world has hard negatives of the same kinds. Three
of the seven kinds can be solved with less than their names promise; the kinds here test the rest. `replace_rel`
offers the opposite relation only, so an encoder that can't tell horizontal from vertical still gets it right. The
foil of `add_att` has one word more than its caption, so disliking sizes is enough. The words that `add_obj` adds are
nowhere in the picture, so a bag of words is enough.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from .captions import WORDINGS, Mention, Statement, enumerate_phrases, focus_statement
from .foils import foil_statement, new_held_out_pairs
from .long_captions import opening, pick_opening
from .objects import SceneObject
from .sampling import pick, stable_seed, weighted
from .single_foils import single_size_foil
from .vocabulary import COUNTS, NUMBERS, PLACE_PHRASES, PLACES, RELATIONS
from .world import Scene

_WRONG_COUNTS = {1: 0.12, 2: 0.25, 3: 0.34, 4: 0.29}
"""How often each number is offered as a wrong one, in proportion. Few varied scenes have one object, many have three:
so each number of any two is the true one about as often as the other."""

EVALUATION_TRIPLES = ("replace_rel_axis", "replace_size", "swap_size")
"""The kinds that have a paraphrase."""


def evaluation_foils(scene: Scene) -> dict[str, tuple[str, tuple[str, ...]]]:
    """A true caption of the scene and one or more false ones for each kind of `EVALUATION_KINDS`.

    Args:
        scene: the scene.

    Returns:
        Kind -> (caption, false captions), in the order of `EVALUATION_KINDS`; all of a kind have one wording. Every
        kind offers two captions, `relation_of_four` four. A kind that a scene does not allow is absent:
        `relation_of_four` if two of the four relations hold (the objects stand diagonally), `swap_size` if both
        sizes are the same, `add_obj_present` if all objects share one color or one shape; all but `replace_size`,
        `replace_place` and `replace_count` if there is one object.
    """
    return {kind: (offer.caption, offer.false) for kind, offer in _offers(scene, EVALUATION_KINDS)}


def false_statements(kind: str, scene: Scene) -> tuple[Statement, ...]:
    """The false statements of a kind of `EVALUATION_KINDS` that has statements, () if the scene doesn't allow it."""
    return next((offer.false_statements for _, offer in _offers(scene, [kind])), ())


def evaluation_triples(scene: Scene) -> dict[str, tuple[str, str, str]]:
    """SugarCrepe++ triples of the kinds of `EVALUATION_TRIPLES` that the scene allows.

    Returns:
        Kind -> (caption, paraphrase, negative); caption and negative are those of `evaluation_foils`.
    """
    return {
        kind: (offer.caption, offer.paraphrase or _paraphrase(offer.statement, kind, scene), *offer.false)
        for kind, offer in _offers(scene, EVALUATION_TRIPLES)
    }


def evaluation_winoground(scene: Scene) -> tuple[Scene, Scene, str, str] | None:
    """A Winoground quadruple about the axis: the scene, and the same objects mirrored at one of its diagonals.

    Returns:
        (scene, scene, caption, caption); each caption is true of its own scene only, and they differ in the
        relation alone: "left of" becomes "above" or "below", by the diagonal. None if two of the four relations
        hold, as between objects that stand diagonally, and if there is one object only.
    """
    if len(scene.objects) < 2:
        return None
    rng = random.Random(stable_seed("evaluation winoground", scene.seed))
    true = _from_either_side(scene, rng)
    if any(one.true_of(scene) for one in _other_relations(true)):
        return None
    rising = rng.random() < 0.5
    mirrored = _mirrored(scene, rising)
    false = next(one for one in _other_relations(true) if one.true_of(mirrored))
    offer = _offer(rng, true, [false])
    return scene, mirrored, offer.caption, *offer.false


def _mirrored(scene: Scene, rising: bool) -> Scene:
    """The same objects mirrored at the diagonal from the bottom left to the top right, or at the other one."""
    if scene.style != "classic":
        objects = tuple(_mirrored_object(one, rising) for one in scene.objects)
        return replace(scene, objects=objects, seed=stable_seed("mirrored", rising, scene.seed))
    words = [(one.shape, one.color, _mirrored_place(one.place, rising), one.size) for one in scene.objects]
    return Scene.of(words, scene.seed)


def _mirrored_place(place: str, rising: bool) -> str:
    column, row = PLACES[place]
    position = (2 - row, 2 - column) if rising else (row, column)
    return next(name for name, other in PLACES.items() if other == position)


def _mirrored_object(one: SceneObject, rising: bool) -> SceneObject:
    x, y = (1 - one.y, 1 - one.x) if rising else (one.y, one.x)
    return replace(one, place=_mirrored_place(one.place, rising), x=x, y=y)


class _Offer(NamedTuple):
    """A true caption and the false ones beside it, and what they state, if they are statements."""

    caption: str
    false: tuple[str, ...]
    statement: Statement | None = None
    false_statements: tuple[Statement, ...] = ()
    paraphrase: str = ""


def _offers(scene: Scene, kinds: Sequence[str]) -> Iterator[tuple[str, _Offer]]:
    for kind in kinds if len(scene.objects) > 1 else [kind for kind in kinds if kind in _SINGLE_KINDS]:
        offer = _KINDS[kind](scene, random.Random(stable_seed("evaluation foil", kind, scene.seed)))
        if offer is not None:
            yield kind, offer


def _paraphrase(statement: Statement, kind: str, scene: Scene) -> str:
    """The statement from the other object's side, in a wording of its own."""
    rng = random.Random(stable_seed("evaluation paraphrase", kind, scene.seed))
    return statement.inverse().render(pick(rng, WORDINGS), int(rng.random() * 2))


def _from_either_side(scene: Scene, rng: random.Random, with_size: bool = False) -> Statement:
    statement = focus_statement(scene, with_size)
    return statement if rng.random() < 0.5 else statement.inverse()


def _offer(
    rng: random.Random, true: Statement, false: Sequence[Statement], wordings: Sequence[str] = WORDINGS
) -> _Offer:
    wording, variant = pick(rng, wordings), int(rng.random() * 2)
    said = tuple(one.render(wording, variant) for one in false)
    return _Offer(true.render(wording, variant), said, true, tuple(false))


def _replace_rel_axis(scene: Scene, rng: random.Random) -> _Offer:
    """The relation replaced by one of the other axis, such as "left of" by "above"."""
    true = _from_either_side(scene, rng)
    opposite = RELATIONS[true.relation]
    false = [one for one in _other_relations(true) if one.relation != opposite and not one.true_of(scene)]
    return _offer(rng, true, [pick(rng, false)])


def _relation_of_four(scene: Scene, rng: random.Random) -> _Offer | None:
    """All four relations, of which one holds."""
    true = _from_either_side(scene, rng)
    others = _other_relations(true)
    return None if any(one.true_of(scene) for one in others) else _offer(rng, true, others)


def _other_relations(statement: Statement) -> list[Statement]:
    return [replace(statement, relation=name) for name in RELATIONS if name != statement.relation]


def _replace_size(scene: Scene, rng: random.Random) -> _Offer:
    """The foil of `add_att` against a caption with the true size in the same place, so both have equally many words."""
    if len(scene.objects) == 1:
        one = single_size_foil(scene)
        return _Offer(one.caption, (one.foil,), paraphrase=one.other_caption)
    _, false, render = foil_statement("add_att", scene)
    sizes = {one.pair: one.size for one in scene.objects}
    first, second = (
        replace(mention, size=mention.size and sizes[mention.color, mention.shape])
        for mention in (false.first, false.second)
    )
    true = replace(false, first=first, second=second)
    return _Offer(render(true), (render(false),), true, (false,))


def _swap_size(scene: Scene, rng: random.Random) -> _Offer | None:
    """Every object with its size, and the sizes of the focus pair exchanged."""
    true = _from_either_side(scene, rng, with_size=True)
    first, second = replace(true.first, size=true.second.size), replace(true.second, size=true.first.size)
    false = replace(true, first=first, second=second)
    return None if false == true else _offer(rng, true, [false])


def _replace_place(scene: Scene, rng: random.Random) -> _Offer:
    """Every object with its place, and one of them in a free place."""
    places = [one.place for one in scene.objects]
    free = [place for place in PLACES if place not in places]
    moved = int(rng.random() * len(places))
    wrong = [*places[:moved], pick(rng, free), *places[moved + 1 :]]
    return _Offer(_placed(scene, places), (_placed(scene, wrong),))


def _placed(scene: Scene, places: Sequence[str]) -> str:
    """The objects with places as training's short captions list them: for four there is no room for prepositions."""
    words = places if len(places) > 3 else [PLACE_PHRASES[place] for place in places]
    return enumerate_phrases(
        [f"{Mention.of(one).phrase} {word}" for one, word in zip(scene.objects, words, strict=True)]
    )


def _add_obj_present(scene: Scene, rng: random.Random) -> _Offer | None:
    """One object more, with the color of one object of the scene and the shape of another."""
    true = _from_either_side(scene, rng)
    mixed = {(one.color, other.shape) for one in scene.objects for other in scene.objects} - scene.pairs
    false = [replace(true, others=(*true.others, Mention(*pair))) for pair in sorted(mixed)]
    seen = [one for one in false if not new_held_out_pairs(one, scene)]
    return _offer(rng, true, [pick(rng, seen or false)], WORDINGS[:5]) if false else None


def _replace_count(scene: Scene, rng: random.Random) -> _Offer:
    """The long caption's sentence on how many objects there are, with another number."""
    wording = pick_opening(scene, rng)
    return _Offer(opening(scene, wording), (opening(scene, wording, wrong_count(scene, rng)),))


def wrong_count(scene: Scene, rng: random.Random) -> int:
    """Another number of objects than the scene's, drawn so that the true one of the two cannot be guessed."""
    if scene.style == "classic":
        return pick(rng, [number for number in COUNTS if number != len(scene.objects)])
    others = [number for number in NUMBERS if number != len(scene.objects)]
    return weighted(rng, others, [_WRONG_COUNTS[number] for number in others])


_KINDS: dict[str, Callable[[Scene, random.Random], _Offer | None]] = {
    "replace_rel_axis": _replace_rel_axis,
    "relation_of_four": _relation_of_four,
    "replace_size": _replace_size,
    "swap_size": _swap_size,
    "replace_place": _replace_place,
    "add_obj_present": _add_obj_present,
    "replace_count": _replace_count,
}

_SINGLE_KINDS = ("replace_size", "replace_place", "replace_count")

EVALUATION_KINDS = tuple(_KINDS)
"""`relation_of_four` has a chance of 1/4, all others of 1/2."""
