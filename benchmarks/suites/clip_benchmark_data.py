"""clip_benchmark's data sets, in its layouts: ImageNet, Flickr30k, COCO, SugarCrepe.

ImageNet is read by clip_benchmark's own classes. Its builder downloads missing files; we check first that all of them
are there, so nothing is downloaded. We read annotations ourselves, since clip_benchmark decodes them in the locale's
encoding.
"""

import contextlib
import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchvision.datasets.imagenet import load_meta_file

from vladva_benchmarks.suites import layouts
from vladva_benchmarks.suites.annotations import captions_by_image, column, read_json, read_lines, unique
from vladva_benchmarks.suites.layouts import Needed
from vladva_benchmarks.suites.pictures import Picture, require
from vladva_benchmarks.suites.suite import Suite
from vladva_benchmarks.suites.tasks import Classification, Foils, Retrieval
from vladva_clip.interface import extras
from vladva_clip.scenes import FOIL_KINDS as KINDS  # the drawn world has SugarCrepe's seven kinds, under their names

COCO_CAPTIONS = 5  # Karpathy's split has five to seven for a picture; CLIP's papers take the first five
_KARPATHY = "wget https://github.com/mehdidc/retrieval_annotations/releases/download/1.0.0/{file} -P {{root}}"
_COCO_ZIP = "wget http://images.cocodataset.org/zips/{0}.zip -P {{root}} && unzip {{root}}/{0}.zip -d {{root}}"
VAL2017 = _COCO_ZIP.format("val2017")

IMAGENET = (
    Needed(
        ("val", "ILSVRC2012_img_val.tar"),
        "ILSVRC2012_img_val.tar from https://image-net.org/challenges/LSVRC/2012/2012-downloads.php (an account is "
        "needed), put into {root}",
    ),
    Needed(
        ("meta.bin", "ILSVRC2012_devkit_t12.tar.gz"),
        "wget https://image-net.org/data/ILSVRC/2012/ILSVRC2012_devkit_t12.tar.gz -P {root}",
    ),
)
_UNPACK = (
    "get it again, or remove {root}/val and {root}/meta.bin: they are rebuilt from ILSVRC2012_img_val.tar and "
    "ILSVRC2012_devkit_t12.tar.gz in {root}"
)
FLICKR_ANNOTATIONS, COCO_ANNOTATIONS = "flickr30k_test_karpathy.txt", "coco_test_karpathy.json"
_FLICKR_IMAGES = (
    "from https://www.kaggle.com/datasets/hsankesara/flickr-image-dataset "
    "(kaggle datasets download -d hsankesara/flickr-image-dataset), the *.jpg of flickr30k_images straight into {root}"
)
FLICKR = (
    Needed((".",), _FLICKR_IMAGES),
    Needed((FLICKR_ANNOTATIONS,), _KARPATHY.format(file=FLICKR_ANNOTATIONS)),
)
COCO = (
    Needed(("val2014",), _COCO_ZIP.format("val2014")),
    Needed((COCO_ANNOTATIONS,), _KARPATHY.format(file=COCO_ANNOTATIONS)),
)
_SUGAR_CREPE = "wget https://raw.githubusercontent.com/RAIVNLab/sugar-crepe/main/data/{kind}.json -P {{root}}"
SUGARCREPE = (
    Needed(("val2017",), VAL2017),
    *(Needed((f"{kind}.json",), _SUGAR_CREPE.format(kind=kind)) for kind in KINDS),
)


def imagenet1k(root: Path) -> Iterator[Classification]:
    """ImageNet's validation set with the 1000 names and 80 templates that clip_benchmark ships."""
    place = layouts.require(root, "imagenet1k", IMAGENET)
    data, known = _imagenet(place)
    if len(known) != len(data.classes):
        raise ValueError(f"{place / 'meta.bin'} knows {len(known)} classes, expected {len(data.classes)}: remove it")
    labels = [known.index(wnid) for wnid in data.wnids]  # among all classes: some may have no folder
    pictures = [Picture(Path(path).relative_to(root).as_posix(), Path(path)) for path, _ in data.samples]
    require(pictures, place / "val", layouts.instructions(IMAGENET[0].how, place))
    yield Classification(
        "imagenet1k", pictures, [labels[number] for _, number in data.samples], data.classes, data.templates
    )


