"""Picture files -> batches of preprocessed tensors; unreadable pictures are left out and listed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import torch
from PIL import Image

from vladva_clip.interface.arguments import whole_number
from vladva_clip.pictures.failures import Failure, failed
from vladva_clip.pictures.files import open_file

READERS = 2  # threads; Pillow decodes without the GIL


def batches(
    paths: Iterable[Path],
    preprocess: Callable[[Image.Image], torch.Tensor],
    batch_size: int,
    failures: list[Failure],
) -> Iterator[tuple[list[Path], torch.Tensor]]:
    """Read and preprocess pictures, ahead of the caller by a batch.

    Args:
        paths: picture files.
        preprocess: a model's transform, from an RGB image to float32 `(3, H, W)`.
        batch_size: B, pictures in a batch.
        failures: gets the pictures that can't be read. The next picture takes the place in the batch.

    Yields:
        The paths and the tensors `(B, 3, H, W)`, in the order of `paths`; only the last batch may be smaller.

    Raises:
        ValueError: an invalid batch_size.
    """
    batch_size = whole_number("batch_size", batch_size, 1)
    ready: list[tuple[Path, torch.Tensor]] = []
    for path, pixels in _read_ahead(paths, preprocess, batch_size):
        if isinstance(pixels, Exception):
            failures.append(failed(path, pixels))
            continue
        ready.append((path, pixels))
        if len(ready) == batch_size:
            yield _stacked(ready)
            ready = []
    if ready:
        yield _stacked(ready)


def _stacked(ready: list[tuple[Path, torch.Tensor]]) -> tuple[list[Path], torch.Tensor]:
    paths, pixels = zip(*ready, strict=True)
    return list(paths), torch.stack(pixels)


def _read_ahead(
    paths: Iterable[Path], preprocess: Callable, ahead: int
) -> Iterator[tuple[Path, torch.Tensor | Exception]]:
    """Yield each path with its tensor or its error, in order; at most `ahead + READERS` pictures are in memory."""

    def read(path: Path) -> torch.Tensor | Exception:
        try:
            return preprocess(open_file(path))
        except (OSError, ValueError) as error:
            return error

    pool, waiting = ThreadPoolExecutor(READERS), deque[tuple[Path, Future]]()
    coming = iter(paths)
    try:
        for path in islice(coming, ahead + READERS):
            waiting.append((path, pool.submit(read, path)))
        while waiting:
            path, result = waiting.popleft()
            pixels = result.result()
            for new in islice(coming, 1):
                waiting.append((new, pool.submit(read, new)))
            yield path, pixels
    finally:  # also after Ctrl-C and when the caller stops: at most READERS pictures are waited for
        pool.shutdown(cancel_futures=True)
