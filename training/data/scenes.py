"""The embedded world as a source: drawn scenes with five short captions, a long one and seven false ones."""

from functools import lru_cache

from vladva_clip.scenes import FAMILY_SIZE, SPLITS, Scene, family, foils, long_caption, short_captions
from vladva_training.data.records import Record

DEFAULT_COUNT = 100_000
SCENE_SIZE = 64
"""Pixels on a side of vladva-tiny's images; a scene costs half a millisecond at this size."""


class SceneSource:
    """`count` scenes of a split from scene `start` on; the four of a family stand together.

    Args:
        split: "train", "test" or "heldout".
        count: number of scenes, whole families.
        start: first scene, at the border of a family.
        image_size: pixels on a side of the drawing.

    Raises:
        ValueError: an unknown split, a family cut in two, an empty range.
    """

    group_size = FAMILY_SIZE

    def __init__(
        self, split: str, count: int = DEFAULT_COUNT, start: int = 0, image_size: int = SCENE_SIZE, name: str = ""
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"the split of the scenes is {split!r}, expected one of {', '.join(SPLITS)}")
        if count < 1 or start < 0 or count % FAMILY_SIZE or start % FAMILY_SIZE:
            raise ValueError(
                f"found {count} scenes from {start} on; expected whole families: a count from {FAMILY_SIZE} up and a "
                f"start from 0 up, both multiples of {FAMILY_SIZE}"
            )
        self.split, self.count, self.start, self.image_size = split, count, start, image_size
        self.name = name or f"scenes:{split}:{count}:{start}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        scene = self._scene(index)
        return Record(
            key=f"{self.split}/{self.start + index}",
            image=scene.draw(self.image_size),
            captions=_captions(scene),
            hard_negatives=tuple(false for _, false in foils(scene).values()),
        )

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the five short captions and the long one of a scene."""
        return _captions(self._scene(index))

    def _scene(self, index: int) -> Scene:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        number, member = divmod(self.start + index, FAMILY_SIZE)
        return _family(self.split, number)[member]


def _captions(scene: Scene) -> tuple[str, ...]:
    return (*short_captions(scene), long_caption(scene))


_family = lru_cache(maxsize=4)(family)  # its members are asked for one after another
