"""SugarCrepe++ (Dumpala et al., arXiv 2406.11171): two captions with one meaning, and a foil. Not in clip_benchmark."""

from collections.abc import Iterator
from pathlib import Path

from vladva_benchmarks.suites import layouts
from vladva_benchmarks.suites.annotations import column, read_json
from vladva_benchmarks.suites.clip_benchmark_data import VAL2017
from vladva_benchmarks.suites.layouts import Needed
from vladva_benchmarks.suites.pictures import Picture, require
from vladva_benchmarks.suites.suite import Suite
from vladva_benchmarks.suites.tasks import Triples
from vladva_clip.scenes import TRIPLE_KINDS as KINDS

IMAGES = "val2017"
_FILE = "wget https://raw.githubusercontent.com/Sri-Harsha/scpp/main/data/{kind}.json -P {{root}}"
_LINK = f"mkdir -p {{root}} && ln -s ../sugarcrepe/{IMAGES} {{root}}"
_IMAGES = f"{VAL2017}, or a link to the folder that the suite sugarcrepe has: {_LINK}"
NEEDED = (
    Needed((IMAGES,), _IMAGES),
    *(Needed((f"{kind}.json",), _FILE.format(kind=kind)) for kind in KINDS),
)


def read(root: Path) -> Iterator[Triples]:
    """The five kinds, on pictures of COCO's val2017."""
    place = layouts.require(root, "sugarcrepe_pp", NEEDED)
    for kind in KINDS:
        annotations = place / f"{kind}.json"
        rows = read_json(annotations, list)
        names = column(rows, "filename", annotations)
        pictures = [Picture(f"sugarcrepe_pp/{IMAGES}/{name}", place / IMAGES / name) for name in names]
        require(pictures, annotations, layouts.instructions(_IMAGES, place))
        sides = (column(rows, side, annotations) for side in ("caption", "caption2", "negative_caption"))
        yield Triples(f"sugarcrepe_pp/{kind}", pictures, *sides)


_COUNTS = {"replace_obj": 1652, "replace_att": 788, "replace_rel": 1406, "swap_obj": 245, "swap_att": 666}
SUITE = Suite("sugarcrepe_pp", read, {f"sugarcrepe_pp/{kind}": {"triples": count} for kind, count in _COUNTS.items()})
