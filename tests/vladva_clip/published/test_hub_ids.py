"""Published embedders by their Hub ids, at other sizes, and as zero-shot classifiers: equal to their authors' way."""

import pytest
import torch

import vladva_clip
from tests.support.published import repositories, samples
from tests.support.published.ours import Ours, profile
from tests.support.published.shelf import NAMES

pytestmark = pytest.mark.wide


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


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
