"""The paper's tables with our rows among the published ones, as Markdown."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vladva_benchmarks.report_results import NOCAPS_DOMAINS, Result, Row

PUBLISHED = Path(__file__).with_name("published.json")
NONE = "-"
PARTIAL = "†"  # behind the name of a row with data sets of other than the published sizes
TIES_RIGHT = "‡"  # behind a SugarCrepe figure of clip_benchmark's own, where a tie is right


@dataclass(frozen=True)
class Column:
    """A table's column: the mean of metrics of data sets."""

    name: str
    mean_of: list[tuple[str, str]]  # (data set, metric)

    def value(self, row: Row) -> float | None:
        """The percentage of a measured row; None where a part of it wasn't measured."""
        parts = [row.value(*part) for part in self.mean_of]
        return None if None in parts else 100 * sum(parts) / len(parts)

    def ties_right(self, row: Row) -> bool:
        """Whether a part of it was scored by clip_benchmark's SugarCrepe, whose argmax takes a tie for right."""
        found = [row.results[name] for name, _ in self.mean_of if name in row.results]
        return any(result.details is None and result.dataset.startswith("sugar_crepe") for result in found)


@dataclass(frozen=True)
class Table:
    """A table of the paper: published rows in percent, in the order of the columns."""

    id: str
    title: str
    note: str
    columns: list[Column]
    rows: dict[str, list[float]]

    def measured(self, rows: Sequence[Row]) -> list[Row]:
        """Those rows that have a figure in this table."""
        return [row for row in rows if any(column.value(row) is not None for column in self.columns)]


def published() -> tuple[dict[str, str], list[Table]]:
    """Return the paper the published rows are from (title, venue, arxiv, unit), and its tables."""
    data = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    tables = []
    for table in data["tables"]:
        columns = [
            Column(column["name"], [tuple(part) for part in column["mean_of"]]) for column in table.pop("columns")
        ]
        tables.append(Table(columns=columns, **table))
    return data["source"], tables


def markdown(table: Table, rows: Sequence[Row]) -> str:
    """Return a table: published rows, then ours in bold, the difference to the paper's own row in brackets."""
    lines = _head(["", *(column.name for column in table.columns)])
    lines += [_line([name, *(f"{value:.1f}" for value in values)]) for name, values in table.rows.items()]
    for row in table.measured(rows):
        lines.append(_line([_name(row), *_cells(table, row)]))
    return "\n".join(lines)


def _name(row: Row) -> str:
    return f"**{escaped(row.name)}**{PARTIAL if row.partial else ''}"


def _cells(table: Table, row: Row) -> list[str]:
    reference = table.rows.get(row.reference or "", [None] * len(table.columns))
    cells = []
    for column, theirs in zip(table.columns, reference, strict=True):
        ours = column.value(row)
        mark = TIES_RIGHT if column.ties_right(row) else ""
        difference = "" if ours is None or theirs is None else f" ({ours - theirs:+.1f})"
        cells.append(NONE if ours is None else f"**{ours:.1f}**{mark}{difference}")
    return cells


def others(tables: Sequence[Table], rows: Sequence[Row]) -> str:
    """Return what was measured and stands in no table of the paper, one line per data set; empty for nothing."""
    shown = {part for table in tables for column in table.columns for part in column.mean_of}
    shown |= {(domain, metric) for domain in NOCAPS_DOMAINS for name, metric in shown if name.startswith("nocaps")}
    lines = []
    for row in rows:
        for result in row.results.values():
            left = {name: value for name, value in result.metrics.items() if (result.dataset, name) not in shown}
            if left:
                figures = ", ".join(f"{escaped(name)} {value:.4f}" for name, value in left.items())
                lines.append(_line([_name(row), escaped(result.dataset), figures]))
    return "\n".join(_head(["", "data set", "figures, as the files have them"]) + lines) if lines else ""


def origins(rows: Sequence[Row]) -> str:
    """Return where each figure is from: file, size, duration, speed, hardware, weights; then commands and versions."""
    results = [result for row in rows for result in row.results.values()]
    lines = _head(["model", "data set", "counts", "seconds", "images/s", "hardware", "weights", "file"])
    lines += [_origin(result) for result in results]
    commands = list(dict.fromkeys(" ".join((r.details or {}).get("command") or []) for r in results))
    parts = ["\n".join(lines)]
    if commands := [command for command in commands if command]:
        parts.append("Commands:\n\n" + "\n".join(f"    {command}" for command in commands))
    return "\n\n".join([*parts, _versions(results)])


def _origin(result: Result) -> str:
    details = result.details or {}
    counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in (details.get("counts") or {}).items())
    speed = [f"{details[name]:.1f}" if name in details else NONE for name in ("seconds", "images_per_second")]
    weights = str(details.get("weights") or NONE).removeprefix("sha256:")[:12]
    cells = [f"{result.model} {result.pretrained}", result.dataset, counts or NONE, *speed]
    cells += [str(details.get("hardware") or NONE), weights, result.path.name]
    return _line([escaped(cell) for cell in cells])


def _versions(results: Sequence[Result]) -> str:
    """One line for each set of versions that was used; of clip_benchmark's own files nothing is known."""
    found = [", ".join(f"{k} {v}" for k, v in ((r.details or {}).get("versions") or {}).items()) for r in results]
    known = [versions for versions in dict.fromkeys(found) if versions]
    return "Versions: " + ("; and ".join(known) if known else "not stated in the files")


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Return text that stands in a cell of a Markdown table as it is."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("\n", " ")
