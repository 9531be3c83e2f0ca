"""The ranking equals that of float64, ties are in the order of the index, and memory is flat."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from tests.support.index_rows import KINDS, NAMES, unit_rows
from vladva_clip.commands import search
from vladva_clip.index.search import Hit, ranked


@pytest.fixture(scope="module")
def many():
    """Rows so alike that float32 would confuse their order."""
    rows = unit_rows(1, 64, 1).astype(np.float64) + 1e-5 * unit_rows(3000, 64, 2)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def of(index, features):
    made_by = index.made_by | {name: features[0].tolist() for name in ("image_probe", "text_probe")}
    names = [f"{row}.png" for row in range(len(features))]
    return replace(index, features=features, kinds=["image"] * len(features), names=names, made_by=made_by)


@pytest.mark.parametrize("kind", [None, "image", "any"])
def test_the_command_finds_nothing_in_an_index_without_rows(index, kind):
    empty = replace(index, features=unit_rows(0, 6), kinds=[], names=[])
    with pytest.raises(ValueError, match="no rows"):
        search._kind(kind, empty)


def test_equals_float64(index, many):
    query = unit_rows(1, 64, 3)[0]
    reference = many.astype(np.float64) @ query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    order = np.argsort(-reference, kind="stable")[:50]
    hits = ranked(of(index, many), query, 50)
    assert [hit.name for hit in hits] == [f"{row}.png" for row in order]
    assert [hit.rank for hit in hits] == list(range(1, 51))
    np.testing.assert_allclose([hit.score for hit in hits], reference[order], rtol=0, atol=1e-14)


@pytest.mark.parametrize("width", [5, 64, 256])
def test_equal_rows_are_in_the_order_of_the_index(index, width):
    """Also where a matrix product would round them differently by their place."""
    rows = unit_rows(41, width)
    rows[7:] = rows[7]
    hits = ranked(of(index, rows), rows[7], 34)
    assert [hit.name for hit in hits] == [f"{row}.png" for row in range(7, 41)]
    assert len({hit.score for hit in hits}) == 1


def test_kinds(index):
    query = index.features[6]
    assert [hit.name for hit in ranked(index, query, 1, None)] == [NAMES[6]]
    assert {hit.kind for hit in ranked(index, query, 99)} == {"image"}
    assert sorted(hit.name for hit in ranked(index, query, 99, "text")) == sorted(NAMES[5:])
    assert len(ranked(index, query, 99, None)) == len(KINDS)
    assert not ranked(replace(index, kinds=["text"] * len(KINDS)), query, 3)


def test_a_score_is_the_cosine_whatever_the_query_s_length(index):
    hit = ranked(index, 7 * index.features[0], 1)[0]
    assert isinstance(hit, Hit) and hit.score == pytest.approx(1, abs=1e-6) and hit.name == NAMES[0]


@pytest.mark.parametrize(
    "query", [np.ones(5), np.ones((1, 6)), np.zeros(6), np.full(6, np.nan), np.full(6, np.inf)], ids=str
)
def test_other_queries_are_refused(index, query):
    with pytest.raises(ValueError, match="query"):
        ranked(index, query, 3)


def test_other_arguments_are_refused(index):
    with pytest.raises(ValueError, match="sound"):
        ranked(index, index.features[0], 3, "sound")
    with pytest.raises(ValueError, match="top"):
        ranked(index, index.features[0], 0)


def test_memory_is_flat(index):
    large = of(index, unit_rows(200_000, 64))
    tracemalloc.start()
    ranked(large, large.features[0], 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < large.features.nbytes * 1.5, "the features in float64 would take twice their size"
