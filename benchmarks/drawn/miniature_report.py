"""The miniature's tables and plot, from its JSON files."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from vladva_benchmarks.drawn import miniature_plot, miniature_runs
from vladva_benchmarks.drawn.miniature_runs import WORLDS, Run
from vladva_benchmarks.report import marked_text

REPORT, PLOT = "README.md", "miniature.png"
START, END = "<!-- table: written by vladva-benchmark miniature -->", "<!-- end of the table -->"
MISSING = "-"

Figures = dict[str, dict[str, float]]
Columns = dict[str, tuple[str, str]]  # head -> group and name of a figure

RETRIEVAL: Columns = {
    "t2i R@1": ("retrieval", "text_to_image_R@1"),
    "t2i R@5": ("retrieval", "text_to_image_R@5"),
    "i2t R@1": ("retrieval", "image_to_text_R@1"),
    "i2t R@5": ("retrieval", "image_to_text_R@5"),
    "named among others": ("zero_shot", "top_1"),
    "named alone": ("zero_shot_single", "top_1"),
    "size": ("size", "acc"),
}
WINOGROUND: Columns = {
    f"{fact}: {score}": (f"winoground_{fact}", score)
    for fact in ("colors", "places", "axis")
    for score in ("text", "image", "group")
}
GROUPS = {  # tables with a column for each kind that the runs have
    "Foils": "foils",
    "Foils of the kinds that close shortcuts": "evaluation_foils",
    "SugarCrepe++, image to text": "itt",
    "SugarCrepe++, image to text, further kinds": "evaluation_itt",
    "SugarCrepe++, text alone": "tot",
    "SugarCrepe++, text alone, further kinds": "evaluation_tot",
}
CAPTIONS = {"Captions where the recipe trains them": "continued", "Captions from the chat": "described"}


def write(results: Path, rows: Sequence[str]) -> None:
    """Write the tables into the report, between its marks, and the plot beside it.

    Raises:
        ValueError: no finished run, an incomplete run or one of another size, a report without the marks.
    """
    runs = miniature_runs.read(results, rows)
    if not runs:
        raise ValueError(f"{results} holds no finished run; run without --report-only")
    choices = miniature_runs.read_choices(results)
    marked_text.write(results / REPORT, START, END, tables(runs, choices), blank=f"# Miniature\n\n{START}\n{END}\n")
    miniature_plot.write(runs, results / PLOT)


def tables(runs: dict[str, list[Run]], choices: Sequence[Run] = ()) -> str:
    """Return the plot's place and the tables in Markdown: of each world, of the durations and of the choices.

    Figures are in percent, with half the range over the seeds.
    """
    parts = [f"![the rows side by side]({PLOT})"]
    for world in WORLDS:
        parts += [f"\n### `{world.name}`", *_world_tables(runs, world.name)]
    return "\n".join([*parts, "\n### Durations\n", _durations(runs), *_choices(choices)])


def _world_tables(runs: dict[str, list[Run]], world: str) -> list[str]:
    named = {"Retrieval and naming": RETRIEVAL, "Winoground": WINOGROUND}
    named |= {title: _columns_of(runs, world, group) for title, group in GROUPS.items()}
    named |= {title: _caption_columns(runs, world, way) for title, way in CAPTIONS.items()}
    return [f"\n{title}, `{world}`\n\n{_table(runs, world, columns)}" for title, columns in named.items() if columns]


def _columns_of(runs: dict[str, list[Run]], world: str, group: str) -> Columns:
    found = [run["figures"][world].get(group, {}) for of_row in runs.values() for run in of_row]
    return {name: (group, name) for name in dict.fromkeys(name for names in found for name in names)}


def _caption_columns(runs: dict[str, list[Run]], world: str, way: str) -> Columns:
    columns = _columns_of(runs, world, "captions")
    return {name.removeprefix(f"{way}_"): place for name, place in columns.items() if name.startswith(way)}


def _table(runs: dict[str, list[Run]], world: str, columns: Columns) -> str:
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, found in runs.items():
        figures = [run["figures"][world] for run in found]
        cells = [_cell([value_of(one, *place) for one in figures]) for place in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def value_of(figures: Figures, group: str, name: str) -> float | None:
    """Return a figure, None where a run doesn't have it."""
    return figures.get(group, {}).get(name)


def _cell(values: list[float | None]) -> str:
    """The mean in percent, with half the range over the seeds."""
    if None in values:
        return MISSING
    spread = 50 * (max(values) - min(values))
    return f"{100 * mean(values):.1f}" + (f" ± {spread:.1f}" if len(values) > 1 else "")


def _durations(runs: dict[str, list[Run]]) -> str:
    lines = ["| | seeds | pairs | training, minutes | measuring, minutes | threads |", "|---|---|---|---|---|---|"]
    for name, found in runs.items():
        minutes = [mean(run[key] for run in found) / 60 for key in ("training_seconds", "evaluation_seconds")]
        cells = [len(found), f"{found[0]['samples']:,}", *(f"{one:.1f}" for one in minutes)]
        lines.append(f"| {name} | {' | '.join(map(str, [*cells, found[0]['hardware']['threads']]))} |")
    return "\n".join(lines)


def _choices(choices: Sequence[Run]) -> list[str]:
    return ["\n### Choices\n", choices_table(choices)] if choices else []


def choices_table(choices: Sequence[Run]) -> str:
    """Return what data order and learning rate decide on the validation split, the best first by `merit`."""
    kinds = ("swap_obj", "swap_att", "replace_rel", "replace_rel_axis", "relation_of_four", "replace_size")
    lines = [f"| row | sources | rate | mean of all kinds | {' | '.join(kinds)} |", "|---" * (4 + len(kinds)) + "|"]
    for run in sorted(choices, key=merit, reverse=True):
        figures, settings = run["figures"]["validation varied"], run["settings"]
        asked = figures["foils"] | figures.get("evaluation_foils", {})
        cells = [run["row"], ", ".join(f"`{spec}`" for spec in settings["data.train"])]
        cells += [f"{settings['optim.learning_rate']:g}", _cell([merit(run)])]
        lines.append(f"| {' | '.join([*cells, *(_cell([asked.get(kind)]) for kind in kinds)])} |")
    return "\n".join(lines)


def merit(run: Run) -> float:
    """Return the mean accuracy over all kinds of foils on the validation split."""
    figures = run["figures"]["validation varied"]
    return mean((figures["foils"] | figures.get("evaluation_foils", {})).values())
