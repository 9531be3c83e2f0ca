"""Captions false in one fact: SugarCrepe's, SugarCrepe++'s and Winoground's, in the drawn world."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from .captions import WORDINGS, Mention, Statement, focus_statement
from .sampling import pick, stable_seed
from .single_foils import single_foils
from .vocabulary import COLORS, HELD_OUT_PAIRS, RELATIONS, SHAPES, SIZES
from .world import Scene, family

FOIL_KINDS = (
    "replace_obj",
    "replace_att",
    "replace_rel",
    "swap_obj",
    "swap_att",
    "add_obj",
    "add_att",
)
TRIPLE_KINDS = FOIL_KINDS[:5]
"""SugarCrepe++ has no added objects or attributes."""


def foils(scene: Scene) -> dict[str, tuple[str, str]]:
    """A true and a false caption of the scene for each of SugarCrepe's seven kinds.

    Args:
        scene: the scene.

    Returns:
        Kind -> (caption, foil), in the order of `FOIL_KINDS`. The foil is false of the scene and has the
        caption's wording. A kind that a hand-made scene does not allow (two objects of one color have
        no colors to swap) is absent; classic scenes of the splits have all seven, scenes of one object four.
    """
    if len(scene.objects) == 1:
        return {one.kind: (one.caption, one.foil) for one in single_foils(scene)}
    return {kind: (render(true), render(false)) for kind, true, false, render in _foil_statements(scene)}


def triples(scene: Scene) -> dict[str, tuple[str, str, str]]:
    """SugarCrepe++ triples: two true captions with one meaning and different words, and a hard negative.

    Returns:
        Kind of `TRIPLE_KINDS` -> (caption, paraphrase, negative); the negative has the caption's wording. Kinds are
        absent as in `foils`.
    """
    if len(scene.objects) == 1:
        found = [one for one in single_foils(scene) if one.kind in TRIPLE_KINDS]
        return {one.kind: (one.caption, one.other_caption, one.foil) for one in found}
    return {
        kind: (render(true), _paraphrase(true, scene, kind), render(false))
        for kind, true, false, render in _foil_statements(scene)
        if kind in TRIPLE_KINDS
    }


def winoground(split: str, number: int, style: str = "classic") -> tuple[Scene, Scene, str, str] | None:
    """A Winoground quadruple from a family: two scenes and two captions of the same words in another order.

    Args:
        split: as in `scenes`.
        number: the family's number. Even numbers of all splits but "heldout" swap colors, all others swap places.
        style: as in `scenes`.

    Returns:
        (scene, scene, caption, caption); each caption is true of its own scene only. None for a family of one object,
        which only other styles than the classic one have.
    """
    members = family(split, number, style)
    if len(members[0].objects) < 2:
        return None
    by_color = split != "heldout" and number % 2 == 0
    has_no_color_swap = split == "heldout" and style == "classic"
    first, second = members[0], members[1 if by_color or has_no_color_swap else 2]
    wording = pick(random.Random(stable_seed("winoground", split, number)), WORDINGS)
    statement = focus_statement(first)
    swapped = _swap_att(statement) if by_color else _swap_obj(statement)
    return first, second, statement.render(wording), swapped.render(wording)


def _foil_statements(scene: Scene) -> Iterator[tuple]:
    """Yields (kind, true statement, false statement, the rendering both share) of the kinds that the scene allows."""
    for kind in FOIL_KINDS:
        true, false, render = foil_statement(kind, scene)
        if false is not None:
            yield kind, true, false, render


def foil_statement(kind: str, scene: Scene) -> tuple[Statement, Statement | None, Callable[[Statement], str]]:
    """The statements of a foil of one of the seven kinds, for a scene of two objects or more.

    Returns:
        The true statement, the false one (None if the scene does not allow the kind), the rendering both share.
    """
    rng = random.Random(stable_seed("foil", kind, scene.seed))
    true = focus_statement(scene)
    true = true if rng.random() < 0.5 else true.inverse()
    false = _false_statement(kind, true, scene, rng)
    wording, variant = pick(rng, WORDINGS[:5] if kind == "add_obj" else WORDINGS), int(rng.random() * 2)
    return true, false, lambda statement: statement.render(wording, variant)


def _false_statement(kind: str, true: Statement, scene: Scene, rng: random.Random) -> Statement | None:
    """One of the kind's changes that makes the statement false, if possible without a new held-out pair."""
    candidates = [statement for statement in _CHANGES[kind](true, scene) if not statement.true_of(scene)]
    seen = [s for s in candidates if not new_held_out_pairs(s, scene)]
    return pick(rng, seen or candidates) if candidates else None


def new_held_out_pairs(statement: Statement, scene: Scene) -> set[tuple[str, str]]:
    """The held-out pairs that a statement names and the scene does not have."""
    return ({(mention.color, mention.shape) for mention in statement.mentions} & HELD_OUT_PAIRS) - scene.pairs


def _paraphrase(statement: Statement, scene: Scene, kind: str) -> str:
    rng = random.Random(stable_seed("paraphrase", kind, scene.seed))
    return statement.inverse().render(pick(rng, WORDINGS), int(rng.random() * 2))


def _replace_obj(true: Statement, scene: Scene) -> list[Statement]:
    absent = [shape for shape in SHAPES if shape not in {o.shape for o in scene.objects}]
    return _with_changed_focus(true, lambda mention: [replace(mention, shape=shape) for shape in absent])


def _replace_att(true: Statement, scene: Scene) -> list[Statement]:
    absent = [color for color in COLORS if color not in {o.color for o in scene.objects}]
    return _with_changed_focus(true, lambda mention: [replace(mention, color=color) for color in absent])


def _add_att(true: Statement, scene: Scene) -> list[Statement]:
    return _with_changed_focus(true, lambda mention: [replace(mention, size=size) for size in SIZES])


def _with_changed_focus(true: Statement, changes) -> list[Statement]:
    """Every statement that changes the first or the second mention."""
    first = [replace(true, first=mention) for mention in changes(true.first)]
    return first + [replace(true, second=mention) for mention in changes(true.second)]


def _add_obj(true: Statement, scene: Scene) -> list[Statement]:
    present = {word for pair in scene.pairs for word in pair}
    absent = [Mention(c, s) for c in COLORS for s in SHAPES if c not in present and s not in present]
    return [replace(true, others=(*true.others, mention)) for mention in absent]


def _swap_obj(true: Statement) -> Statement:
    return replace(true, first=true.second, second=true.first)


def _swap_att(true: Statement) -> Statement:
    first, second = true.first, true.second
    return replace(true, first=replace(first, color=second.color), second=replace(second, color=first.color))


_CHANGES = {
    "replace_obj": _replace_obj,
    "replace_att": _replace_att,
    "replace_rel": lambda true, scene: [replace(true, relation=RELATIONS[true.relation])],
    "swap_obj": lambda true, scene: [_swap_obj(true)],
    "swap_att": lambda true, scene: [_swap_att(true)],
    "add_obj": _add_obj,
    "add_att": _add_att,
}
