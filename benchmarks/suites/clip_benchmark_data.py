"""The data sets that clip_benchmark reads, through its own classes: ImageNet, Flickr30k, COCO, SugarCrepe.

Its builder downloads what is missing; here all of it has been looked for before, so nothing is downloaded.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torchvision.datasets.imagenet import load_meta_file

from vladva_benchmarks.suites import layouts
from vladva_benchmarks.suites.annotations import column
from vladva_benchmarks.suites.layouts import Needed
from vladva_benchmarks.suites.pictures import Picture, require
from vladva_benchmarks.suites.tasks import Classification, Foils, Retrieval
from vladva_clip.scenes import FOIL_KINDS as KINDS  # the drawn world has SugarCrepe's seven kinds, under their names

COCO_CAPTIONS = 5  # of the five to seven that Karpathy's split has for a picture, the first, as CLIP's papers take
_KARPATHY = "wget https://github.com/mehdidc/retrieval_annotations/releases/download/1.0.0/{file} -P {{root}}"
_COCO_ZIP = "wget http://images.cocodataset.org/zips/{0}.zip -P {{root}} && unzip {{root}}/{0}.zip -d {{root}}"
VAL2017 = _COCO_ZIP.format("val2017")

# what these readers raise for files of another layout: pycocotools asserts, torchvision unpickles
_MISREAD = (ValueError, LookupError, TypeError, AttributeError, AssertionError, UnpicklingError, RuntimeError, OSError)

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
    "get it again, or remove {root}/val and {root}/meta.bin: they are made anew from ILSVRC2012_img_val.tar and "
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
    data = _built("imagenet1k", place, place / "val", "zeroshot_classification", layouts.instructions(_UNPACK, place))
    known = sorted(load_meta_file(place)[0])
    if len(known) != len(data.classes):
        raise ValueError(f"{place / 'meta.bin'} knows {len(known)} classes, expected {len(data.classes)}: remove it")
    labels = [known.index(wnid) for wnid in data.wnids]  # of all classes, also where some have no folder
    pictures = [Picture(Path(path).relative_to(root).as_posix(), Path(path)) for path, _ in data.samples]
    require(pictures, place / "val", layouts.instructions(IMAGENET[0].how, place))
    yield Classification(
        "imagenet1k", pictures, [labels[number] for _, number in data.samples], data.classes, data.templates
    )


def flickr30k(root: Path) -> Iterator[Retrieval]:
    """Flickr30k's test split of 1000 pictures with five captions each (Karpathy's)."""
    place = layouts.require(root, "flickr30k", FLICKR)
    annotations = place / FLICKR_ANNOTATIONS
    data = _built("flickr30k", place, annotations, "zeroshot_retrieval")
    pictures = [Picture(f"flickr30k/{name}", place / name) for name, _ in data.data]
    require(pictures, annotations, layouts.instructions(_FLICKR_IMAGES, place))
    yield Retrieval("flickr30k", pictures, [captions for _, captions in data.data])


def coco(root: Path) -> Iterator[Retrieval]:
    """COCO's test split of 5000 pictures (Karpathy's, of val2014), the first five captions of each."""
    place = layouts.require(root, "coco", COCO)
    annotations = place / COCO_ANNOTATIONS
    data = _built("mscoco_captions", place, annotations, "zeroshot_retrieval")
    names = column([data.coco.imgs[number] for number in data.ids], "file_name", annotations)
    pictures = [Picture(f"coco/val2014/{name}", place / "val2014" / name) for name in names]
    require(pictures, annotations, layouts.instructions(COCO[0].how, place))
    captions = [column(data.coco.imgToAnns[number], "caption", annotations) for number in data.ids]
    yield Retrieval("mscoco_captions", pictures, [several[:COCO_CAPTIONS] for several in captions])


def sugarcrepe(root: Path) -> Iterator[Foils]:
    """SugarCrepe's seven kinds of foils, on pictures of COCO's val2017."""
    place = layouts.require(root, "sugarcrepe", SUGARCREPE)
    for kind in KINDS:
        annotations = place / f"{kind}.json"
        data = _built(f"sugar_crepe/{kind}", place, annotations, "image_caption_selection")
        rows = list(data.ann.values())
        names = column(rows, "filename", annotations)
        pictures = [Picture(f"sugarcrepe/val2017/{name}", place / "val2017" / name) for name in names]
        require(pictures, annotations, layouts.instructions(VAL2017, place))
        sides = (column(rows, side, annotations) for side in ("caption", "negative_caption"))
        yield Foils(f"sugar_crepe/{kind}", pictures, *sides)


def _built(name: str, place: Path, annotations: Path, task: str, how: str = "get it again") -> Any:
    from clip_benchmark.datasets.builder import build_dataset

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools announces each step
            return build_dataset(name, root=str(place), transform=None, split="test", task=task)
    except _MISREAD as error:
        raise ValueError(
            f"{annotations} can't be read as {name} ({type(error).__name__}: {error}): another layout, or a file that "
            f"is cut; {how}"
        ) from error
