"""The embedded world as a source: drawn scenes with five short captions, one long and seven false ones."""

from functools import lru_cache
from itertools import count as count_from
from itertools import islice

from vladva_clip.scenes import (
    FAMILY_SIZE,
    SPLITS,
    Scene,
    family,
    foils,
    long_caption,
    num_objects,
    placed_captions,
    short_captions,
)
from vladva_training.data.records import Record

DEFAULT_COUNT = 100_000
_PLACES_SWAPPED = {"train": (0, 2), "test": (0, 2), "heldout": (0, 1)}  # members of `vladva_clip.scenes.family`
_COLORS_SWAPPED = {"train": (0, 1), "test": (0, 1)}
SCENE_SIZE = 64
"""Side length of vladva-tiny's images in pixels; drawing a scene takes half a millisecond at this size."""


class SceneSource:
    """`count` scenes of a split starting at scene `start`; those of a family are neighbors.

    Args:
        split: "train", "test" or "heldout".
        count: number of scenes, whole families.
        start: first scene, the start of a family.
        image_size: side length of the drawing in pixels.
        pairs: only scenes of two objects; `count` and `start` count these.
        swaps: only the two scenes of each family that differ in nothing but which of the first two objects is where;
            `count` and `start` count these.
        colors: the same with the two scenes that differ in nothing but which of the first two objects has which color.
        places: short captions that list each object with its place (`vladva_clip.scenes.placed_captions`).

    Raises:
        ValueError: an unknown split, a split family, an empty range; colors of "heldout", which has no such scenes.
    """

    def __init__(
        self,
        split: str,
        count: int = DEFAULT_COUNT,
        start: int = 0,
        image_size: int = SCENE_SIZE,
        name: str = "",
        *,
        pairs: bool = False,
        swaps: bool = False,
        colors: bool = False,
        places: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"the split of the scenes is {split!r}, expected one of {', '.join(SPLITS)}")
        self._members = _members(split, swaps, colors)
        self.group_size = size = len(self._members)
        if count < 1 or start < 0 or count % size or start % size:
            raise ValueError(
                f"found {count} scenes from {start} on; expected whole families: a count of at least {size} and a "
                f"start of at least 0, both multiples of {size}"
            )
        self.split, self.count, self.start, self.image_size = split, count, start, image_size
        self.name = name or f"scenes:{split}:{count}:{start}"
        first, last = start // size, (start + count) // size
        self._families = _families_of_two(split, first, last) if pairs else range(first, last)
        self._short = placed_captions if places else short_captions

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        scene = self._scene(index)
        return Record(
            key=f"{self.split}/{self._number(index)}",
            image=scene.draw(self.image_size),
            captions=self._captions(scene),
            hard_negatives=tuple(false for _, false in foils(scene).values()),
        )

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the five short captions and the long one of a scene."""
        return self._captions(self._scene(index))

    def _captions(self, scene: Scene) -> tuple[str, ...]:
        return (*self._short(scene), long_caption(scene))

    def _number(self, index: int) -> int:
        """The scene's index in its split."""
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        number, member = divmod(index, self.group_size)
        return self._families[number] * FAMILY_SIZE + self._members[member]

    def _scene(self, index: int) -> Scene:
        number, member = divmod(self._number(index), FAMILY_SIZE)
        return _family(self.split, number)[member]


def _members(split: str, swaps: bool, colors: bool) -> tuple[int, ...]:
    """Which scenes of each family a source has."""
    if colors and (swaps or split not in _COLORS_SWAPPED):
        found = "swaps beside colors" if swaps else f"colors of {split!r}, whose families have no such scenes"
        raise ValueError(f"found {found}; expected colors of {' or '.join(_COLORS_SWAPPED)}, without swaps")
    pairs = {swaps: _PLACES_SWAPPED, colors: _COLORS_SWAPPED}.get(True)
    return pairs[split] if pairs else tuple(range(FAMILY_SIZE))


def _families_of_two(split: str, first: int, last: int) -> list[int]:
    """The numbers of the families with two objects per scene, from the `first` such family up to the `last`."""
    return list(islice((number for number in count_from() if num_objects(split, number) == 2), first, last))


_family = lru_cache(maxsize=4)(family)  # its members are read one after another
