"""The paper's tables with our rows among the published ones, as Markdown."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vladva_benchmarks.report.results import Result, Row
from vladva_clip.storage.config import read_json

PUBLISHED = Path(__file__).parents[1] / "published.json"
NONE = "-"
PARTIAL = "†"  # marks a figure on data whose size differs from the published one
TIES_RIGHT = "‡"  # marks a SugarCrepe figure by clip_benchmark itself, which counts a tie as right
_NOISE = 1e-9  # error of a binary fraction, far below one decimal


@dataclass(frozen=True)
class Column:
    """A table's column: a mean of metrics, each of a data set."""

    name: str
    mean_of: list[tuple[str, str]]  # (data set, metric)

    def value(self, row: Row) -> float | None:
        """Return a measured row's figure in percent, or None if a part of it wasn't measured."""
        parts = [row.value(*part) for part in self.mean_of]
        return None if None in parts else 100 * sum(parts) / len(parts)

    def results(self, row: Row) -> list[Result]:
        """Return the results of a row that make up its figure."""
        return [result for name, _ in self.mean_of for result in row.parts(name)]

    def partial(self, row: Row) -> bool:
        """Whether any part of the figure comes from data whose size differs from the published one."""
        return any(result.partial for result in self.results(row))

    def ties_right(self, row: Row) -> bool:
        """Whether clip_benchmark's SugarCrepe scored any part of the figure; its argmax counts a tie as right."""
        return any(result.details is None and result.dataset.startswith("sugar_crepe") for result in self.results(row))


@dataclass(frozen=True)
class Footnote:
    """What is known about a published row or, with a column, about one of its figures."""

    row: str
    text: str
    column: str | None = None


