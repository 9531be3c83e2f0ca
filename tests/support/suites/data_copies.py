"""Small copies of the published data sets, each in its published layout, with drawn pictures."""

import json
from pathlib import Path

import torch
from timm.data import ImageNetInfo

from tests.support import samples
from vladva_benchmarks.suites import catalog
from vladva_benchmarks.suites.clip_benchmark_data import KINDS
from vladva_benchmarks.suites.nocaps import DOMAINS
from vladva_benchmarks.suites.sugarcrepe_pp import KINDS as TRIPLE_KINDS

COLORS = ("red", "green", "blue", "white", "black", "yellow")


def read(suite: str, root: Path) -> list:
    """The tasks of a suite."""
    return list(catalog.SUITES[suite].read(root))


def draw(path: Path, seed: int) -> None:
    """Save one picture, different for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples.picture(seed, (40 + seed % 7, 44)).save(path)


def caption(number: int, other: int = 0) -> str:
    """One of many captions, none equal to another."""
    return f"a {COLORS[number % 6]} thing of {number} parts beside a {COLORS[other % 6]} one, seen {other} times"


def imagenet1k(root: Path, count: int = 12, each: int = 2, start: int = 3, step: int = 80) -> None:
    """Folders of some of the 1000 classes, and the file that torchvision makes of the development kit."""
    wnids = ImageNetInfo("imagenet-1k").label_names()
    place = root / "imagenet1k"
    for number, wnid in enumerate(wnids[start::step][:count]):
        for one in range(each):
            draw(place / "val" / wnid / f"ILSVRC2012_val_{number * each + one + 1:08}.JPEG", number * each + one)
    names = {wnid: (wnid, "synonym") for wnid in reversed(wnids)}
    torch.save((names, [wnids[0]] * 10), place / "meta.bin")


def flickr30k(root: Path, count: int = 12, each: int = 5) -> None:
    """Pictures and Karpathy's text file; one caption has a comma and quotes."""
    place, lines = root / "flickr30k", ["image,caption"]
    for number in range(count):
        name = f"{1007129816 + number}.jpg"
        draw(place / name, number)
        lines += [f"{name},{caption(number, one)}, 'said \"he\"'" for one in range(each)]
    (place / "flickr30k_test_karpathy.txt").write_text("\n".join(lines) + "\n")


def coco(root: Path, count: int = 12, each: int = 5) -> None:
    """Pictures of val2014 and Karpathy's test split in COCO's form, two captions more for every third picture."""
    place, images, annotations = root / "coco", [], []
    for number in range(count):
        identity = 391895 + 7 * number
        name = f"COCO_val2014_{identity:012}.jpg"
        draw(place / "val2014" / name, number)
        images.append({"id": identity, "file_name": name})
        texts = [caption(number, one) for one in range(each + 2 * (number % 3 == 0))]
        annotations += [{"image_id": identity, "caption": text, "id": 0} for text in texts]
    for number, annotation in enumerate(annotations):
        annotation["id"] = number
    data = {"images": images, "annotations": annotations}
    (place / "coco_test_karpathy.json").write_text(json.dumps(data))


def nocaps(root: Path, counts: tuple[int, int, int] = (4, 6, 5), each: int = 10) -> None:
    """Pictures of three domains, in turn, and the annotations of the validation split."""
    place, images, annotations = root / "nocaps", [], []
    domains = sorted((turn, domain) for domain, n in zip(DOMAINS, counts, strict=True) for turn in range(n))
    for number, (_, domain) in enumerate(domains):
        name = f"{number:016x}.jpg"
        draw(place / "val" / name, number)
        url = f"https://s3.amazonaws.com/nocaps/val/{name}"
        images.append({"id": number, "file_name": name, "domain": domain, "coco_url": url})
        texts = [caption(number, one) for one in range(each)]
        annotations += [{"image_id": number, "caption": text, "id": number * each + n} for n, text in enumerate(texts)]
    (place / "nocaps_val_4500_captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def sugarcrepe(root: Path, count: int = 6) -> None:
    """Pictures of val2017 and the seven files, whose numbers have gaps."""
    for kind in KINDS:
        rows = {str(2 * n): _pair(n, KINDS.index(kind)) for n in range(count)}
        _annotate(root / "sugarcrepe", kind, rows, rows.values())


def sugarcrepe_pp(root: Path, count: int = 6) -> None:
    """Pictures of val2017 and the five files."""
    for kind in TRIPLE_KINDS:
        rows = [{"id": n, "caption2": caption(n, 77), **_pair(n, KINDS.index(kind))} for n in range(count)]
        _annotate(root / "sugarcrepe_pp", kind, rows, rows)


def winoground(root: Path, count: int = 6) -> None:
    """The annotations and the unpacked pictures of the Hub's repository."""
    place, rows = root / "winoground" / "data", []
    for number in range(count):
        row = {"id": number, "caption_0": caption(number, number + 1), "caption_1": caption(number + 1, number)}
        for side in (0, 1):
            row[f"image_{side}"] = f"ex_{number}_img_{side}"
            draw(place / "images" / f"ex_{number}_img_{side}.png", 2 * number + side)
        rows.append({**row, "tag": "Adjective", "num_main_preds": 1, "collapsed_tag": "Object"})
    (place / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


WRITERS = {
    function.__name__: function
    for function in (imagenet1k, flickr30k, coco, nocaps, sugarcrepe, sugarcrepe_pp, winoground)
}


def _pair(number: int, kind: int) -> dict[str, str]:
    name = f"{85329 + number + kind // 2:012}.jpg"
    return {"filename": name, "caption": caption(number, kind), "negative_caption": caption(number + 1, kind)}


def _annotate(place: Path, kind: str, rows, pairs) -> None:
    for pair in pairs:
        draw(place / "val2017" / pair["filename"], int(pair["filename"].removesuffix(".jpg")))
    (place / f"{kind}.json").write_text(json.dumps(rows))
