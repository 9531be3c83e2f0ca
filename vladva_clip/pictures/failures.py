"""One of many items that could not be used: the rest goes on, and this is reported at the end."""

import json
import os
from dataclasses import dataclass

from vladva_clip.interface.addresses import without_addresses
from vladva_clip.storage import plain_files


@dataclass(frozen=True)
class Failure:
    """An item's name (a path or a word of the user) and the reason, one line without memory addresses."""

    name: str
    reason: str

    def line(self) -> bytes:
        """Return it as a line of a JSON Lines file."""
        return json.dumps({"name": self.name, "error": self.reason}).encode() + b"\n"


def failed(name: str | os.PathLike[str], error: Exception) -> Failure:
    """Return the failure of an item whose use raised an error; the reason doesn't repeat the name."""
    name = os.fspath(name)
    reason = plain_files.said(error).removeprefix(f"{name} ")
    return Failure(name, " ".join(without_addresses(reason).split()))
