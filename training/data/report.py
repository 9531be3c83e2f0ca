"""Counts what could not be used, lists bad records in a file, and stops the run if there are too many."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vladva_clip.storage import json_files
from vladva_training.data.dataset import MAX_ATTEMPTS, BadEntry, Notes
from vladva_training.data.negatives import TRUE
from vladva_training.step.identity import UNKNOWN

PATIENCE = 500
"""Records read before the share of bad ones is judged."""

_LISTED = 20

Counts = tuple[int, Counter, Counter, int]


class DataReport:
    """Counts bad records, unused captions and repeated pictures in the consumed batches.

    Args:
        path: file that lists every bad record once per reason, one JSON object per line with source, key, reason and
            detail. An existing file is appended to. None for no file.
        max_bad_share: the largest allowed share of bad records.
        patience: records read before that share is judged.

    Attributes:
        records: records read, including bad ones.
        bad: bad records by reason; a record that is read again counts again.
        unused: captions not used, by reason.
        same_picture: rows that shared their picture with another row of their batch.
    """

    def __init__(self, path: Path | str | None = None, max_bad_share: float = 0.01, patience: int = PATIENCE) -> None:
        self.path = None if path is None else Path(path)
        self.max_bad_share, self.patience = max_bad_share, patience
        self.records, self.bad, self.unused, self.same_picture = 0, Counter(), Counter(), 0
        self._examples: list[BadEntry] = []
        self._listed = _read_listed(self.path)

    def add(self, rows: Sequence[Notes]) -> None:
        """Count the rows of a batch, and list their bad records.

        Raises:
            ValueError: too many bad records; lists the first of them.
        """
        entries = [entry for row in rows for entry in row.bad]
        self.records += sum(not row.given_up for row in rows) + len(entries)
        self.bad.update(entry.reason for entry in entries)
        for row in rows:
            self.unused.update(row.unused)
        pictures = Counter(row.picture for row in rows if row.picture != UNKNOWN)
        self.same_picture += sum(count for count in pictures.values() if count > 1)
        self._list(entries)
        self._judge([row for row in rows if row.given_up])

    def add_from_global_batch(self, same_picture: int, true_negatives: int) -> None:
        """Count what only the global batch shows.

        Args:
            same_picture: rows of this process that share their picture only with rows of other processes.
            true_negatives: this process's hard negatives that are captions of other rows with the same picture.
        """
        self.same_picture += same_picture
        self.unused.update(+Counter({TRUE: true_negatives}))

    @property
    def bad_share(self) -> float:
        """Share of bad records among those read."""
        return self.bad.total() / max(self.records, 1)

    @property
    def counts(self) -> Counts:
        """Records read, bad ones by reason, unused captions by reason, rows that shared a picture."""
        return self.records, self.bad, self.unused, self.same_picture

    def _list(self, entries: list[BadEntry]) -> None:
        new = {(entry.source, entry.key, entry.reason): entry for entry in entries}
        new = {key: entry for key, entry in new.items() if key not in self._listed}
        self._listed |= set(new)
        self._examples += list(new.values())[: _LISTED - len(self._examples)]
        if new and self.path is not None:
            _append(self.path, [json.dumps(vars(entry)) + "\n" for entry in new.values()])

    def _judge(self, given_up: list[Notes]) -> None:
        if given_up:
            source = given_up[0].bad[0].source
            raise ValueError(f"{MAX_ATTEMPTS} records in a row of {source} are bad. {self._advice()}")
        if self.records >= self.patience and self.bad_share > self.max_bad_share:
            raise ValueError(
                f"{self.bad.total()} of {self.records} records are bad, more than the share {self.max_bad_share:g} "
                f"that is allowed{_by_reason(self.bad)}. {self._advice()}"
            )

    def _advice(self) -> str:
        lines = [f"  {entry.source} {entry.key}: {entry.reason} {entry.detail}".rstrip() for entry in self._examples]
        where = f" (all in {self.path})" if self.path is not None else ""
        return f"Fix the source, or allow more with data.max_bad_share. The first{where}:\n" + "\n".join(lines)


def summary_of(parts: Sequence[Counts]) -> str:
    """Summarize all processes' counts in one line: records, bad ones and why, unused captions, repeated pictures."""
    records, same_picture = (sum(part[place] for part in parts) for place in (0, 3))
    bad, unused = (sum((part[place] for part in parts), Counter()) for place in (1, 2))
    lines = [f"{records} records, {bad.total()} bad{_by_reason(bad)}"]
    if unused:
        lines.append(f"{unused.total()} captions not used{_by_reason(unused)}")
    if same_picture:
        lines.append(f"{same_picture} rows shared their picture with another row of their batch")
    return ", ".join(lines)


def _append(path: Path, lines: list[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:  # the error of a full disk lacks the file's name
        raise OSError(error.errno, f"the bad records cannot be listed: {error.strerror}", str(path)) from error


def _by_reason(counts: Counter) -> str:
    found = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return f" ({found})" if found else ""


def _read_listed(path: Path | None) -> set[tuple[str, str, str]]:
    """Read what an earlier part of the run listed. If a crash cut the last line, end it before anything is appended."""
    if path is None or not path.is_file():
        return set()
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")
    return {key for line in data.splitlines() if (key := _listed_key(line)) is not None}


def _listed_key(line: bytes) -> tuple[str, str, str] | None:
    try:
        entry = json_files.parse(line, json_files.RECORDS)
        return entry["source"], entry["key"], entry["reason"]
    except (ValueError, KeyError, TypeError):
        return None
