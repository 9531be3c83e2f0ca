"""What is said before weights are downloaded: their size, where they go, the memory they need; and what can't fit."""

import contextlib
import contextvars
import logging
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi, constants

from vladva_clip.sources import fit, weights_here
from vladva_clip.sources.fit import Fit, in_words
from vladva_clip.sources.hub_errors import HUB_ERRORS, SourceError
from vladva_clip.sources.room import Room, shown

WORTH_SAYING = 50_000_000  # bytes; adapters and tokenizers are smaller
_log = logging.getLogger(__name__)
_use: contextvars.ContextVar[tuple[str | None, str]] = contextvars.ContextVar("use", default=(None, "cpu"))


@contextlib.contextmanager
def for_use(precision: str | None, device: str) -> Iterator[None]:
    """Within this block, downloads are for a model in this precision (None: its own) on this device of torch's."""
    token = _use.set((precision, device))
    try:
        yield
    finally:
        _use.reset(token)


def announce(repo: str, revision: str | None, cache_dir: str | None) -> None:
    """Log the size and memory of weights that are about to be downloaded; nothing if they are here, or offline.

    Raises:
        SourceError: the disk has less room than the download needs.
    """
    if constants.HF_HUB_OFFLINE or _is_here(repo, revision, cache_dir):
        return
    size = missing_bytes(repo, revision, cache_dir)
    if not size:  # not known: what is wrong, the download itself will say
        return
    precision, device = _use.get()
    room = Room.on(device, cache_dir)
    name = fit.name_of(repo)
    if size > room.disk:
        raise SourceError(_no_room(name or repo, size, room))
    if size >= WORTH_SAYING:
        found = fit.of(name, precision, room.kind) if name else None
        for line in lines(name or repo, size, found, room):
            _log.warning("%s", line)


def missing_bytes(repo: str, revision: str | None, cache_dir: str | None) -> int | None:
    """Ask the Hub, in one call, for the bytes of the weight files that the cache lacks; None on any error."""
    blobs = weights_here.folder(repo, cache_dir) / "blobs"
    try:
        tree = list(HfApi().list_repo_tree(repo, recursive=True, revision=revision))
        files = [file for file in tree if file.path.endswith(".safetensors")]
        return sum(file.size for file in files if not (file.lfs and (blobs / file.lfs.sha256).exists()))
    except (*HUB_ERRORS, AttributeError, TypeError):
        return None


def lines(name: str, size: int, found: Fit | None, room: Room) -> list[str]:
    """Return the line about a download and, if the model would not fit into memory, a second one with a way out."""
    said = f"{name}: downloading {in_words(size)} to {shown(room.cache)} (free: {in_words(room.disk)})"
    if found is None:
        return [said]
    available = f"; available: {in_words(room.memory)}" if room.memory is not None else ""
    needs = f"about {in_words(found.memory_bytes)} of memory in {found.precision} on {room.device}"
    first = f"{said}; needs {needs} ({found.origin}{available})"
    return [first] if room.holds(found.memory_bytes) else [first, _too_large(found, room)]


def smaller(found: Fit, room: Room) -> Fit | None:
    """Return what would fit in place of a model: itself in a smaller precision, or else the largest other model."""
    own = [fit.of(found.name, word, room.kind) for word in fit.precisions(found.name)]
    others = [fit.of(name, None, room.kind) for name in fit.names()]
    for some in (own, others):
        if fitting := [one for one in some if one and room.holds(one.memory_bytes)]:
            return max(fitting, key=lambda one: one.memory_bytes)
    return None


def _too_large(found: Fit, room: Room) -> str:
    said = f"{found.name} in {found.precision} may not fit into the memory of {room.device}"
    if (way := smaller(found, room)) is None:
        return f"{said}; see `vladva models --fit`"
    what = f"precision='{way.precision}'" if way.name == found.name else f"{way.name} in {way.precision}"
    return f"{said}; {what} would, with about {in_words(way.memory_bytes)} (`vladva models --fit` lists all)"


def _no_room(name: str, size: int, room: Room) -> str:
    return (
        f"{name} takes {in_words(size)}, but only {in_words(room.disk)} are free at {shown(room.cache)}: make room, or "
        "set HF_HOME to a directory on a larger disk"
    )


def _is_here(repo: str, revision: str | None, cache_dir: str | None) -> bool:
    directory: Path | None = weights_here.snapshot(repo, revision, cache_dir)
    return directory is not None and weights_here.is_whole(directory)
