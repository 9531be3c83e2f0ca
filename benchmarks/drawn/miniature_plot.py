"""The miniature's plot: the rows side by side in each world, and `both` with more and fewer pairs."""

import io
from pathlib import Path
from statistics import mean

from vladva_benchmarks import files
from vladva_benchmarks.drawn.miniature_rows import ROWS
from vladva_benchmarks.drawn.miniature_runs import WORLDS, Run
from vladva_clip.interface import extras

PLOTTED = {  # those in which rows differ: where all but the CLIP are near 100, a bar says nothing
    "t2i R@1": ("retrieval", "text_to_image_R@1"),
    "named among others": ("zero_shot", "top_1"),
    "swap_obj": ("foils", "swap_obj"),
    "best of four": ("evaluation_foils", "relation_of_four"),
    "number": ("evaluation_foils", "replace_count"),
    "size": ("evaluation_foils", "replace_size"),
    "axis, group": ("winoground_axis", "group"),
    "captions: relations": ("captions", "continued_relations"),
}
SIZES = [row.name for row in ROWS if row.share != 1]
"""The rows with other numbers of pairs than `both`."""


def write(runs: dict[str, list[Run]], path: Path) -> None:
    """Draw a panel of bars for each world, the seeds as dots, and one of lines over the number of pairs."""
    extras.require("matplotlib", purpose="the plot")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(len(WORLDS) + 1, 1, figsize=(11, 11), layout="constrained")
    for panel, world in zip(panels, WORLDS, strict=False):
        panel.set_prop_cycle(color=matplotlib.color_sequences["tab20"])  # the default has fewer colors than rows
        _bars(panel, {name: found for name, found in runs.items() if name not in SIZES}, world.name)
    panels[0].legend(ncols=3, fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.08))
    _lines(panels[-1], [run for name in ("both", *SIZES) for run in runs.get(name, [])])
    data = io.BytesIO()
    figure.savefig(data, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)
    files.write(path, data.getvalue())


def _bars(panel, runs: dict[str, list[Run]], world: str) -> None:
    width = 0.8 / max(1, len(runs))
    for index, (name, found) in enumerate(runs.items()):
        places = [group + width * (index - (len(runs) - 1) / 2) for group in range(len(PLOTTED))]
        values = [[_percent(run, world, *place) for run in found] for place in PLOTTED.values()]
        panel.bar(places, [mean(seeds) for seeds in values], width * 0.92, label=name)
        for place, seeds in zip(places, values, strict=True):
            panel.scatter([place] * len(seeds), seeds, s=4, color="black", zorder=3)
    panel.set(title=world, xticks=range(len(PLOTTED)), xticklabels=PLOTTED)
    _frame(panel)


def _lines(panel, runs: list[Run]) -> None:
    """Means over the seeds, on the first world."""
    pairs = sorted({run["samples"] for run in runs})
    for name, place in PLOTTED.items():
        values = [
            mean(_percent(run, WORLDS[0].name, *place) for run in runs if run["samples"] == count) for count in pairs
        ]
        panel.plot(pairs, values, marker="o", label=name)
    panel.set(title=f"both, {WORLDS[0].name}", xlabel="pairs")
    if pairs:
        panel.set_xscale("log")
        panel.set_xticks(pairs, [f"{count:,}" for count in pairs], minor=False)
        panel.minorticks_off()
        panel.legend(ncols=4, fontsize=7, frameon=False, loc="lower left")
    _frame(panel)


def _percent(run: Run, world: str, group: str, name: str) -> float:
    """A figure in percent; NaN, which is not drawn, where no scene of the gallery allows the kind."""
    return 100 * run["figures"][world].get(group, {}).get(name, float("nan"))


def _frame(panel) -> None:
    panel.set(ylim=(0, 100), ylabel="%")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", alpha=0.3)
