"""Plots of the tables: where marks stand, what tells them apart, and what the legend says of them."""

import numpy
import pytest

from tests.support.suites.result_files import put
from vladva_benchmarks.report import plots, tables
from vladva_benchmarks.report.results import find, read, rows

TABLES = {table.id: table for table in tables.published()[1]}
TABLE = TABLES["winoground"]


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def panel(results, table=TABLE):
    """The axes of a plot of a folder's Winoground, or of another table."""
    (axes,) = plots.plot(table, rows(map(read, find([results])))).axes
    return axes


def legend(results) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in panel(results).get_legend().get_texts()]


def test_equal_figures_of_many_models_stand_beside_each_other_in_their_column(results):
    count = len(plots.COLORS) + 2
    for number in range(count):
        put(results, "winoground", {"text": 0.5}, model=f"model-{number:02}")
    marks = panel(results).collections
    places = [mark.get_offsets()[0].tolist() for mark in marks]
    assert {height for _, height in places} == {50.0} and len({place for place, _ in places}) == count
    assert all(1 + plots.PLACE < place < 1.5 for place, _ in places)  # not over the published figures
    looks = {(tuple(mark.get_facecolor()[0]), mark.get_paths()[0].vertices.tobytes()) for mark in marks}
    assert len(looks) == count


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mark_at_the_end_of_the_axis_is_whole(results, value):
    put(results, "winoground", {"image": value})
    (mark,) = panel(results).collections
    assert mark.get_offsets()[0][1] == 100 * value and not mark.get_clip_on()


def test_a_figure_of_part_of_a_data_set_is_hollow(results):
    put(results, "winoground", {"image": 0.5}, model="whole", base=None)
    put(results, "winoground", {"image": 0.5}, model="part", base=None, subset=True)
    part, whole = panel(results).collections
    assert part.get_facecolor()[0].tolist() == [1, 1, 1, 1] != whole.get_facecolor()[0].tolist()
    assert legend(results)[2:] == ["part training_free, training-free †", "whole training_free, training-free"]


def test_the_papers_own_row_is_ringed(results):
    put(results, "winoground", {"image": 0.5})
    name = "published, LLaVA-1.5-7B"
    (ring,) = [line for line in panel(results).lines if line.get_label() == name]
    assert list(ring.get_ydata()) == TABLE.rows["LLaVA-1.5-7B"] and name in legend(results)


def test_a_model_that_the_paper_has_not_gets_no_ring(results):
    put(results, "winoground", {"image": 0.5}, base=None)
    assert legend(results)[:2] == ["published, others", "published, VladVA"] and len(legend(results)) == 3


def test_figures_that_are_missing_leave_no_mark(results):
    put(results, "winoground", {"image": 0.5, "group": 0.3})
    (mark,) = panel(results).collections
    assert numpy.round(mark.get_offsets()[:, 1]).tolist() == [50, 30]


@pytest.mark.parametrize("name", ["ablation", "data"])
def test_stages_stand_in_their_order_and_are_named(results, name):
    """Left of ours, from light to dark, with the paper's own row of the model ringed."""
    put(results)
    table = TABLES[name]
    axes = panel(results, table)
    stages = [line for line in axes.lines if str(line.get_label()).startswith("published, ")]
    assert [line.get_label() for line in stages] == [f"published, {row}" for row in table.rows]
    places, shades = [line.get_xdata()[3] for line in stages], [sum(line.get_color()) for line in stages]
    assert places == sorted(set(places)) and shades == sorted(set(shades), reverse=True)
    (ours,) = axes.collections
    assert places[0] > 2.5 and places[-1] < ours.get_offsets()[0][0]
    (ring,) = [line for line in axes.lines if line.get_markeredgecolor() == "black"]
    assert list(ring.get_ydata()) == next(iter(table.rows.values())) and ring.get_xdata()[3] == places[0]


def test_the_axis_of_stages_starts_below_every_figure(results):
    put(results)
    assert panel(results, TABLES["data"]).get_ylim()[0] == 50
    put(results, metrics={"image_retrieval_recall@1": 0.123}, model="mine", base=None)
    assert panel(results, TABLES["data"]).get_ylim()[0] == 10
    assert panel(results, TABLES["retrieval"]).get_ylim()[0] == 0


def test_figures_that_the_paper_lacks_leave_no_dot(results):
    put(results, "sugarcrepe_pp/swap_obj", {"itt": 0.5})
    table = TABLES["sugarcrepe_pp"]
    (line,) = [line for line in panel(results, table).lines if line.get_ydata(orig=False)[0] == 13.2]
    expected = [value is None for value in table.rows["BLIP-SGVL"]]
    assert numpy.isnan(numpy.ma.filled(line.get_ydata(orig=False), numpy.nan)).tolist() == expected
