"""The suites by name: what each reads, and how much of it there must be."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vladva_benchmarks.suites import clip_benchmark_data, drawn_scenes, nocaps, sugarcrepe_pp, winoground
from vladva_benchmarks.suites.layouts import Counts
from vladva_benchmarks.suites.tasks import Task
from vladva_clip.storage.config import nearest


@dataclass(frozen=True)
class Suite:
    """read: the data root -> its data sets, or a ValueError. counts: as published."""

    name: str
    read: Callable[[Path], Iterator[Task]]
    counts: Counts


def _captions(images: int, each: int) -> dict[str, int]:
    per_image = {"captions_per_image_min": each, "captions_per_image_max": each}
    return {"images": images, "captions": images * each, **per_image}


# nocaps.org/download
_NOCAPS = {
    "nocaps/in-domain": _captions(648, 10),
    "nocaps/near-domain": _captions(2938, 10),
    "nocaps/out-domain": _captions(914, 10),
    "nocaps/mean": {"images": 4500, "captions": 45_000},
}
# 7,512 pairs in the paper (arXiv 2306.14610), of which the published files have lost one of swap_obj's
_SUGARCREPE: dict[str, int | tuple[int, ...]] = {
    **{"replace_obj": 1652, "replace_att": 788, "replace_rel": 1406, "swap_obj": (245, 246), "swap_att": 666},
    **{"add_obj": 2062, "add_att": 692},
}
_SUGARCREPE_PP = {"replace_obj": 1652, "replace_att": 788, "replace_rel": 1406, "swap_obj": 245, "swap_att": 666}

_ALL = (
    Suite("imagenet1k", clip_benchmark_data.imagenet1k, {"imagenet1k": {"images": 50_000, "classes": 1000}}),
    Suite("flickr30k", clip_benchmark_data.flickr30k, {"flickr30k": _captions(1000, 5)}),
    Suite("coco", clip_benchmark_data.coco, {"mscoco_captions": _captions(5000, 5)}),
    Suite("nocaps", nocaps.read, _NOCAPS),
    Suite(
        "sugarcrepe",
        clip_benchmark_data.sugarcrepe,
        {f"sugar_crepe/{kind}": {"pairs": count} for kind, count in _SUGARCREPE.items()},
    ),
    Suite(
        "sugarcrepe_pp",
        sugarcrepe_pp.read,
        {f"sugarcrepe_pp/{kind}": {"triples": count} for kind, count in _SUGARCREPE_PP.items()},
    ),
    Suite("winoground", winoground.read, {"winoground": {"quadruples": 400}}),
    Suite("scenes", drawn_scenes.read, {}),
)
SUITES = {suite.name: suite for suite in _ALL}
PAPER = "paper"
SCENES = "scenes"  # drawn where it is missing


def find(names: list[str]) -> list[Suite]:
    """Return suites by name, each once; `paper` stands for those of the paper's tables.

    Raises:
        ValueError: an unknown name.
    """
    wanted: dict[str, Suite] = {}
    for name in names:
        if name != PAPER and name not in SUITES:
            raise ValueError(f"unknown suite {name!r}; {nearest(name, [*SUITES, PAPER])}")
        several = [one for one in SUITES if one != SCENES] if name == PAPER else [name]
        wanted |= {one: SUITES[one] for one in several}
    return list(wanted.values())
