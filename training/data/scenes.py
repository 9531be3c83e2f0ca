"""The embedded world as a source: drawn scenes with short captions, a long one and false ones."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import count as count_from
from itertools import islice

from vladva_clip.records.records import Record
from vladva_clip.scenes import (
    SPLITS,
    STYLES,
    Saying,
    Scene,
    facts,
    family,
    family_size,
    foils,
    hard_negatives,
    long_caption,
    num_objects,
    placed_sayings,
    short_sayings,
)

DEFAULT_COUNT = 100_000
MEMBERS = ("swaps", "colors", "axis", "arrangement")
"""In what the scenes of a family differ that a source can be limited to."""
_MEMBERS = {  # of `vladva_clip.scenes.family`
    "classic": {"swaps": (0, 2), "colors": (0, 1)},
    "other": {"swaps": (0, 2), "colors": (0, 1), "axis": (0, 3), "arrangement": (0, 1, 2, 3)},
    "classic heldout": {"swaps": (0, 1)},
    "other heldout": {"swaps": (0, 2), "axis": (0, 3)},
}
SCENE_SIZE = 64
"""Shorter side of vladva-tiny's pictures in pixels; drawing a scene takes about a millisecond at this size."""


class SceneSource:
    """`count` scenes of a split starting at scene `start`; those of a family are neighbors.

    Args:
        split: "train", "validation", "test" or "heldout".
        count: number of scenes, whole families.
        start: first scene, the start of a family.
        image_size: shorter side of the drawing in pixels; classic scenes are square.
        style: "classic", "varied" or "unseen" (`vladva_clip.scenes.STYLES`).
        pairs: only families whose first scene has two objects; `count` and `start` count their scenes.
        members: only the two scenes of each family that differ in nothing but one thing; `count` and `start` count
            these. "swaps": which of the first two objects is where; "colors": which of them has which color; "axis": on
            which axis they stand, so that the relation is one of the other axis. "arrangement": the first scene and
            these three, which a bag of words can't tell apart. Families of one object are left out.
        places: short captions that list each object with its place (`vladva_clip.scenes.placed_captions`).
        told: only the short captions that tell what the family varies: they are false of its first scene, or, of the
            first scene, false of one other. If there are none, all of them.
        long: no short captions, the long one alone; it claims nothing that `facts` has.

    Raises:
        ValueError: an unknown split or style, a split family, an empty range; members that the families don't have:
            colors and arrangement of "heldout", axis and arrangement of "classic".
    """

    def __init__(
        self,
        split: str,
        count: int = DEFAULT_COUNT,
        start: int = 0,
        image_size: int = SCENE_SIZE,
        name: str = "",
        *,
        style: str = "classic",
        pairs: bool = False,
        members: str | None = None,
        places: bool = False,
        told: bool = False,
        long: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"the split of the scenes is {split!r}, expected one of {', '.join(SPLITS)}")
        if style not in STYLES:
            raise ValueError(f"the style of the scenes is {style!r}, expected one of {', '.join(STYLES)}")
        self._members = _members(split, style, members)
        self.group_size = size = len(self._members)
        if count < 1 or start < 0 or count % size or start % size:
            raise ValueError(
                f"found {count} scenes from {start} on; expected whole families: a count of at least {size} and a "
                f"start of at least 0, both multiples of {size}"
            )
        self.split, self.style, self.count, self.start, self.image_size = split, style, count, start, image_size
        self.name = name or f"scenes:{split}:{count}:{start}"
        allowed = {2} if pairs else {2, 3, 4} if members and style != "classic" else None
        self._families = _families(split, style, range(start // size, (start + count) // size), allowed)
        self._told = told
        self._short = _nothing if long else placed_sayings if places else short_sayings
        self._shelf = split if style == "classic" else f"{style}/{split}"  # of the keys

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        scene, sayings = self._scene(index), self._sayings(index)
        return Record(
            key=f"{self._shelf}/{self._number(index)}",
            image=scene.draw(self.image_size),
            captions=_captions(sayings, scene),
            hard_negatives=_FalseCaptions(scene),
            facts=facts(scene),
            claims=dict(sayings),
        )

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the short captions and the long one of a scene."""
        return _captions(self._sayings(index), self._scene(index))

    def _sayings(self, index: int) -> list[Saying]:
        sayings = self._short(self._scene(index))
        if not self._told:
            return sayings
        return [saying for saying in sayings if not saying.claims <= facts(self._rival(index))] or sayings

    def _rival(self, index: int) -> Scene:
        """The scene from which the captions of this one are to tell it."""
        number, member = divmod(index, self.group_size)
        return self._scene(index - member if member else index + 1 + number % (self.group_size - 1))

    def _number(self, index: int) -> int:
        """The scene's index in its split."""
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        number, member = divmod(index, self.group_size)
        return self._families[number] * family_size(self.style) + self._members[member]

    def _scene(self, index: int) -> Scene:
        number, member = divmod(self._number(index), family_size(self.style))
        return _family(self.split, number, self.style)[member]


def _nothing(scene: Scene) -> list[Saying]:
    return []


def _captions(sayings: Sequence[Saying], scene: Scene) -> tuple[str, ...]:
    return (*(saying.text for saying in sayings), long_caption(scene))


class _FalseCaptions(Sequence):
    """A scene's false captions, written when they are first read: that takes as long as half a drawing.

    Those of classic scenes are of the seven kinds that training has always used; evaluations ask for others.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    @cached_property
    def _texts(self) -> list[str]:
        if self._scene.style == "classic":
            return [false for _, false in foils(self._scene).values()]
        return hard_negatives(self._scene)

    def __getitem__(self, index: int) -> str:
        return self._texts[index]

    def __len__(self) -> int:
        return len(self._texts)


def _members(split: str, style: str, members: str | None) -> tuple[int, ...]:
    """Which scenes of each family a source has."""
    if members is None:
        return tuple(range(family_size(style)))
    known = _MEMBERS[("classic" if style == "classic" else "other") + (" heldout" if split == "heldout" else "")]
    if members not in known:
        raise ValueError(
            f"found {members} of {style} scenes of {split!r}, whose families have no such scenes; expected "
            f"{' or '.join(known)}"
        )
    return known[members]


def _families(split: str, style: str, places: range, allowed: set[int] | None) -> range | list[int]:
    """The numbers of some families, counting only those whose first scene has an allowed number of objects."""
    if allowed is None:
        return places
    found = (number for number in count_from() if num_objects(split, number, style) in allowed)
    return list(islice(found, places.start, places.stop))


_family = lru_cache(maxsize=4)(family)  # its members are read one after another
