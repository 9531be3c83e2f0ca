"""Winoground from the families of the varied world: two members that differ in one fact, and a caption of each."""

import random
from collections.abc import Iterator, Sequence

from vladva_benchmarks.drawn.pictures import DrawnPicture
from vladva_benchmarks.suites.tasks import Quadruples
from vladva_clip.scenes import VARIED_MEMBERS, Scene, focus_statement, stable_seed
from vladva_clip.scenes.captions import WORDINGS, Statement
from vladva_clip.scenes.sampling import pick

FACTS = ("colors", "places", "axis")


def tasks(families: Sequence[Sequence[Scene]]) -> Iterator[Quadruples]:
    """Yield `winoground_FACT` for each fact of `FACTS`: colors swapped, places swapped, the relation of the other axis.

    The first two have the same words in another order. The third differs in the word of the relation alone.
    """
    for fact in FACTS:
        found = [quadruple for members in families if (quadruple := quadruple_of(members, fact))]
        if found:
            pictures = [(DrawnPicture(first), DrawnPicture(second)) for first, second, _, _ in found]
            yield Quadruples(f"winoground_{fact}", pictures, [(first, second) for _, _, first, second in found])


def quadruple_of(members: Sequence[Scene], fact: str) -> tuple[Scene, Scene, str, str] | None:
    """Return the family's first member, the one that differs in a fact, and a caption of each.

    Returns:
        (scene, scene, caption, caption); each caption is true of its own scene only. None for scenes of one object,
        and where both relations hold in one of the scenes, since the objects stand diagonally.
    """
    first, second = members[0], members[VARIED_MEMBERS.index(fact)]
    if min(len(first.objects), len(second.objects)) < 2:
        return None
    statements = focus_statement(first), _said_alike(second, fact)
    if statements[0].true_of(second) or statements[1].true_of(first):
        return None
    rng = random.Random(stable_seed("family winoground", fact, first.seed))
    wording, variant = pick(rng, WORDINGS), int(rng.random() * 2)
    return first, second, *(one.render(wording, variant) for one in statements)


def _said_alike(second: Scene, fact: str) -> Statement:
    """What the second member's caption says: with swapped places, in the same words as the first one's."""
    statement = focus_statement(second)
    return statement.inverse() if fact == "places" else statement
