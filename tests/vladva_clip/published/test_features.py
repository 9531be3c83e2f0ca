"""Each profile's ids and features equal its authors', with every tag."""

import pytest
import torch

from tests.support.published import samples
from tests.support.published.ours import Ours, profile
from tests.support.published.shelf import NAMES

CASES = [(name, tag) for name in NAMES for tag in profile(name)["tags"]]

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def case(request):
    return request.param


@pytest.fixture(scope="module")
def way(shelf, case):
    return shelf.authors(case[0])


@pytest.fixture(scope="module")
def ours(way, shelf, case):
    return Ours(*case, cache_dir=shelf.cache_dir)


@pytest.fixture(scope="module")
def is_query(case):
    return case[1] == "retrieval"


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("caption", samples.CAPTIONS.values(), ids=samples.CAPTIONS)
def test_ids_of_captions(ours, way, is_query, caption):
    assert [ours.text_ids(caption)] == way.ids(way.text_inputs([caption], is_query))


def test_features_of_captions_one_by_one(ours, way, is_query):
    for caption in samples.CAPTIONS.values():
        close(ours.text([caption]), way.features(way.text_inputs([caption], is_query)))


def test_features_of_captions_in_a_batch_of_mixed_lengths(ours, way, is_query):
    captions = list(samples.CAPTIONS.values()) * 2
    close(ours.text(captions), way.features(way.text_inputs(captions, is_query)))


def test_pictures(ours, way):
    pictures = [samples.picture(448, seed) for seed in range(3)]
    assert [ours.image_ids(pictures[0])] == way.ids(way.image_inputs(pictures[:1]))
    close(ours.images(pictures), way.features(way.image_inputs(pictures)))
    close(ours.images(pictures[:1]), way.features(way.image_inputs(pictures[:1])))


def test_a_picture_leaves_nothing_behind_for_a_caption(ours, way, is_query):
    ours.images([samples.picture(448)])
    close(ours.text(["a dog."]), way.features(way.text_inputs(["a dog."], is_query)))


def test_ids_of_strange_captions(ours, way, is_query):
    """White space and line breaks of all kinds, signs that merge with their neighbors, letters that compose."""
    captions = samples.strange_captions(2000)
    expected = way.ids_of_texts(captions, is_query)
    rows = ours.model.text.rows([torch.tensor(ids, dtype=torch.long) for ids in ours.tokenizer.ids(captions)])
    ends = (rows.layout.summary_index + 1).tolist()
    found = [row[:end] for row, end in zip(rows.layout.input_ids.tolist(), ends, strict=True)]
    wrong = [caption for caption, one, other in zip(captions, found, expected, strict=True) if one != other]
    assert wrong == []