@dataclass(frozen=True)
class Table:
    """A table of the paper: published rows in percent, in the order of the columns.

    Attributes:
        rows: name -> figures; None where the paper has none.
        footnotes: of the published rows.
        steps: the rows are stages of one model, in order.
        references: the paper's name of a model -> its row here, where the table has another name for it.
    """

    id: str
    title: str
    note: str
    columns: list[Column]
    rows: dict[str, list[float | None]]
    footnotes: list[Footnote] = field(default_factory=list)
    steps: bool = False
    references: dict[str, str] = field(default_factory=dict)

    def reference(self, row: Row) -> str | None:
        """Return the name of the paper's own row of a measured model, or None if this table has none."""
        name = self.references.get(row.reference or "", row.reference)
        return name if name in self.rows else None

    def measured(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that have a figure in this table."""
        return [row for row in rows if any(column.value(row) is not None for column in self.columns)]

    def differences(self, row: Row) -> list[float | None]:
        """Return how much a row is above the paper's own, column by column, in percent points as displayed.

        None if either figure is missing, or if the size of the data differs from the published one.
        """
        theirs = self.rows.get(self.reference(row) or "", [None] * len(self.columns))
        ours = [None if column.partial(row) else column.value(row) for column in self.columns]
        return [
            None if one is None or other is None else rounded(one) - other
            for one, other in zip(ours, theirs, strict=True)
        ]


def rounded(percent: float) -> float:
    """Round to one decimal, halves up as in the paper: 49 of Winoground's 400, which is 12.25%, is 12.3 there."""
    return math.floor(10 * percent + 0.5 + _NOISE) / 10


def published() -> tuple[dict[str, str], list[Table]]:
    """Return the paper of the published rows (title, venue, arxiv, unit), and its tables."""
    data = read_json(PUBLISHED)
    tables = []
    for table in data["tables"]:
        columns = [
            Column(column["name"], [tuple(part) for part in column["mean_of"]]) for column in table.pop("columns")
        ]
        footnotes = [Footnote(**note) for note in table.pop("footnotes", [])]
        tables.append(Table(columns=columns, footnotes=footnotes, **table))
    return data["source"], tables


def markdown(table: Table, rows: Sequence[Row]) -> str:
    """Return a table: published rows, then ours in bold with the difference to the paper's own row in parentheses.

    Footnotes follow it, each with a raised number that is also behind what it is about.
    """
    lines = _head(["", *(column.name for column in table.columns)])
    lines += [_line(_published_cells(table, name)) for name in table.rows]
    for row in table.measured(rows):
        lines.append(_line([_name(row), *_cells(table, row)]))
    notes = [f"{_raised(number)} {note.text}" for number, note in enumerate(table.footnotes, 1)]
    return "\n".join(lines) + ("\n\n" + "  \n".join(notes) if notes else "")


def _published_cells(table: Table, name: str) -> list[str]:
    marks = {note.column: _raised(number) for number, note in enumerate(table.footnotes, 1) if note.row == name}
    cells = [name + marks.get(None, "")]
    for column, value in zip(table.columns, table.rows[name], strict=True):
        cells.append(" ".join([NONE if value is None else str(value), *marks.get(column.name, "")]))
    return cells


def _raised(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _name(row: Row) -> str:
    return f"**{escaped(row.name)}**"


def _cells(table: Table, row: Row) -> list[str]:
    cells = []
    for column, difference in zip(table.columns, table.differences(row), strict=True):
        value = column.value(row)
        marks = (PARTIAL if column.partial(row) else "") + (TIES_RIGHT if column.ties_right(row) else "")
        behind = "" if difference is None else f" ({difference:+.1f})"
        cells.append(NONE if value is None else f"**{rounded(value):.1f}**{marks}{behind}")
    return cells


def others(tables: Sequence[Table], rows: Sequence[Row]) -> str:
    """Return the figures that are in no table of the paper, one line per data set; empty if there are none."""
    shown = {part for table in tables for column in table.columns for part in column.mean_of}
    lines = []
    for row in rows:
        for result in row.results.values():
            left = {name: value for name, value in result.metrics.items() if (result.dataset, name) not in shown}
            if left:
                figures = ", ".join(f"{escaped(name)} {value:.4f}" for name, value in left.items())
                mark = PARTIAL if result.partial else ""
                lines.append(_line([_name(row), escaped(result.dataset) + mark, figures]))
    return "\n".join(_head(["", "data set", "figures, as the files have them"]) + lines) if lines else ""


def origins(rows: Sequence[Row]) -> str:
    """Return the source of each figure: file, size, duration, speed, hardware, weights; then commands and versions."""
    results = [result for row in rows for result in row.sources]
    lines = _head(["model", "data set", "counts", "seconds", "images/s", "hardware", "weights", "file"])
    lines += [_origin(result) for result in results]
    commands = list(dict.fromkeys(shlex.join((r.details or {}).get("command") or []) for r in results))
    parts = ["\n".join(lines)]
    if commands := [command for command in commands if command]:
        parts.append("Commands:\n\n" + "\n".join(f"    {command}" for command in commands))
    return "\n\n".join([*parts, _versions(results)])


def _origin(result: Result) -> str:
    details = result.details or {}
    counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in (details.get("counts") or {}).items())
    speed = [f"{details[name]:.1f}" if name in details else NONE for name in ("seconds", "images_per_second")]
    weights = str(details.get("weights") or NONE).removeprefix("sha256:")[:12]
    cells = [result.name, result.dataset, counts or NONE, *speed]
    cells += [str(details.get("hardware") or NONE), weights, result.path.name]
    return _line([escaped(cell) for cell in cells])


def _versions(results: Sequence[Result]) -> str:
    """Return each set of versions that was used, in one line; clip_benchmark's own files don't state theirs."""
    found = [", ".join(f"{k} {v}" for k, v in ((r.details or {}).get("versions") or {}).items()) for r in results]
    known = [versions for versions in dict.fromkeys(found) if versions]
    return "Versions: " + ("; and ".join(known) if known else "not stated in the files")


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Return text escaped for a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("\n", " ")
