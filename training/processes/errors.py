"""Errors that end a run early for a reason outside the program."""


class RunError(RuntimeError):
    """A run can't continue; the last good checkpoint is intact.

    Args:
        message: the reason, and what to do.
        agreed: all processes raise this error at the same place, so they may wait for each other.
    """

    def __init__(self, message: str, agreed: bool = False) -> None:
        super().__init__(message)
        self.agreed = agreed


class DiskError(RunError):
    """A file that a run must keep can't be written."""
