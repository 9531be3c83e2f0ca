"""A plot of each table: published rows as dots, the paper's own rows and ours in colour."""

import io
from collections.abc import Sequence

from vladva_benchmarks.report_results import Row
from vladva_benchmarks.report_tables import Table


def draw(table: Table, rows: Sequence[Row]) -> bytes:
    """Draw one panel, a place on its horizontal axis for each column: the bytes of a PNG.

    Raises:
        ValueError: matplotlib isn't installed.
    """
    pyplot = _pyplot()
    width = 4 + 0.7 * len(table.columns)
    figure, panel = pyplot.subplots(figsize=(width, 4.2), layout="constrained")
    _published(panel, table)
    for number, row in enumerate(table.measured(rows)):
        values = [column.value(row) for column in table.columns]
        places = [place for place, value in enumerate(values) if value is not None]
        there = [values[place] for place in places]
        panel.plot(places, there, "D", markersize=8, color=f"C{number + 1}", markeredgecolor="black", label=row.name)
    names = [column.name.replace(" ", "\n", 1) for column in table.columns]
    panel.set(title=table.title, ylabel="%", xticks=range(len(names)), xlim=(-0.5, len(names) - 0.5), ylim=(0, 101))
    panel.set_xticklabels(names, fontsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", alpha=0.3)
    panel.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    data = io.BytesIO()
    figure.savefig(data, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return data.getvalue()


def _published(panel, table: Table) -> None:
    places = range(len(table.columns))
    rest = {name: values for name, values in table.rows.items() if not name.startswith("VladVA")}
    for number, values in enumerate(rest.values()):
        panel.plot(places, values, "o", color="0.7", markersize=4, label=None if number else "published, others")
    vladva = [values for name, values in table.rows.items() if name.startswith("VladVA")]
    for number, values in enumerate(vladva):
        panel.plot(places, values, "_", color="C0", markersize=16, label=None if number else "published, VladVA")


def _pyplot():
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("plots need matplotlib: pip install 'vladva-clip[benchmarks]', or --no-plots") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
