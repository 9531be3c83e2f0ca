"""Each profile's ids and features equal its authors', by its short name and by its Hub id, with every tag."""

import pytest
import torch

from tests.support.published import later_authors, samples
from tests.support.published.later_repositories import GVE, NAMES, QWEN3, REPOSITORIES
from tests.support.published.ours import Ours, profile

CASES = [(name, tag) for name in NAMES for tag in profile(name)["tags"]]
SIZES = {**dict.fromkeys(GVE, (56, 252)), **dict.fromkeys(QWEN3, (64, 352))}  # besides the default
CAPTIONS = {**samples.CAPTIONS, "plain_tokens": "<think> a <tool_call>", "full_stop": "狗。"}

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def case(request):
    return request.param


@pytest.fixture(scope="module")
def way(later, case):
    return later_authors.of(case[0], later.directory(case[0]))


@pytest.fixture(scope="module")
def ours(way, later, case):
    return Ours(*case, cache_dir=later.cache_dir)


@pytest.fixture(scope="module")
def is_query(case):
    return case[1] == "retrieval"


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("caption", CAPTIONS.values(), ids=CAPTIONS)
def test_ids_of_captions(ours, way, is_query, caption):
    assert [ours.text_ids(caption)] == way.ids(way.text_inputs([caption], is_query))


def test_features_of_captions_one_by_one(ours, way, is_query):
    for caption in CAPTIONS.values():
        close(ours.text([caption]), way.features(way.text_inputs([caption], is_query)))


def test_features_of_captions_in_a_batch_of_mixed_lengths(ours, way, is_query):
    captions = list(CAPTIONS.values()) * 2
    close(ours.text(captions), way.features(way.text_inputs(captions, is_query)))


def test_pictures(ours, way, case):
    side = ours.model.visual.image_size[0]
    assert side == (448 if case[0] in GVE else 512)
    pictures = [samples.picture(side, seed) for seed in range(3)]
    assert [ours.image_ids(pictures[0])] == way.ids(way.image_inputs(pictures[:1]))
    close(ours.images(pictures), way.features(way.image_inputs(pictures)))
    close(ours.images(pictures[:1]), way.features(way.image_inputs(pictures[:1])))


def test_a_picture_leaves_nothing_behind_for_a_caption(ours, way, is_query):
    ours.images([samples.picture(ours.model.visual.image_size[0])])
    close(ours.text(["a dog."]), way.features(way.text_inputs(["a dog."], is_query)))


def test_ids_of_strange_captions(ours, way, is_query):
    """White space and line breaks of all kinds, signs that merge with their neighbors, letters that compose."""
    captions = samples.strange_captions(3000)
    expected = way.ids_of_texts(captions, is_query)
    rows = ours.model.text.rows([torch.tensor(ids, dtype=torch.long) for ids in ours.tokenizer.ids(captions)])
    ends = (rows.layout.summary_index + 1).tolist()
    found = [row[:end] for row, end in zip(rows.layout.input_ids.tolist(), ends, strict=True)]
    wrong = [caption for caption, one, other in zip(captions, found, expected, strict=True) if one != other]
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_by_the_hub_id_and_at_other_sizes(later, name):
    """The repository's id is the default tag. Of every size that the authors keep, a model is exact."""
    way, repo, captions = later_authors.of(name, later.directory(name)), REPOSITORIES[name].repo, ["a dog.", "\ntwo  "]
    for side in SIZES[name]:
        ours = Ours(f"hf-hub:{repo}", image_size=side, cache_dir=later.cache_dir)
        pictures = [samples.picture(side, seed) for seed in range(2)]
        assert [ours.image_ids(pictures[0])] == way.ids(way.image_inputs(pictures[:1]))
        close(ours.images(pictures), way.features(way.image_inputs(pictures)))
    close(ours.text(captions), way.features(way.text_inputs(captions)))
    assert ours.model.config.base.id == repo and ours.model.config.base.revision == REPOSITORIES[name].revision


def test_a_hub_id_takes_a_tag(later):
    name, captions = QWEN3[0], ["a dog."]
    later.directory(name)
    by_name, by_id = (
        Ours(model, "retrieval", cache_dir=later.cache_dir) for model in (name, f"hf-hub:{REPOSITORIES[name].repo}")
    )
    assert torch.equal(by_id.text(captions), by_name.text(captions))


def test_cut_features(later):
    """Matryoshka: the first dimensions, normalized again."""
    name, captions = QWEN3[1], list(samples.CAPTIONS.values())
    whole = later_authors.of(name, later.directory(name))
    ours = Ours(name, truncate_dim=8, cache_dir=later.cache_dir)
    expected = whole.features(whole.text_inputs(captions))[:, :8]
    close(ours.text(captions), expected / expected.norm(dim=1, keepdim=True))
