"""Sources -> an endless stream of batches, starting at any batch, for any number of workers and processes."""

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from vladva_clip.records.records import Source
from vladva_clip.workers import shared_memory, waiting
from vladva_clip.workers.prefetch import picture_prefetch
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.dataset import ExampleDataset, Fetched
from vladva_training.data.examples import Example, ExampleMaker
from vladva_training.data.order import Order, Slot
from vladva_training.data.packing import Packed, pack, unpack
from vladva_training.data.probe import probe
from vladva_training.data.report import DataReport

Collate = Callable[[list[Example]], object]
BAD_RECORDS = "bad_records.jsonl"


@dataclass(frozen=True)
class Slice:
    """The rows of each global batch that one process reads.

    Attributes:
        batch_size: rows per batch in this process.
        rank, world_size: which process this is, of how many.

    Raises:
        ValueError: numbers out of range.
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        for name, least in {"batch_size": 1, "world_size": 1, "rank": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if self.rank >= self.world_size:
            raise ValueError(f"rank is {self.rank}, expected less than the world size {self.world_size}")

    @property
    def global_size(self) -> int:
        """Rows per batch, over all processes."""
        return self.batch_size * self.world_size

    def of(self, number: int) -> range:
        """Return the places of this process's rows of a global batch: a contiguous part of it."""
        start = number * self.global_size + self.rank * self.batch_size
        return range(start, start + self.batch_size)


@dataclass(frozen=True)
class Workers:
    """How batches are read.

    Attributes:
        count: worker processes, 0 to read in this process; lowered to the number of CPUs and to what fits in memory.
        timeout: seconds that a batch may take to come from a worker; 0 for no limit.
        pin_memory: hand images over in page-locked memory.
    """

    count: int = 0
    timeout: float = waiting.LIMIT
    pin_memory: bool = False


@dataclass
class Loader:
    """One process's share of the run's batches.

    Iterating never ends. It starts at batch `next_batch`, which counts the global batches consumed over all epochs; a
    checkpoint needs nothing else. A second iteration continues where the first one stopped.

    Attributes:
        dataset: slots -> examples.
        order: the order of the rows.
        report: what could not be used, over the batches consumed since this process started.
        collate: list of examples -> batch; picklable.
        slice: this process's rows of each batch.
        prefetch: how many worker processes read, and how far ahead.
        timeout, pin_memory: as in `Workers`.
        next_batch: number of the next global batch.
        start_method: how workers start: "fork", "spawn", "forkserver", None for torch's own choice.
        probed: what `probe` counted, source by source.
    """

    dataset: ExampleDataset
    order: Order
    report: DataReport
    collate: Collate
    slice: Slice
    prefetch: shared_memory.Prefetch = shared_memory.Prefetch(0)
    timeout: float = waiting.LIMIT
    pin_memory: bool = False
    next_batch: int = 0
    start_method: str | None = None
    probed: Sequence[Counter] = ()

    @property
    def splitter(self) -> CaptionSplitter:
        """Separates short captions from long ones."""
        return self.dataset.maker.splitter

    @property
    def epoch_size(self) -> int:
        """Rows per epoch, over all processes."""
        return self.order.epoch_size

    def steps(self, epochs: float) -> int:
        """Return the number of batches that hold `epochs` epochs; the last one may reach into the next epoch."""
        return -(-round(epochs * self.epoch_size) // self.slice.global_size)

    def __iter__(self) -> Generator:
        """Start the workers now rather than at the first batch; closing the generator ends them."""
        return self._batches(waiting.batches(self._reader(), self.timeout))

    def _batches(self, reader: Generator) -> Generator:
        with contextlib.closing(reader):
            for packed in reader:
                batch, notes = unpack(packed)
                self.report.add(notes)
                self.next_batch += 1
                yield batch

    def slots(self, number: int) -> list[Slot]:
        """Return this process's rows of a global batch."""
        places = self.slice.of(number)
        return self.order.slots(places.start, places.stop)

    def _reader(self) -> DataLoader:
        return DataLoader(
            self.dataset,
            batch_sampler=_Slots(self),
            collate_fn=_PackedCollate(self.collate),
            pin_memory=self.pin_memory,
            generator=torch.Generator().manual_seed(0),  # otherwise it would draw from the run's generator
            **waiting.worker_options(self.prefetch, self.start_method),
        )


def make_loader(
    sources: Sequence[Source],
    maker: ExampleMaker,
    own: Slice,
    eos_id: int,
    *,
    weights: Sequence[float] | None = None,
    in_turn: bool = False,
    workers: Workers = Workers(),
    output_dir: Path | str | None = None,
    max_bad_share: float = 0.01,
) -> Loader:
    """Make the loader of one process.

    Args:
        sources: as `open_source` opens them. Their groups (such as families of scenes) stay together.
        maker: makes examples of records; its seed also determines the order.
        own: this process's rows of each batch.
        eos_id: the tokenizer's end of text, which `Batch.collate` puts behind long captions.
        weights: share of each source in an epoch; None to use each source fully.
        in_turn: read the sources one after another instead of mixed.
        workers: how batches are read.
        output_dir: where bad records are listed: `bad_records.jsonl`, and `bad_records-rankN.jsonl` for other ranks.
        max_bad_share: the run stops when a larger share of the records read is bad.

    Raises:
        ValueError: no source, no usable or no short captions, a batch that is larger than an epoch, numbers out of
            range, too little shared memory for even one worker.
    """
    groups = [getattr(source, "group_size", 1) for source in sources]
    order = Order([len(source) for source in sources], weights, groups, maker.seed, in_turn)
    _check_size(order, own)
    probed = probe(sources, maker.splitter, maker.num_hard_negatives > 0)
    return Loader(
        dataset=ExampleDataset(sources, maker),
        order=order,
        report=DataReport(_list_path(output_dir, own.rank), max_bad_share),
        collate=BatchCollate(eos_id),
        slice=own,
        prefetch=picture_prefetch(maker.preprocess, own.batch_size, workers.count),
        timeout=workers.timeout,
        pin_memory=workers.pin_memory,
        probed=probed,
    )


class BatchCollate:
    """`Batch.collate` with its end of text, in a form that can be sent to a worker."""

    def __init__(self, eos_id: int) -> None:
        self.eos_id = eos_id

    def __call__(self, examples: list[Example]) -> object:
        from vladva_training.step.batches import Batch

        return Batch.collate(examples, self.eos_id)


class _PackedCollate:
    """Makes what a worker sends: the batch (None when a row was given up) and the notes for the report."""

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


def _list_path(output_dir: Path | str | None, rank: int) -> Path | None:
    if output_dir is None:
        return None
    return Path(output_dir) / (BAD_RECORDS if rank == 0 else f"bad_records-rank{rank}.jsonl")


def _check_size(order: Order, own: Slice) -> None:
    if own.global_size > order.epoch_size:
        raise ValueError(
            f"the batch of {own.global_size} is larger than the {order.epoch_size} records of an epoch, so images "
            "would be their own negatives: use a smaller batch or more data"
        )
