"""What ends a run early for a reason outside the program."""


class RunError(RuntimeError):
    """A run that can't go on, with the reason and how to go on; the last good checkpoint is intact."""