def _imagenet(place: Path) -> tuple[Any, list[str]]:
    """clip_benchmark's data set, and all classes' folder names in order."""
    extras.require("clip_benchmark", "requests", purpose="the suite imagenet")
    from clip_benchmark.datasets.builder import build_dataset

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            data = build_dataset("imagenet1k", root=str(place), transform=None, split="test")
        return data, sorted(load_meta_file(place)[0])
    except Exception as error:  # torchvision unpacks archives, unpickles and reads MATLAB files: it may raise anything
        raise ValueError(
            f"{place / 'val'} can't be read as imagenet1k ({type(error).__name__}: {error}): another layout, or a "
            f"truncated file; {layouts.instructions(_UNPACK, place)}"
        ) from error


def flickr30k(root: Path) -> Iterator[Retrieval]:
    """Flickr30k's test split of 1000 pictures with five captions each (Karpathy's)."""
    place = layouts.require(root, "flickr30k", FLICKR)
    annotations = place / FLICKR_ANNOTATIONS
    captions = _flickr_captions(annotations)
    pictures = [Picture(f"flickr30k/{name}", place / name) for name in captions]
    require(pictures, annotations, layouts.instructions(_FLICKR_IMAGES, place))
    yield Retrieval("flickr30k", pictures, list(captions.values()))


def _flickr_captions(path: Path) -> dict[str, list[str]]:
    """Captions by picture. The table has no quotes: the name ends at the first comma after `.jpg`."""
    captions = defaultdict(list)
    head, *lines = [line.strip() for line in read_lines(path)]
    if ".jpg," in head:
        raise ValueError(f"{path} begins with {head!r:.80}, expected a line of column names; get it again")
    for number, line in enumerate(lines, 2):
        name, comma, caption = line.partition(".jpg,")
        if line and not (name and comma and caption):
            raise ValueError(f"line {number} of {path} is {line!r:.80}, expected NAME.jpg,CAPTION; get it again")
        if line:
            captions[f"{name}.jpg"].append(caption)
    return captions


def coco(root: Path) -> Iterator[Retrieval]:
    """COCO's test split of 5000 pictures (Karpathy's, of val2014), the first five captions of each."""
    place = layouts.require(root, "coco", COCO)
    annotations = place / COCO_ANNOTATIONS
    data = read_json(annotations, dict)
    rows, captions = data.get("images", []), captions_by_image(data, annotations)
    numbers = unique(column(rows, "id", annotations, int), "id", annotations)
    named = sorted(zip(numbers, column(rows, "file_name", annotations), strict=True))
    pictures = [Picture(f"coco/val2014/{name}", place / "val2014" / name) for _, name in named]
    require(pictures, annotations, layouts.instructions(COCO[0].how, place))
    yield Retrieval("mscoco_captions", pictures, [captions[number][:COCO_CAPTIONS] for number, _ in named])


def sugarcrepe(root: Path) -> Iterator[Foils]:
    """SugarCrepe's seven kinds of foils, on pictures of COCO's val2017."""
    place = layouts.require(root, "sugarcrepe", SUGARCREPE)
    for kind in KINDS:
        annotations = place / f"{kind}.json"
        rows = list(read_json(annotations, dict).values())
        names = column(rows, "filename", annotations)
        pictures = [Picture(f"sugarcrepe/val2017/{name}", place / "val2017" / name) for name in names]
        require(pictures, annotations, layouts.instructions(VAL2017, place))
        sides = (column(rows, side, annotations) for side in ("caption", "negative_caption"))
        yield Foils(f"sugar_crepe/{kind}", pictures, *sides)


# 7,512 pairs in the paper (arXiv 2306.14610); the published files have lost one of swap_obj's
_SUGARCREPE_COUNTS: dict[str, int | tuple[int, ...]] = {
    **{"replace_obj": 1652, "replace_att": 788, "replace_rel": 1406, "swap_obj": (245, 246), "swap_att": 666},
    **{"add_obj": 2062, "add_att": 692},
}
IMAGENET1K_SUITE = Suite("imagenet1k", imagenet1k, {"imagenet1k": {"images": 50_000, "classes": 1000}})
FLICKR30K_SUITE = Suite("flickr30k", flickr30k, {"flickr30k": layouts.caption_counts(1000, 5)})
COCO_SUITE = Suite("coco", coco, {"mscoco_captions": layouts.caption_counts(5000, COCO_CAPTIONS)})
SUGARCREPE_SUITE = Suite(
    "sugarcrepe",
    sugarcrepe,
    {f"sugar_crepe/{kind}": {"pairs": count} for kind, count in _SUGARCREPE_COUNTS.items()},
)
