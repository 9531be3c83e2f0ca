"""What `vladva models --fit` prints: download and memory of each model, and which of them fit on this machine."""

from dataclasses import asdict
from typing import Any

from vladva_clip.sources import fit, listing
from vladva_clip.sources.fit import Fit, in_words
from vladva_clip.sources.room import Room, shown

_LEGEND = "memory: weights in that precision, one batch of 64 pictures or texts, libraries; ~ predicted, else measured"


def fit_rows(room: Room) -> list[dict[str, Any]]:
    """Return JSON data for each built-in model and precision: what it takes, and whether it fits.

    Keys: those of `Fit`, `here` as in `listing.Row`, `fits_memory`, `fits_disk` (also true where the weights are here).
    """
    here = {row.name: row.here for row in listing.rows()}
    return [_judged(one, here[name], room) for name in fit.names() for one in _all(name, room.kind)]


def fit_lines(room: Room) -> list[str]:
    """Return the room on this machine, a table of the built-in models, and what its figures mean."""
    memory = "of unknown size" if room.memory is None else f"{in_words(room.memory)} free"
    table = [("model", "download", *(f"{word} memory" for word in fit.PRECISIONS), "fits here in")]
    judged = fit_rows(room)
    table += [_cells([row for row in judged if row["name"] == name]) for name in fit.names()]
    disk = "of unknown size" if room.disk is None else f"{in_words(room.disk)} free"
    place = f"memory of {room.device}: {memory}; disk at {shown(room.cache)}: {disk}"
    return [place, "", *listing.columns(table), "", _LEGEND]


def _all(name: str, kind: str) -> list[Fit]:
    return [one for word in fit.precisions(name) if (one := fit.of(name, word, kind))]


def _judged(one: Fit, here: str, room: Room) -> dict[str, Any]:
    on_disk = here in (listing.YES, listing.PACKAGED) or room.stores(one.download_bytes)
    return {**asdict(one), "here": here, "fits_memory": room.holds(one.memory_bytes), "fits_disk": on_disk}


def _cells(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    first, by_word = rows[0], {row["precision"]: row for row in rows}
    here = first["here"]
    download = here if here == listing.PACKAGED else in_words(first["download_bytes"])
    download += " (here)" if here == listing.YES else ""
    memory = (_memory(by_word.get(word)) for word in fit.PRECISIONS)
    return (first["name"], download, *memory, _fitting(rows))


def _memory(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{'~' if row['origin'] == fit.PREDICTED else ''}{in_words(row['memory_bytes'])}"


def _fitting(rows: list[dict[str, Any]]) -> str:
    if not rows[0]["fits_disk"]:
        return "no: disk"
    return ", ".join(row["precision"] for row in rows if row["fits_memory"]) or "no: memory"
