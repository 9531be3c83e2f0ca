"""A plot of each table: published rows as dots, the paper's own rows in blue, and ours beside them in colors.

Where the rows are stages of one model, they stand beside each other, from light to dark, each named in the legend.
"""

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vladva_benchmarks.report.results import Row
from vladva_benchmarks.report.tables import PARTIAL, Table
from vladva_clip.interface import extras

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = [f"C{number}" for number in (1, 2, 3, 4, 5, 6, 8, 9)]  # C0 is the paper's, C7 is gray like the published rows
MARKERS = "Ds^v<>"  # the next one each time the colors run out
PLACE = -0.2  # position of published figures in their column, whose width is 1
STAGES = (-0.42, -0.06)  # the part of the column for stages
OURS = (0.0, 0.38)  # the part of the column for our figures


def draw(table: Table, rows: Sequence[Row]) -> bytes:
    """Return the bytes of a PNG of `plot`.

    Raises:
        ValueError: matplotlib isn't installed.
    """
    data = io.BytesIO()
    plot(table, rows).savefig(data, dpi=110, format="png", metadata={"Software": None})
    return data.getvalue()


def plot(table: Table, rows: Sequence[Row]) -> "Figure":
    """Return a figure with one panel and a position on its horizontal axis for each column.

    Raises:
        ValueError: matplotlib isn't installed.
    """
    measured = table.measured(rows)
    figure = _figure(figsize=(_width(table, measured), 4.2), layout="constrained")
    panel = figure.subplots()
    _published(panel, table)
    _references(panel, table, measured)
    for number, row in enumerate(measured):
        _ours(panel, table, row, number, len(measured))
    names = [column.name.replace(" ", "\n", 1) for column in table.columns]
    panel.set(
        title=table.title,
        ylabel="%",
        xticks=range(len(names)),
        xlim=(-0.5, len(names) - 0.5),
        ylim=(_bottom(table, measured), 101),
    )
    panel.set_xticklabels(names, fontsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", alpha=0.3)
    panel.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _width(table: Table, measured: Sequence[Row]) -> float:
    """Return the width in inches: each column has room for all of ours side by side, and the legend for itself."""
    return 4 + len(table.columns) * max(0.7, 0.4 + 0.12 * len(measured))


def _published(panel, table: Table) -> None:
    if table.steps:
        _stages(panel, table)
        return
    places = _places(table)
    vladva = [values for name, values in table.rows.items() if name.startswith("VladVA")]
    rest = [values for name, values in table.rows.items() if not name.startswith("VladVA")]
    label = "published, others" if vladva else "published"
    for number, values in enumerate(rest):
        panel.plot(places, values, "o", color="0.7", markersize=4, label=None if number else label)
    for number, values in enumerate(vladva):
        panel.plot(places, values, "_", color="C0", markersize=12, label=None if number else "published, VladVA")


def _stages(panel, table: Table) -> None:
    """Draw each row in its own blue, from light to dark in their order, with a line from each to the next."""
    places, last = [_places(table, name) for name in table.rows], max(1, len(table.rows) - 1)
    for column in zip(zip(*places, strict=True), zip(*table.rows.values(), strict=True), strict=True):
        panel.plot(*column, color="0.8", linewidth=1, zorder=1)
    for number, (name, values) in enumerate(table.rows.items()):
        blue = (0.75 - 0.69 * number / last, 0.85 - 0.65 * number / last, 0.95 - 0.45 * number / last)
        panel.plot(places[number], values, "o", color=blue, markersize=5, label=f"published, {name}")


def _places(table: Table, name: str | None = None) -> list[float]:
    """Return where a published row's figures stand on the horizontal axis; stages have places of their own."""
    start, stop = STAGES if table.steps else (PLACE, PLACE)
    share = list(table.rows).index(name) / max(1, len(table.rows) - 1) if name else 0.0
    return [place + start + (stop - start) * share for place in range(len(table.columns))]


def _bottom(table: Table, measured: Sequence[Row]) -> float:
    """Return where the vertical axis starts: at 0, and for stages at the ten below the lowest figure."""
    if not table.steps:
        return 0
    ours = [column.value(row) for column in table.columns for row in measured]
    found = [value for value in (*ours, *sum(table.rows.values(), [])) if value is not None]
    return 10 * (min(found) // 10)


def _references(panel, table: Table, measured: Sequence[Row]) -> None:
    """Draw rings around the paper's own rows of our models, each wider than the last, as figures may be equal."""
    for number, name in enumerate(filter(None, dict.fromkeys(map(table.reference, measured)))):
        style = {"color": "none", "markeredgecolor": "black", "markersize": 7 + 3 * number}
        label = None if table.steps else f"published, {name}"  # stages are already in the legend
        panel.plot(_places(table, name), table.rows[name], "o", label=label, clip_on=False, **style)


def _ours(panel, table: Table, row: Row, number: int, count: int) -> None:
    """Draw a model's figures, beside other models' so that equal ones stay visible; hollow for part of a data set."""
    start, stop = OURS
    shift = start + (stop - start) * (number + 0.5) / count
    values = {place: column.value(row) for place, column in enumerate(table.columns)}
    there = {place: value for place, value in values.items() if value is not None}
    partial = {place: table.columns[place].partial(row) for place in there}
    color = COLORS[number % len(COLORS)]
    faces = ["white" if partial[place] else color for place in there]
    edges = [color if partial[place] else "black" for place in there]
    panel.scatter(
        [place + shift for place in there],
        list(there.values()),
        marker=MARKERS[number // len(COLORS) % len(MARKERS)],
        s=44,
        color=faces,
        edgecolors=edges,
        linewidths=1.2,
        zorder=3,
        clip_on=False,  # so that markers at 0 and 100 are not cut
        label=textwrap.fill(row.name + (f" {PARTIAL}" if any(partial.values()) else ""), 40),
    )


def _figure(**options) -> "Figure":
    """Return a figure that needs no window and leaves pyplot's state alone."""
    extras.require("matplotlib", purpose="each plot (--no-plots leaves them out)")
    from matplotlib.figure import Figure

    return Figure(**options)
