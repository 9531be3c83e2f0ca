"""The paper's tables with your rows in them, from result files.

    vladva-benchmark report results/ --out report.md

Reads the files of `vladva-benchmark run` and of clip_benchmark's own command. Writes each of the paper's tables in
which a model has a figure: the published rows, yours in bold with the difference to the paper's own row, and a plot.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from vladva_benchmarks import files
from vladva_benchmarks.report import plots, results, tables
from vladva_benchmarks.report.results import Row
from vladva_benchmarks.report.tables import PARTIAL, TIES_RIGHT, Table
from vladva_clip.interface.arguments import user_path


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: writes the report and prints where it is.

    Raises:
        ValueError: a file that is not a result or has another format, results that contradict each other, a path that
            can't be written.
    """
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    files.check_file(options.out)
    rows = results.rows(map(results.read, results.find(options.results)))
    _, all_tables = tables.published()
    wanted = all_tables if options.all_tables else [table for table in all_tables if table.measured(rows)]
    drawn = {} if options.no_plots else {table.id: plots.draw(table, rows) for table in wanted}
    text = compose(rows, all_tables, wanted, {name: plot_path(options.out, name).name for name in drawn})
    for name, plot in drawn.items():
        files.write(plot_path(options.out, name), plot)
    files.write(options.out, text.encode())
    print(f"{options.out}: report of {len(rows)} model(s), {len(wanted)} of the paper's tables, {len(drawn)} plots")


def plot_path(out: Path, table: str) -> Path:
    """Return the path of a table's plot: beside the report, named after the report and the table."""
    return out.with_name(f"{out.stem}-{table}.png")


def compose(rows: Sequence[Row], published: Sequence[Table], wanted: Sequence[Table], plots: dict[str, str]) -> str:
    """Return the report as Markdown.

    Args:
        rows: the measured models.
        published: all of the paper's tables.
        wanted: the tables to show.
        plots: table -> file name of its plot, for tables that have one.
    """
    parts = ["# Evaluation report", _legend(rows, wanted)]
    for table in wanted:
        parts.append(f"## {table.title}")
        parts += [table.note] if table.note else []
        parts.append(tables.markdown(table, rows))
        parts += [f"![{table.title}]({quote(plots[table.id])})"] if table.id in plots else []
    if others := tables.others(published, rows):
        parts += ["## Beyond the paper's tables", others]
    parts += ["## Where the figures come from", tables.origins(rows)]
    return "\n\n".join(parts) + "\n"


def _legend(rows: Sequence[Row], wanted: Sequence[Table]) -> str:
    source, _ = tables.published()
    paper = f"*{source['title']}* ({source['venue']}, arXiv {source['arxiv']})"
    lines = [f"Percent, zero-shot. Rows in **bold** were measured here; all others are as published in {paper}."]
    compared = [row for row in rows if any(one is not None for table in wanted for one in table.differences(row))]
    lines += [
        f"In parentheses after a figure: its difference to the paper's row {reference!r}, for {name}."
        for name, reference in {row.name: row.reference for row in compared}.items()
    ]
    if any(row.partial for row in rows):
        lines.append(f"{PARTIAL} on data whose size differs from the published one: not comparable to published rows.")
    if any(column.ties_right(row) for table in wanted for column in table.columns for row in rows):
        lines.append(
            f"{TIES_RIGHT} scored by clip_benchmark itself, which counts a tie as right; officially it is wrong."
        )
    return "\n".join(f"- {line}" for line in lines)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "vladva-benchmark report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "results", nargs="+", type=user_path, metavar="RESULTS", help="result files, or folders of them"
    )
    parser.add_argument(
        "--out", type=user_path, default=Path("report.md"), help="the Markdown file; plots are written beside it"
    )
    parser.add_argument("--no-plots", action="store_true")
    parser.add_argument("--all-tables", action="store_true", help="also show tables in which no model has a figure")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
