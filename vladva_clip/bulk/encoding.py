"""Batches -> features, and features -> parts. Only the items and the batch size decide what is in a batch.

So features are bit-equal for any number of workers and machines, and equal up to rounding for any batch size.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch.nn import functional

from vladva_clip.bulk.decoding import Pictures, Preprocess, batches
from vladva_clip.bulk.parts import Part, Row
from vladva_clip.workers import shared_memory

Encode = Callable[[torch.Tensor], torch.Tensor]


class NormalizedEncoder:
    """A model's function, whose features become float32 of length 1 on the CPU; counts the seconds in it.

    Args:
        encode: pixels `(N, 3, H, W)` or tokens `(N, L)` -> `(N, D)`.
        device, dtype: of the pixels that it takes; tokens keep their type.

    Attributes:
        seconds: spent in the model.
    """

    def __init__(self, encode: Encode, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.encode, self.device, self.dtype, self.seconds = encode, device, dtype, 0.0

    @torch.no_grad()
    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        batch = batch.to(self.device, self.dtype if batch.is_floating_point() else None)
        features = functional.normalize(self.encode(batch).float(), dim=-1).cpu()
        self.seconds += time.perf_counter() - start
        return features


def cut(part: range, size: int) -> Iterator[range]:
    """Divide a range into ranges of a size; only the last may be smaller."""
    return (range(start, min(start + size, part.stop)) for start in range(part.start, part.stop, size))


def picture_parts(
    encoder: NormalizedEncoder,
    pictures: Pictures,
    parts: Iterable[range],
    preprocess: Preprocess,
    batch_size: int,
    prefetch: shared_memory.Prefetch,
) -> Iterator[tuple[range, Part]]:
    """Embed pictures, part by part; a batch never crosses the border of a part.

    Args:
        encoder: of pictures.
        pictures: where they are.
        parts: the ranges of their numbers, in the order in which they come out.
        preprocess: PIL image -> `(3, H, W)`.
        batch_size: pictures in a batch.
        prefetch: how many processes decode.

    Yields:
        Each range and its part; one without a readable picture has features `(n, 0)`.
    """
    parts = list(parts)
    numbers = (list(batch) for part in parts for batch in cut(part, batch_size))
    reading = batches(pictures, numbers, preprocess, prefetch)
    for part in parts:
        start = time.perf_counter()
        features, rows = [], []
        for _ in cut(part, batch_size):  # one batch at a time: only those that are read ahead are in memory
            batch = next(reading)
            rows += batch.rows
            if batch.pixels is not None:
                features.append(encoder(batch.pixels))
        yield part, Part(_placed(features, rows), rows, time.perf_counter() - start)


def _placed(features: Sequence[torch.Tensor], rows: Sequence[Row]) -> torch.Tensor:
    """The features of readable items in their rows, and zeros in the others."""
    readable = torch.tensor([row.error is None for row in rows])
    found = torch.zeros(len(rows), features[0].shape[1] if features else 0)
    if features:
        found[readable] = torch.cat(list(features))
    return found
