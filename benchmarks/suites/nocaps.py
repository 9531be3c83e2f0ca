"""nocaps' validation split (Agrawal et al., arXiv 1812.08658) as retrieval: three domains, each a gallery of its own.

clip_benchmark does not have it. The paper reports the mean of the three domains.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from vladva_benchmarks.suites import layouts
from vladva_benchmarks.suites.annotations import captions_by_image, column, read_json, unique
from vladva_benchmarks.suites.layouts import Needed
from vladva_benchmarks.suites.pictures import Picture, require
from vladva_benchmarks.suites.suite import Suite
from vladva_benchmarks.suites.tasks import Mean, Retrieval

DOMAINS = ("in-domain", "near-domain", "out-domain")
ANNOTATIONS, IMAGES = "nocaps_val_4500_captions.json", "val"
_IMAGES = (
    "the pictures of Open Images' validation set that the annotations name (https://nocaps.org/download): "
    f"mkdir -p {{root}}/{IMAGES} && jq -r '.images[].coco_url' {{root}}/{ANNOTATIONS} | "
    f"wget -c -i - -P {{root}}/{IMAGES} (or, if these addresses don't answer, all 12 GB of that set: "
    f"aws s3 --no-sign-request sync s3://open-images-dataset/validation {{root}}/{IMAGES})"
)
NEEDED = (
    Needed((ANNOTATIONS,), f"wget https://nocaps.s3.amazonaws.com/{ANNOTATIONS} -P {{root}}"),
    Needed((IMAGES,), _IMAGES),
)


def read(root: Path) -> Iterator[Retrieval | Mean]:
    """The three domains and their mean."""
    place = layouts.require(root, "nocaps", NEEDED)
    annotations = place / ANNOTATIONS
    data = read_json(annotations, dict)
    captions = captions_by_image(data, annotations)
    pictures, texts = defaultdict(list), defaultdict(list)
    for number, name, domain in zip(*_images(data, annotations), strict=True):
        pictures[domain].append(Picture(f"nocaps/{IMAGES}/{name}", place / IMAGES / name))
        texts[domain].append(captions[number])
    if set(pictures) != set(DOMAINS):
        raise ValueError(f"{annotations} has the domains {sorted(pictures)}, expected {list(DOMAINS)}; get it again")
    every = [one for several in pictures.values() for one in several]
    require(every, annotations, layouts.instructions(_IMAGES, place))
    parts = [Retrieval(f"nocaps/{domain}", pictures[domain], texts[domain]) for domain in DOMAINS]
    yield from (*parts, Mean("nocaps/mean", parts))


def _images(data: dict, path: Path) -> tuple[list, list, list]:
    rows = data.get("images", [])
    numbers = unique(column(rows, "id", path, int), "id", path)
    return numbers, column(rows, "file_name", path), column(rows, "domain", path)


# nocaps.org/download
SUITE = Suite(
    "nocaps",
    read,
    {
        "nocaps/in-domain": layouts.caption_counts(648, 10),
        "nocaps/near-domain": layouts.caption_counts(2938, 10),
        "nocaps/out-domain": layouts.caption_counts(914, 10),
        "nocaps/mean": {"images": 4500, "captions": 45_000},
    },
)
