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
PATIENCE = 10  # seconds for the Hub to state the sizes: without them, the download starts all the same
_log = logging.getLogger(__name__)
_use: contextvars.ContextVar[tuple[str | None, str] | None] = contextvars.ContextVar("use", default=None)


@contextlib.contextmanager
def for_use(precision: str | None, device: str) -> Iterator[None]:
    """Within this block, downloads are for a model in this precision (None: its own) on this device of torch's."""
    token = _use.set((precision, device))
    try:
        yield
    finally:
        _use.reset(token)


def announce(repo: str, revision: str | None, cache_dir: str | None) -> None:
    """Log the size of weights that are about to be downloaded; nothing if they are here, or offline.

    Within `for_use`, the memory that a known model needs is said as well: elsewhere nobody knows what is done with it.

    Raises:
        SourceError: the disk has less room than the download needs.
    """
    if constants.HF_HUB_OFFLINE or _is_here(repo, revision, cache_dir):
        return
    size = missing_bytes(repo, revision, cache_dir)
    if not size:  # not known: what is wrong, the download itself will say
        return
    use, name = _use.get(), fit.name_of(repo)
    room = Room.on(use[1] if use else "cpu", cache_dir)
    if not room.stores(size):
        raise SourceError(_no_room(name or repo, size, room))
    if size >= WORTH_SAYING:
        found = fit.of(name, use[0], room.kind) if name and use else None
        for line in lines(name or repo, size, found, room):
            _log.warning("%s", line)


def missing_bytes(repo: str, revision: str | None, cache_dir: str | None) -> int | None:
    """Ask the Hub, in one request, for the bytes of the weight files that the cache lacks; None on any error.

    `list_repo_tree` would repeat a request that fails, for half a minute without a network.
    """
    blobs = weights_here.folder(repo, cache_dir) / "blobs"
    try:
        files = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=PATIENCE).siblings
        weights = [file for file in files if file.rfilename.endswith(".safetensors")]
        return sum(file.size - _bytes_of(blobs / file.lfs.sha256 if file.lfs else None) for file in weights)
    except (*HUB_ERRORS, AttributeError, TypeError):
        return None


def _bytes_of(blob: Path | None) -> int:
    """The bytes of a file that need not be downloaded: a part is continued, if the client left it under this name."""
    if blob is None:
        return 0
    there = [path for path in (blob, blob.with_name(f"{blob.name}.incomplete")) if path.exists()]
    return there[0].stat().st_size if there else 0


def lines(name: str, size: int, found: Fit | None, room: Room) -> list[str]:
    """Return the line about a download and, if the model would not fit into memory, a second one with a way out."""
    free = "" if room.disk is None else f" (free: {in_words(room.disk)})"
    said = f"{name}: downloading {in_words(size)} to {shown(room.cache)}{free}"
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
