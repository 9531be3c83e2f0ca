"""What is wrong with a run before its first step: gathered, and told to all of its processes alike."""

import contextlib
from collections.abc import Iterator

from vladva_training.processes.distributed import Processes


class Faults:
    """What several checks found; each is done, whatever the others found."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Check something within this block: what it raises for the user to mend is noted, and the block left."""
        try:
            yield
        except (ValueError, OSError) as error:
            self.lines.append(" ".join(str(error).split()))

    def share(self, processes: Processes) -> None:
        """Let all processes know of each other's faults, so that none waits for one that has ended.

        Raises:
            ValueError: any process found one; the same in all of them.
        """
        self.lines = processes.collect(self.lines)
        self.raise_if_any()

    def raise_if_any(self) -> None:
        """Say all that was found, each thing once.

        Raises:
            ValueError: something was.
        """
        lines = list(dict.fromkeys(self.lines))
        if len(lines) == 1:
            raise ValueError(lines[0])
        if lines:
            numbered = "; ".join(f"({number}) {line}" for number, line in enumerate(lines, 1))
            raise ValueError(f"{len(lines)} things have to be mended first: {numbered}")
