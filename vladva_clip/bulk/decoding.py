"""Pictures -> batches of pixels, decoded in worker processes; one that can't be read is a row with its error."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from vladva_clip.bulk.parts import Row
from vladva_clip.interface.addresses import without_addresses
from vladva_clip.pictures.failures import failed
from vladva_clip.workers import shared_memory, waiting

Preprocess = Callable[[Image.Image], torch.Tensor]


class Pictures(Protocol):
    """Numbered pictures that any process can read."""

    def __len__(self) -> int: ...

    def row(self, number: int) -> Row:
        """Return what is known of a picture without reading it."""

    def open(self, number: int) -> Image.Image:
        """Return the upright RGB picture.

        Raises:
            Exception: any; the picture is left out, with the error's text.
        """


@dataclass(frozen=True)
class Batch:
    """Rows of a batch, and the pixels `(n, 3, H, W)` of those without an error."""

    rows: list[Row]
    pixels: torch.Tensor | None


def batches(
    pictures: Pictures,
    numbers: Iterable[Sequence[int]],
    preprocess: Preprocess,
    prefetch: shared_memory.Prefetch = shared_memory.Prefetch(0),  # noqa: B008 - frozen
) -> Iterator[Batch]:
    """Read and preprocess pictures.

    Args:
        pictures: where they are.
        numbers: which ones go into each batch, in order; read as they are needed.
        preprocess: PIL image -> float32 `(3, H, W)`.
        prefetch: of `workers.prefetch.picture_prefetch`.

    Raises:
        LoaderError: a worker died, hangs, or there is too little shared memory.
    """
    options = waiting.worker_options(prefetch)
    loader = DataLoader(_Pixels(pictures, preprocess), batch_sampler=numbers, collate_fn=_collate, **options)
    return waiting.batches(loader)


class _Pixels(Dataset):
    """A picture's row and pixels; None instead of pixels if it can't be read."""

    def __init__(self, pictures: Pictures, preprocess: Preprocess) -> None:
        self.pictures, self.preprocess = pictures, preprocess

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[Row, torch.Tensor | None]:
        row = self.pictures.row(number)
        if row.error is not None:
            return row, None
        try:
            return row, self.preprocess(self.pictures.open(number))
        except (OSError, ValueError) as error:
            return row._replace(error=failed(row.name, error).reason), None
        except Exception as error:  # a decoder, a transform, too little memory: whatever it is, this picture caused it
            return row._replace(error=without_addresses(f"{type(error).__name__}: {error}")), None


def _collate(items: list[tuple[Row, torch.Tensor | None]]) -> Batch:
    readable: list[Any] = [pixels for _, pixels in items if pixels is not None]
    pixels = torch.stack(readable) if readable else None
    if pixels is not None:
        shared_memory.share([pixels])
    return Batch([row for row, _ in items], pixels)
