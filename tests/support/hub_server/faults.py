"""What may go wrong between a client and the Hub."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Fault:
    """Applies to the requests of a method whose path holds a text, `times` times.

    status: refuse with it, the message as the Hub's reason, and the headers. cut: close the connection, in the middle
    of a body where one is sent or received. change: alter a body on its way out (downloads) or in (uploads). pause:
    seconds between the pieces of a body. do: what happens first, such as a commit by somebody else. lost: the request
    does its work, and its answer gets lost.
    """

    method: str
    path: str
    status: int | None = None
    message: str = "the reason"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    change: Callable[[bytes], bytes] | None = None
    pause: float = 0.0
    do: Callable[[], object] | None = None
    lost: bool = False
    times: int = 1000

    def applies(self, method: str, path: str) -> bool:
        """Whether it strikes now; counts down."""
        if method != self.method or self.path not in path or not self.times:
            return False
        self.times -= 1
        return True


NONE = Fault("", "")
