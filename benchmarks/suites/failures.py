"""Collects the errors of suites while the other suites run, the same in every process of the run.

A suite that fails in one process ends in all of them: the failed process reports it at the next `collect`, where the
others wait for it, and all continue with the next suite together.
"""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from vladva_clip.bulk.feature_cache import UnreadableItems
from vladva_clip.interface.addresses import without_addresses
from vladva_training.processes.distributed import Processes

FORESEEN = (ValueError, OSError, MemoryError, RuntimeError)
"""Errors from files, disks, memory and devices. Anything else is a bug, whose traceback is printed too."""
GO_ON = "then run the same command again: it computes only what is missing"


@dataclass(frozen=True)
class Failed:
    """What a failed process sends instead of its share."""

    text: str


class FailedElsewhere(Exception):
    """Another process of the run failed with this suite; the text is that process's error."""


class SharingProcesses(Processes):
    """The run's processes; each learns at its next `collect` if another one failed."""

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
    """The failed suites, each with its error."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._found: dict[str, str] = {}

    def __contains__(self, suite: str) -> bool:
        return suite in self._found

    @contextmanager
    def of(self, suite: str) -> Iterator[SharingProcesses]:
        """Run a step of a suite: an error ends here, in every process alike, and is recorded.

        Yields:
            The processes, to be used for everything that they share within the step.
        """
        sharing = SharingProcesses(**vars(self._processes))
        try:
            yield sharing
            sharing.collect([])
        except (UnreadableItems, FailedElsewhere) as error:  # all processes raise these together
            self._found[suite] = str(error)
        except Exception as error:
            self._found[suite] = describe(error)
            self._processes.collect([Failed(describe(error))])

    def error(self) -> ValueError:
        """Return one error with all failures; suites with the same error share a line."""
        suites: dict[str, list[str]] = {}
        for suite, text in self._found.items():
            suites.setdefault(text, []).append(suite)
        lines = [text if text.startswith(f"{own[0]}:") else f"{', '.join(own)}: {text}" for text, own in suites.items()]
        return ValueError("\n".join([*lines, GO_ON]))

    def __len__(self) -> int:
        return len(self._found)


def describe(error: Exception) -> str:
    """Return an error's text, with its type unless it is a ValueError; print the traceback of a bug."""
    if not isinstance(error, FORESEEN):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"not enough memory ({error or type(error).__name__}); try a smaller --batch-size or --num-workers"
    return without_addresses(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
