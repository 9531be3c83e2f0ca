"""A suite as the runner sees it. Each suite's file defines its own; the catalog lists them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vladva_benchmarks.suites.layouts import Counts
from vladva_benchmarks.suites.tasks import Task


def _nothing(root: Path, pictures: int) -> None:
    """Most suites are downloaded by the user: there is nothing to prepare."""


@dataclass(frozen=True)
class Suite:
    """One or more data sets that are evaluated together.

    name: on the command line and in result files.
    read: takes the data root and yields the data sets; raises ValueError if files are missing or wrong.
    counts: the published sizes by data set; data sets that it leaves out may have any size.
    in_paper: whether the suite belongs to the paper's tables, and so to `paper` on the command line.
    prepare: called before `read` with the data root and the number of pictures to draw.
    """

    name: str
    read: Callable[[Path], Iterator[Task]]
    counts: Counts
    in_paper: bool = True
    prepare: Callable[[Path, int], object] = _nothing
