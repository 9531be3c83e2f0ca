"""Collects the problems of a run before its first step, and raises them together in all of its processes."""

import contextlib
from collections.abc import Iterator

from vladva_training.processes.distributed import Processes


class Faults:
    """The problems found by several checks. All checks run, whatever the others found."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Run a check within this block: a ValueError or OSError ends the block and is noted."""
        try:
            yield
        except (ValueError, OSError) as error:
            self.lines.append(" ".join(str(error).split()))

    def share(self, processes: Processes) -> None:
        """Collect the faults of all processes, so that none waits for one that has ended.

        Raises:
            ValueError: any process found a fault; the same error in all of them.
        """
        self.lines = processes.collect(self.lines)
        self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raise one error that lists every distinct fault, if there are any.

        Raises:
            ValueError: at least one fault was noted.
        """
        lines = list(dict.fromkeys(self.lines))
        if len(lines) == 1:
            raise ValueError(lines[0])
        if lines:
            numbered = "; ".join(f"({number}) {line}" for number, line in enumerate(lines, 1))
            raise ValueError(f"{len(lines)} problems must be fixed first: {numbered}")
