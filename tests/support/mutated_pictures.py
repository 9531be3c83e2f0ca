"""Embeds damaged pictures in a process of its own: `python -m tests.support.mutated_pictures COUNT`.

They are made from photographs (the folder `VLADVA_TEST_DATA`/photos) or, without those, from drawn JPEGs. Prints a JSON
report: how many gave features and how many were refused, what went wrong, the most memory, the longest time, warnings.
"""

import io
import json
import os
import random
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

import vladva_clip
from tests.support.samples import noise_picture
from vladva_clip.pictures.files import read_picture

FORMATS = ("JPEG", "JPEG", "JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
BATCH = 64


def originals() -> list[Image.Image]:
    """Some photographs, or as many drawn pictures."""
    found = sorted(Path(os.environ.get("VLADVA_TEST_DATA", "/nowhere")).glob("photos/*.JPEG"))[:40]
    pictures = [Image.open(path).convert("RGB") for path in found]
    for picture in pictures:
        picture.thumbnail((320, 320))
    return pictures or [noise_picture(number, (320, 240)) for number in range(40)]


def saved(picture: Image.Image, kind: str) -> bytes:
    """The bytes of its file."""
    picture.save(file := io.BytesIO(), kind)
    return file.getvalue()


def mutated(count: int) -> Iterator[bytes]:
    """Damaged files, the same ones at every call."""
    rng = random.Random(0)
    files = [saved(picture, kind) for picture in originals() for kind in sorted(set(FORMATS))]
    for _ in range(count):
        data = bytearray(rng.choice(files))
        for _ in range(rng.choice((1, 1, 2, 5))):
            rng.choice(DAMAGES)(data, rng)
        yield bytes(data)


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3, 30))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_header(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3))):
        if data:
            data[rng.randrange(min(64, len(data)))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _drop(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.choice((1, 16, 1000))]


def _insert(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.randbytes(rng.choice((1, 4, 500)))


def _zero(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    data[start : start + 64] = bytes(len(data[start : start + 64]))


DAMAGES = (_flip, _flip, _flip_header, _cut, _drop, _insert, _zero)


def main(count: int) -> dict:
    """Embed that many."""
    model, preprocess = vladva_clip.create_model("vladva-tiny")
    outcomes, wrong, longest, pixels = Counter(), [], 0.0, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # each text once, as a program shows them
        model.encode_image(preprocess(noise_picture(0))[None])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number, data in enumerate(mutated(count)):
            start = time.perf_counter()
            try:
                pixels.append(preprocess(read_picture(data)))
                outcomes["read"] += 1
            except ValueError:
                outcomes["refused"] += 1
            except Exception as error:  # what this looks for
                wrong.append(f"{number}: {error!r}")
            longest = max(longest, time.perf_counter() - start)
            if len(pixels) == BATCH or number == count - 1 and pixels:
                features = model.encode_image(torch.stack(pixels), normalize=True)
                wrong += [f"{number}: not finite"] * (not features.isfinite().all())
                pixels = []
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    return {"outcomes": outcomes, "wrong": wrong, "longest": longest, "memory": memory, "warnings": len(caught)}


if __name__ == "__main__":
    with torch.no_grad():
        print(json.dumps(main(int(sys.argv[1]))))
