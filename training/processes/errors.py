"""What ends a run early for a reason outside the program."""


class RunError(RuntimeError):
    """A run that can't go on, with the reason and how to go on; the last good checkpoint is intact.

    Args:
        message: both.
        agreed: all processes raise it at the same place, and so may wait for each other.
    """

    def __init__(self, message: str, agreed: bool = False) -> None:
        super().__init__(message)
        self.agreed = agreed


class DiskError(RunError):
    """A disk that doesn't take what a run has to keep."""
