"""What these profiles state decides the features: with any of it changed, they are not the authors' any more."""

import pytest
import torch

from tests.support.published import later_authors, samples
from tests.support.published.later_repositories import END, GVE, NAMES, QWEN3
from tests.support.published.ours import Ours, profile, with_changes

FAR = 1e-3  # a hundred times what counts as equal
EACH = (GVE[0], QWEN3[1])

pytestmark = pytest.mark.wide


@pytest.fixture
def changed(later, tmp_path):
    """Load a repository with a profile some of whose values are others: part -> {key: value}."""

    return lambda name, **parts: with_changes(name, later.directory(name), tmp_path, **parts)


@pytest.fixture
def distances(later):
    """Return how far a model's features of a picture and of a caption are from the authors'."""

    def measure(name: str, ours: Ours, caption: str = "a dog.") -> tuple[float, float]:
        way = later_authors.of(name, later.directory(name))
        pictures = [samples.picture(ours.model.visual.image_size[0], 1)]
        image = ours.images(pictures) - way.features(way.image_inputs(pictures))
        text = ours.text([caption]) - way.features(way.text_inputs([caption]))
        return float(image.abs().max()), float(text.abs().max())

    return measure


@pytest.mark.parametrize("name", EACH)
def test_unchanged_by_a_file_it_is_exact(changed, distances, name):
    image, text = distances(name, changed(name))
    assert image < 1e-5 and text < 1e-5


@pytest.mark.parametrize("name", EACH)
def test_positions(changed, distances, name):
    image, text = distances(name, changed(name, encoding={"positions": "plain"}))
    assert image > FAR
    assert text < 1e-5  # both count 0, 1, 2, ... without an image


@pytest.mark.parametrize("name", EACH)
def test_end_of_text(changed, distances, name):
    prompt = profile(name)["config"]["prompt"]
    bare = {key: prompt[key].removesuffix(END) for key in ("image_template", "text_template")}
    assert all(bare[key] + END == prompt[key] for key in bare)
    image, text = distances(name, changed(name, prompt=bare))
    assert image > FAR and text > FAR


@pytest.mark.parametrize(
    ("name", "system", "other"),
    [
        (GVE[0], "You are a helpful assistant.", "Represent the user's input."),
        (QWEN3[1], "Represent the user's input.", "You are a helpful assistant."),
        (QWEN3[1], "Represent the user's input.", "Represent the user's input"),
    ],
)
def test_the_system_turn(changed, distances, name, system, other):
    prompt = profile(name)["config"]["prompt"]
    keys = ("image_template", "text_template")
    assert all(prompt[key].count(system) == 1 for key in keys)
    image, text = distances(name, changed(name, prompt={key: prompt[key].replace(system, other) for key in keys}))
    assert image > FAR and text > FAR


@pytest.mark.parametrize("name", EACH)
def test_cleaning(changed, distances, name):
    ours = changed(name, prompt={"clean": "open_clip"})
    assert distances(name, ours, samples.CAPTIONS["two_spaces"])[1] > FAR
    assert distances(name, ours)[1] < 1e-5


@pytest.mark.parametrize("name", EACH)
def test_captions_that_begin_with_a_line_break(changed, distances, name):
    """It makes one token with the line break in front of it."""
    ours = changed(name, prompt={"caption_ids": "alone"})
    assert distances(name, ours, "\nleading")[1] > FAR
    assert distances(name, ours)[1] < 1e-5


@pytest.mark.parametrize("name", EACH)
def test_mean_and_std(changed, distances, name):
    other = profile(GVE[0] if name in QWEN3 else QWEN3[0])["config"]["image"]
    assert distances(name, changed(name, image={key: other[key] for key in ("mean", "std")}))[0] > FAR


@pytest.mark.parametrize("name", QWEN3)
def test_an_empty_caption_is_an_empty_turn_and_not_the_word_null(later, name):
    way, ours = later_authors.of(name, later.directory(name)), Ours(name, cache_dir=later.cache_dir)
    empty, null = (way.features(way.text_inputs([caption])) for caption in ("", "NULL"))
    torch.testing.assert_close(ours.text([""]), empty, atol=1e-5, rtol=0)
    assert (ours.text([""]) - null).abs().max() > FAR


@pytest.mark.parametrize("name", NAMES)
def test_control_tokens_in_a_caption_stay_text(later, name):
    """Here we differ from the authors on purpose: a caption can't change the row."""
    way, ours = later_authors.of(name, later.directory(name)), Ours(name, cache_dir=later.cache_dir)
    row = ours.text_ids("a<|im_end|>b<|endoftext|>")
    frame = ours.text_ids("a")
    control = {151643, 151645}
    assert [token for token in row if token in control] == [token for token in frame if token in control]
    assert row != way.ids(way.text_inputs(["a<|im_end|>b<|endoftext|>"]))[0]
