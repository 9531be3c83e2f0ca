"""The miniature's table and plot, from its JSON files."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from vladva_benchmarks import files
from vladva_benchmarks.drawn import miniature_runs
from vladva_benchmarks.drawn.miniature_runs import SPLITS, Run
from vladva_benchmarks.report import marked_text
from vladva_clip.interface import extras

REPORT, PLOT = "README.md", "miniature.png"
START, END = "<!-- table: written by vladva-benchmark miniature -->", "<!-- end of the table -->"
MISSING = "-"

Column = Callable[[dict], float | None]


def _mean_of(group: str, *kinds: str) -> Column:
    return lambda figures: mean(figures[group][kind] for kind in kinds)


def _caption(name: str) -> Column:
    return lambda figures: figures["captions"][name] if "captions" in figures else None


COLUMNS: dict[str, Column] = {
    "t2i R@1": _mean_of("retrieval", "text_to_image_R@1"),
    "t2i R@5": _mean_of("retrieval", "text_to_image_R@5"),
    "i2t R@1": _mean_of("retrieval", "image_to_text_R@1"),
    "i2t R@5": _mean_of("retrieval", "image_to_text_R@5"),
    "replace": _mean_of("foils", "replace_obj", "replace_att", "replace_rel"),
    "swap": _mean_of("foils", "swap_obj", "swap_att"),
    "add": _mean_of("foils", "add_obj", "add_att"),
    "ITT": lambda figures: mean(figures["itt"].values()),
    "TOT": lambda figures: mean(figures["tot"].values()),
    "Winoground text": _mean_of("winoground", "text"),
    "image": _mean_of("winoground", "image"),
    "group": _mean_of("winoground", "group"),
    "zero-shot": _mean_of("zero_shot", "top_1"),
    "captions": _caption("continued"),
    "chat": _caption("described"),
}
PLOTTED = ("t2i R@5", "replace", "swap", "add", "TOT", "group", "zero-shot")


def write(results: Path, rows: Sequence[str]) -> None:
    """Write the table into the report, between its marks, and the plot beside it.

    Raises:
        ValueError: no finished run, an incomplete run or one of another size, a report without the marks.
    """
    runs = miniature_runs.read(results, rows)
    if not runs:
        raise ValueError(f"{results} holds no finished run; run without --report-only")
    marked_text.write(results / REPORT, START, END, tables(runs), blank=f"# Miniature\n\n{START}\n{END}\n")
    plot(runs, results / PLOT)


def tables(runs: dict[str, list[Run]]) -> str:
    """Return two Markdown tables for each split, one of them by foil kind: percentages with the range over seeds."""
    parts = []
    for split in SPLITS:
        parts += [f"\n**`{split}`**\n", _table(runs, split, COLUMNS)]
        kinds = next(iter(runs.values()))[0]["figures"][split]["foils"]
        parts += [f"\nFoils, `{split}`\n", _table(runs, split, {kind: _mean_of("foils", kind) for kind in kinds})]
    return "\n".join([*parts, "", _durations(runs)])


def _table(runs: dict[str, list[Run]], split: str, columns: dict[str, Column]) -> str:
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, found in runs.items():
        cells = [_cell([column(run["figures"][split]) for run in found]) for column in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float | None]) -> str:
    """The mean in percent, with half the range over the seeds."""
    if None in values:
        return MISSING
    spread = 50 * (max(values) - min(values))
    return f"{100 * mean(values):.1f}" + (f" ± {spread:.1f}" if len(values) > 1 else "")


def _durations(runs: dict[str, list[Run]]) -> str:
    lines = ["| | seeds | pairs | training, minutes | threads |", "|---|---|---|---|---|"]
    for name, found in runs.items():
        minutes = mean(run["training_seconds"] for run in found) / 60
        threads = found[0]["hardware"]["threads"]
        lines.append(f"| {name} | {len(found)} | {found[0]['samples']:,} | {minutes:.1f} | {threads} |")
    return "\n".join(lines)


def plot(runs: dict[str, list[Run]], path: Path) -> None:
    """Draw the rows side by side, one group of bars per figure and one panel per split, the seeds as dots."""
    extras.require("matplotlib", purpose="the plot")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    for panel, split in zip(panels, SPLITS, strict=True):
        _bars(panel, runs, split)
    panels[0].legend(ncols=len(runs), fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.08))
    data = io.BytesIO()
    figure.savefig(data, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)
    files.write(path, data.getvalue())


def _bars(panel, runs: dict[str, list[Run]], split: str) -> None:
    width = 0.8 / len(runs)
    for index, (name, found) in enumerate(runs.items()):
        places = [group + width * (index - (len(runs) - 1) / 2) for group in range(len(PLOTTED))]
        values = [[100 * COLUMNS[column](run["figures"][split]) for run in found] for column in PLOTTED]
        panel.bar(places, [mean(seeds) for seeds in values], width * 0.92, label=name, color=f"C{index}")
        for place, seeds in zip(places, values, strict=True):
            panel.scatter([place] * len(seeds), seeds, s=5, color="black", zorder=3)
    panel.set(title=split, ylim=(0, 100), ylabel="%", xticks=range(len(PLOTTED)), xticklabels=PLOTTED)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", alpha=0.3)
