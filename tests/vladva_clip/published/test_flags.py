"""What a profile states decides the features: with any of it changed, they are not the authors' any more."""

import pytest

from tests.support.published import samples
from tests.support.published.ours import Ours, profile, with_changes

END = "<|endoftext|>"
FAR = 1e-3  # a hundred times what counts as equal

pytestmark = pytest.mark.wide


@pytest.fixture
def changed(shelf, tmp_path):
    """Load a repository with a profile some of whose values are others: part -> {key: value}."""

    return lambda name, **parts: with_changes(name, shelf.directory(name), tmp_path, **parts)


def image_distance(ours: Ours, way) -> float:
    pictures = [samples.picture(448, 1)]
    return float((ours.images(pictures) - way.features(way.image_inputs(pictures))).abs().max())


def text_distance(ours: Ours, way, caption: str = "a dog.") -> float:
    return float((ours.text([caption]) - way.features(way.text_inputs([caption]))).abs().max())


@pytest.mark.parametrize("name", ["ops-mm-7b", "unite-2b"])
def test_unchanged_by_a_file_it_is_exact(changed, shelf, name):
    ours, way = changed(name), shelf.authors(name)
    assert image_distance(ours, way) < 1e-5 and text_distance(ours, way) < 1e-5


@pytest.mark.parametrize("name", ["ops-mm-2b", "gme-qwen2-vl-2b", "unite-2b"])
def test_positions(changed, shelf, name):
    other = {"family": "plain", "plain": "family"}[profile(name)["config"]["encoding"]["positions"]]
    ours, way = changed(name, encoding={"positions": other}), shelf.authors(name)
    assert image_distance(ours, way) > FAR
    assert text_distance(ours, way) < 1e-5  # both count 0, 1, 2, ... without an image


@pytest.mark.parametrize("name", ["ops-mm-2b", "rzenembed"])
def test_end_of_text(changed, shelf, name):
    prompt = profile(name)["config"]["prompt"]
    assert prompt["image_template"].endswith(END) and prompt["text_template"].endswith(END)
    bare = {key: prompt[key].removesuffix(END) for key in ("image_template", "text_template")}
    ours, way = changed(name, prompt=bare), shelf.authors(name)
    assert image_distance(ours, way) > FAR and text_distance(ours, way) > FAR


def test_the_text_beside_rzenembeds_pictures(changed, shelf):
    template = profile("rzenembed")["config"]["prompt"]["image_template"]
    bare = template.replace("Represent the given image.", "")
    assert bare != template
    ours = changed("rzenembed", prompt={"image_template": bare})
    assert image_distance(ours, shelf.authors("rzenembed")) > FAR


def test_the_space_behind_lamras_question(changed, shelf):
    prompt = profile("lamra-ret")["config"]["prompt"]
    shorter = {key: prompt[key].replace("word: <", "word:<") for key in ("image_template", "text_template")}
    ours, way = changed("lamra-ret", prompt=shorter), shelf.authors("lamra-ret")
    assert 220 in way.ids(way.text_inputs(["a dog."]))[0] and 220 not in ours.text_ids("a dog.")
    assert image_distance(ours, way) > FAR and text_distance(ours, way) > FAR


def test_cleaning(changed, shelf):
    ours, way = changed("gme-qwen2-vl-2b", prompt={"clean": "open_clip"}), shelf.authors("gme-qwen2-vl-2b")
    for caption in ("quotes", "two_spaces", "trailing_space", "inner_newline"):
        assert text_distance(ours, way, samples.CAPTIONS[caption]) > FAR, caption
    assert text_distance(ours, way, "a dog.") < 1e-5


@pytest.mark.parametrize("name", ["unite-2b", "lamra-ret"])
def test_captions_joined_with_what_stands_around_them(changed, shelf, name):
    ours, way = changed(name, prompt={"caption_ids": "alone"}), shelf.authors(name)
    assert text_distance(ours, way, "a dog.") > FAR  # ".\n" is one token
    assert text_distance(ours, way, "a dog") < 1e-5
