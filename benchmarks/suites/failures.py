"""What went wrong with one suite, kept while the others run, the same in every process of the run.

A suite that fails in one process ends in all of them: the process that failed says so where the others wait for it, at
their next `collect`, and all go on with the next suite together.
"""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from vladva_benchmarks.suites.feature_cache import UnreadableItems
from vladva_clip.interface.addresses import without_addresses
from vladva_training.processes.distributed import Processes

FORESEEN = (ValueError, OSError, MemoryError, RuntimeError)
"""What files, disks, memory and devices raise. Anything else is a defect, whose traceback is printed too."""
GO_ON = "then the same command goes on with what is missing"


@dataclass(frozen=True)
class Failed:
    """What a process says instead of its share."""

    text: str


class FailedElsewhere(Exception):
    """Another process of the run failed with this suite; its text is what that one said."""


class SharingProcesses(Processes):
    """The run's processes, of which each learns at its next `collect` that another one failed."""

    def collect(self, items: list) -> list:
        """Return the processes' lists as one, in rank order.

        Raises:
            FailedElsewhere: a process failed.
        """
        found = super().collect(items)
        if failed := [item.text for item in found if isinstance(item, Failed)]:
            raise FailedElsewhere("\n".join(dict.fromkeys(failed)))
        return found


class Failures:
    """The suites that failed, each with why."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._found: dict[str, str] = {}

    def __contains__(self, suite: str) -> bool:
        return suite in self._found

    @contextmanager
    def of(self, suite: str) -> Iterator[SharingProcesses]:
        """Run a part of a suite: whatever it raises ends here, in every process alike, and is kept.

        Yields:
            The processes, to be used for all that they share within the part.
        """
        sharing = SharingProcesses(**vars(self._processes))
        try:
            yield sharing
            sharing.collect([])
        except (UnreadableItems, FailedElsewhere) as error:  # every process raises these together
            self._found[suite] = str(error)
        except Exception as error:
            self._found[suite] = describe(error)
            self._processes.collect([Failed(describe(error))])

    def error(self) -> ValueError:
        """Return all that was found; suites of one reason are named together."""
        suites: dict[str, list[str]] = {}
        for suite, text in self._found.items():
            suites.setdefault(text, []).append(suite)
        lines = [text if text.startswith(f"{own[0]}:") else f"{', '.join(own)}: {text}" for text, own in suites.items()]
        return ValueError("\n".join([*lines, GO_ON]))

    def __len__(self) -> int:
        return len(self._found)


def describe(error: Exception) -> str:
    """Return what an error says, by its type where its text alone is a riddle; print the traceback of a defect."""
    if not isinstance(error, FORESEEN):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return (
            f"not enough memory ({error or type(error).__name__}); a smaller --batch-size or --num-workers needs less"
        )
    return without_addresses(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
