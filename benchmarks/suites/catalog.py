"""The suites by name, in the order in which they run."""

from collections.abc import Sequence

from vladva_benchmarks.suites import clip_benchmark_data, drawn_scenes, nocaps, sugarcrepe_pp, winoground
from vladva_benchmarks.suites.suite import Suite
from vladva_clip.storage.config import nearest

_ALL = (
    clip_benchmark_data.IMAGENET1K_SUITE,
    clip_benchmark_data.FLICKR30K_SUITE,
    clip_benchmark_data.COCO_SUITE,
    nocaps.SUITE,
    clip_benchmark_data.SUGARCREPE_SUITE,
    sugarcrepe_pp.SUITE,
    winoground.SUITE,
    drawn_scenes.SUITE,
    drawn_scenes.VARIED_SUITE,
    drawn_scenes.UNSEEN_SUITE,
)
SUITES = {suite.name: suite for suite in _ALL}
PAPER = "paper"


def find(names: Sequence[str]) -> list[Suite]:
    """Return suites by name, each once; `paper` stands for the suites of the paper's tables.

    Raises:
        ValueError: an unknown name.
    """
    wanted: dict[str, Suite] = {}
    for name in names:
        if name != PAPER and name not in SUITES:
            raise ValueError(f"unknown suite {name!r}; {nearest(name, [*SUITES, PAPER])}")
        wanted |= {one.name: one for one in (_of_the_paper() if name == PAPER else [SUITES[name]])}
    return list(wanted.values())


def _of_the_paper() -> list[Suite]:
    return [suite for suite in SUITES.values() if suite.in_paper]
