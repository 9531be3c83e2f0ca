"""Each profile's ids and features equal its authors', by its short name and by its Hub id, with every tag."""

import pytest
import torch

import vladva_clip
from tests.support.published import repositories, samples
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
    captions = samples.strange_captions(3000)
    expected = way.ids_of_texts(captions, is_query)
    rows = ours.model.text.rows([torch.tensor(ids, dtype=torch.long) for ids in ours.tokenizer.ids(captions)])
    ends = (rows.layout.summary_index + 1).tolist()
    found = [row[:end] for row, end in zip(rows.layout.input_ids.tolist(), ends, strict=True)]
    wrong = [caption for caption, one, other in zip(captions, found, expected, strict=True) if one != other]
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_by_the_hub_id_and_at_other_sizes(shelf, name):
    """The repository's id is the default tag. Of every size that the authors' processor keeps, a model is exact."""
    way, data, captions = shelf.authors(name), profile(name), ["a dog.", "\ntwo  cats "]
    for side in (476, 336) if name == "lamra-ret" else (476,):
        ours = Ours(f"hf-hub:{data['repository']}", image_size=side, cache_dir=shelf.cache_dir)
        picture = samples.picture(side, side)
        assert [ours.image_ids(picture)] == way.ids(way.image_inputs([picture]))
        close(ours.images([picture]), way.features(way.image_inputs([picture])))
    close(ours.text(captions), way.features(way.text_inputs(captions)))
    assert ours.model.config.base.id == data["repository"]
    assert ours.model.config.base.revision == repositories.REPOSITORIES[name].revision


def test_the_hub_id_with_its_revision_is_the_short_name(shelf):
    snapshot, pictures = shelf.directory("unite-2b"), [samples.picture(448)]
    by_name, by_id = (
        Ours(name, cache_dir=shelf.cache_dir)
        for name in ("unite-2b", f"hf-hub:{profile('unite-2b')['repository']}@{snapshot.name}")
    )
    assert by_name.model.config == by_id.model.config
    assert torch.equal(by_name.images(pictures), by_id.images(pictures))


def test_a_hub_id_takes_a_tag(shelf):
    shelf.directory("lamra-ret")
    by_name, by_id = (
        Ours(name, "retrieval", cache_dir=shelf.cache_dir) for name in ("lamra-ret", "hf-hub:code-kunkun/LamRA-Ret")
    )
    assert torch.equal(by_id.text(["a dog."]), by_name.text(["a dog."]))


@pytest.mark.parametrize("tag", ["retrieval", "default"])
def test_zero_shot_classifiers(shelf, tag):
    """Classes whose rows share their beginning, which is run once, against whole rows one by one."""
    way, ours = shelf.authors("rzenembed"), Ours("rzenembed", tag, cache_dir=shelf.cache_dir)
    classes, templates = ["tabby cat", "Siamese  cat", "dog."], ["a photo of a {}.", "{}\n", "art of {}"]
    found = vladva_clip.build_zero_shot_classifier(
        ours.model, ours.tokenizer, classes, [lambda name, form=form: form.format(name) for form in templates]
    )
    for column, name in zip(found.T, classes, strict=True):
        captions = [form.format(name) for form in templates]
        mean = way.features(way.text_inputs(captions, tag == "retrieval")).mean(dim=0)
        close(column, mean / mean.norm())
