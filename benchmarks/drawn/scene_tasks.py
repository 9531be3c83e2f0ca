"""What the scene figures ask, as tasks of the suites: retrieval, foils, SugarCrepe++, Winoground, naming.

The scenes are new to the encoder, and so are some of the questions: `evaluation_foils` has kinds that no training
draws. Scores on the foils of training show what was trained, not what is understood.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vladva_benchmarks.drawn import family_winoground, naming
from vladva_benchmarks.drawn.pictures import DrawnPicture
from vladva_benchmarks.drawn.scene_retrieval import SceneRetrieval, TruthRetrieval
from vladva_benchmarks.suites.drawn_foils import trained_foils
from vladva_benchmarks.suites.tasks import Choices, Quadruples, Task, Triples
from vladva_clip.scenes import (
    EVALUATION_KINDS,
    EVALUATION_TRIPLES,
    FAMILY_SIZE,
    FOIL_KINDS,
    HELD_OUT_PAIRS,
    TRIPLE_KINDS,
    Scene,
    evaluation_foils,
    evaluation_triples,
    evaluation_winoground,
    family_size,
    scenes,
    triples,
    winoground,
)


@dataclass(frozen=True)
class World:
    """Scenes to ask about: a split in a style."""

    split: str
    style: str = "classic"

    @property
    def name(self) -> str:
        """As the figures are stored: "test", "heldout", "test varied", ..."""
        return self.split if self.style == "classic" else f"{self.split} {self.style}"


def scene_tasks(split: str, count: int, foil_count: int, style: str = "classic") -> list[Task]:
    """Return all questions about one split.

    Args:
        split: "test" or "validation" (new scenes of the trained color-shape pairs), or "heldout" (each has a
            never-seen pair).
        count: images of the gallery, whole families: a multiple of four, of eight in all styles but "classic".
        foil_count: the first `foil_count` of them are asked about foils, triples, sizes and single objects.
        style: as for `vladva_clip.scenes.scenes`.

    Returns:
        Tasks named `retrieval`, `foils/KIND`, `triples/KIND`, `evaluation_foils/KIND`, `evaluation_triples/KIND`,
        `zero_shot`, `zero_shot_single`, `size`; in the classic style `winoground` and `evaluation_winoground`, in the
        others `winoground_colors`, `winoground_places` and `winoground_axis`. A kind that no scene allows is left out.

    Raises:
        ValueError: the gallery ends within a family, or no scene is asked about foils.
    """
    size = family_size(style)
    if count < size or count % size:
        raise ValueError(f"count is {count}; expected whole families of {size}, such as 1000")
    if foil_count < 1:
        raise ValueError(f"foil_count is {foil_count}; expected at least 1")
    gallery = scenes(split, 0, count, style)
    asked = gallery[:foil_count]
    named = HELD_OUT_PAIRS if split == "heldout" else frozenset(naming.PAIRS)
    is_classic = style == "classic"
    return [
        SceneRetrieval.of(gallery) if is_classic else TruthRetrieval(gallery),
        *foil_tasks(asked),
        *_by_kind(Triples, "triples", TRIPLE_KINDS, asked, triples),
        *_by_kind(Choices, "evaluation_foils", EVALUATION_KINDS, asked, evaluation_foils),
        *_by_kind(Triples, "evaluation_triples", EVALUATION_TRIPLES, asked, evaluation_triples),
        *(_classic_winoground(split, count, asked) if is_classic else family_winoground.tasks(_cut(gallery, size))),
        naming.among_others("zero_shot", gallery, named),
        naming.alone("zero_shot_single", asked, named),
        naming.sizes("size", asked),
    ]


def foil_tasks(drawn: Sequence[Scene]) -> list[Choices]:
    """Return SugarCrepe's seven kinds, a caption and a foil for each scene."""
    return list(_by_kind(Choices, "foils", FOIL_KINDS, drawn, trained_foils))


def _by_kind(
    make: Callable[..., Task],
    group: str,
    kinds: Sequence[str],
    drawn: Sequence[Scene],
    ask: Callable[[Scene], Mapping[str, tuple]],
) -> Iterator[Task]:
    """A task for each kind, of the scenes that have it; `ask` returns the columns of a scene's row by kind."""
    asked = [(DrawnPicture(one), ask(one)) for one in drawn]
    for kind in kinds:
        if rows := [(picture, *found[kind]) for picture, found in asked if kind in found]:
            yield make(f"{group}/{kind}", *map(list, zip(*rows, strict=True)))


def _cut(gallery: Sequence[Scene], size: int) -> list[Sequence[Scene]]:
    """Cut a gallery into its families."""
    return [gallery[start : start + size] for start in range(0, len(gallery), size)]


def _classic_winoground(split: str, count: int, asked: Sequence[Scene]) -> Iterator[Quadruples]:
    yield from _winoground("winoground", [winoground(split, number) for number in range(count // FAMILY_SIZE)])
    yield from _winoground("evaluation_winoground", [found for one in asked if (found := evaluation_winoground(one))])


def _winoground(name: str, quadruples: Sequence[tuple[Scene, Scene, str, str]]) -> Iterator[Quadruples]:
    if quadruples:
        pairs = [(DrawnPicture(first), DrawnPicture(second)) for first, second, _, _ in quadruples]
        yield Quadruples(name, pairs, [(first, second) for _, _, first, second in quadruples])
