"""Sources -> an infinite stream of batches, from any batch on, for any number of workers and processes."""

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from vladva_training.data import shared_memory, waiting
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.dataset import ExampleDataset, Fetched
from vladva_training.data.examples import Example, ExampleMaker, picture_bytes
from vladva_training.data.order import Order, Slot
from vladva_training.data.packing import Packed, pack, unpack
from vladva_training.data.probe import probe
from vladva_training.data.records import Source
from vladva_training.data.report import DataReport

Collate = Callable[[list[Example]], object]
BAD_RECORDS = "bad_records.jsonl"


@dataclass
class Loader:
    """One process's share of the run's batches.

    Iterating goes on without end from batch `next_batch`, which counts the global batches consumed over all epochs: it
    is all that a checkpoint needs. A second iteration continues where the first one was left.

    Attributes:
        dataset: slots -> examples.
        order: the order of the rows.
        report: what could not be used, over the batches consumed since the start of this process.
        batch_size: rows per batch in this process.
        rank, world_size: which process this is, of how many.
        prefetch: worker processes that read, none to read in this one, and how far ahead.
        timeout: seconds that a batch may take to come from a worker; 0 for no limit.
        next_batch: number of the next global batch.
        pin_memory: hand images over in page-locked memory.
        start_method: how workers start: "fork", "spawn", "forkserver", None for torch's own choice.
        probed: what `probe` counted, source by source.
    """

    dataset: ExampleDataset
    order: Order
    report: DataReport
    collate: Collate
    batch_size: int
    rank: int = 0
    world_size: int = 1
    prefetch: shared_memory.Prefetch = shared_memory.Prefetch(0)
    timeout: float = waiting.LIMIT
    next_batch: int = 0
    pin_memory: bool = False
    start_method: str | None = None
    probed: Sequence[Counter] = ()

    @property
    def splitter(self) -> CaptionSplitter:
        """What tells short captions from long ones."""
        return self.dataset.maker.splitter

    @property
    def epoch_size(self) -> int:
        """Rows per epoch, over all processes."""
        return self.order.epoch_size

    @property
    def global_batch_size(self) -> int:
        """Rows per batch, over all processes."""
        return self.batch_size * self.world_size

    def steps(self, epochs: float) -> int:
        """Return the number of batches that hold `epochs` epochs; the last one may reach into the next epoch."""
        return -(-round(epochs * self.epoch_size) // self.global_batch_size)

    def __iter__(self) -> Generator:
        """Start the workers at once, and not at the first batch; closing the generator ends them."""
        return self._batches(waiting.batches(self._reader(), self.timeout))

    def _batches(self, reader: Generator) -> Generator:
        with contextlib.closing(reader):
            for packed in reader:
                batch, notes = unpack(packed)
                self.report.add(notes)
                self.next_batch += 1
                yield batch

    def slots(self, number: int) -> list[Slot]:
        """Return this process's rows of a global batch: a contiguous slice of it."""
        start = number * self.global_batch_size + self.rank * self.batch_size
        return self.order.slots(start, start + self.batch_size)

    def _reader(self) -> DataLoader:
        return DataLoader(
            self.dataset,
            batch_sampler=_Slots(self),
            collate_fn=_PackedCollate(self.collate),
            pin_memory=self.pin_memory,
            generator=torch.Generator().manual_seed(0),  # or else it would draw from the run's
            **waiting.worker_options(self.prefetch, self.start_method),
        )


def make_loader(
    sources: Sequence[Source],
    weights: Sequence[float] | None,
    splitter: CaptionSplitter,
    preprocess: Callable,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    start_batch: int = 0,
    num_workers: int = 0,
    timeout: float = waiting.LIMIT,
    eos_id: int | None = None,
    collate: Collate | None = None,
    num_hard_negatives: int = 0,
    with_other_short: bool = False,
    needs_short: bool = True,
    grouped: bool = True,
    in_turn: bool = False,
    output_dir: Path | str | None = None,
    max_bad_share: float = 0.01,
    pin_memory: bool = False,
    start_method: str | None = None,
) -> Loader:
    """Make the loader of one process.

    Args:
        sources: as `open_source` opens them.
        weights: share of each source in an epoch; None for all of each.
        splitter: tells short captions from long ones.
        preprocess: the model's transform, PIL image -> `(3, H, W)` float32.
        batch_size: rows per batch in this process.
        start_batch: global batches already consumed, over all epochs.
        num_workers: worker processes, lowered to what fits in memory.
        eos_id: the tokenizer's end of text, with which `Batch.collate` ends long captions.
        collate: list of examples -> batch, picklable; `Batch.collate` by default.
        num_hard_negatives: false captions per example.
        with_other_short: choose a second short caption per example.
        needs_short: refuse sources without any short caption, as contrastive training must.
        grouped: keep the groups that sources state (families of scenes) together.
        in_turn: one source after another, not mixed.
        output_dir: where bad records are listed: `bad_records.jsonl`, and `bad_records-rankN.jsonl` for other ranks.
        max_bad_share: the run stops when more of the records looked at are bad.
        timeout, pin_memory, start_method: as in `Loader`.

    Raises:
        ValueError: no source, no usable captions in it, a batch that is larger than an epoch, numbers out of range,
            shared memory that not even one worker can work with.
    """
    groups = [getattr(source, "group_size", 1) if grouped else 1 for source in sources]
    order = Order([len(source) for source in sources], weights, groups, seed, in_turn)
    _check(order, batch_size, rank, world_size, start_batch, num_workers)
    probed = probe(sources, splitter, needs_short, num_hard_negatives > 0)
    maker = ExampleMaker(splitter, preprocess, seed, num_hard_negatives, with_other_short)
    return Loader(
        dataset=ExampleDataset(sources, maker),
        order=order,
        report=DataReport(_list_path(output_dir, rank), max_bad_share),
        collate=collate or BatchCollate(eos_id),
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        prefetch=picture_prefetch(preprocess, batch_size, num_workers),
        timeout=timeout,
        next_batch=start_batch,
        pin_memory=pin_memory,
        start_method=start_method,
        probed=probed,
    )


class BatchCollate:
    """`Batch.collate` with its end of text, as something to send to a worker."""

    def __init__(self, eos_id: int | None) -> None:
        if eos_id is None:
            raise ValueError("eos_id is None, expected the tokenizer's end of text to end long captions with")
        self.eos_id = eos_id

    def __call__(self, examples: list[Example]) -> object:
        from vladva_training.step.batches import Batch

        return Batch.collate(examples, self.eos_id)


class _PackedCollate:
    """What a worker sends: the batch (None when a row was given up) and the notes for the report."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, rows: list[Fetched]) -> Packed:
        whole = not any(row.notes.given_up for row in rows)
        batch = self.collate([row.example for row in rows]) if whole else None
        packed = pack((batch, [row.notes for row in rows]))
        shared_memory.share(packed.tensors)
        return packed


class _Slots:
    """The batch sampler: this process's rows of each batch, without end."""

    def __init__(self, loader: Loader) -> None:
        self._loader, self._start = loader, loader.next_batch

    def __iter__(self) -> Iterator[list[Slot]]:
        number = self._start
        while True:
            yield self._loader.slots(number)
            number += 1


def picture_prefetch(preprocess: Callable, batch_size: int, num_workers: int) -> shared_memory.Prefetch:
    """Return how many processes are to read batches of pictures, and how far ahead: as asked for, or what fits.

    Raises:
        ValueError: shared memory that not even one worker can work with.
    """
    if not num_workers:
        return shared_memory.Prefetch(0)
    return shared_memory.fit(num_workers, batch_size * picture_bytes(preprocess))


def _list_path(output_dir: Path | str | None, rank: int) -> Path | None:
    if output_dir is None:
        return None
    return Path(output_dir) / (BAD_RECORDS if rank == 0 else f"bad_records-rank{rank}.jsonl")


def _check(order: Order, batch_size: int, rank: int, world_size: int, start_batch: int, num_workers: int) -> None:
    numbers = {"batch_size": (batch_size, 1), "world_size": (world_size, 1), "rank": (rank, 0)}
    numbers |= {"start_batch": (start_batch, 0), "num_workers": (num_workers, 0)}
    for name, (value, least) in numbers.items():
        if value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}")
    if rank >= world_size:
        raise ValueError(f"rank is {rank}, expected less than the world size {world_size}")
    if batch_size * world_size > order.epoch_size:
        raise ValueError(
            f"the batch of {batch_size * world_size} is larger than the {order.epoch_size} records of an epoch, so "
            "that images would be their own negatives: take a smaller batch or more data"
        )
