"""What becomes of images that a captioner refuses, and of captions that training would not read back."""

import pytest

from tests.support.samples import picture
from tests.support.training.pairs import ListSource
from vladva_clip.factory import get_tokenizer
from vladva_training.captioning import captioners
from vladva_training.captioning.fill import fill_shards
from vladva_training.captioning.settings import CaptionSettings
from vladva_training.captioning.shards import read_stats
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.specs import open_source


class Squeamish:
    """A captioner that refuses some images, as some image processors do."""

    name = "squeamish"

    def __init__(self, *refused):
        self.refused = [picture(number).tobytes() for number in refused]

    def caption(self, images):
        if any(image.tobytes() in self.refused for image in images):
            raise ValueError("too narrow")
        return ["a dog"] * len(images)


class Parrot:
    """A captioner that says what it was given."""

    name = "parrot"

    def __init__(self, captions):
        self.captions = captions

    def caption(self, images):
        return self.captions


@pytest.fixture
def fill(tmp_path):
    """Fills one shard of five images with short captions; returns its counts and problems."""

    def run(captioner, name="a"):
        source = ListSource(count=5, texts=())
        settings = CaptionSettings("list", 5, fill="short", batch_size=5)
        splitter = CaptionSplitter(get_tokenizer("vladva-tiny"))
        fill_shards(source, {0: name}, tmp_path, settings, splitter, {"short": captioner})
        return read_stats(tmp_path, name)

    return run


def test_an_image_that_a_model_refuses_costs_only_itself(fill, tmp_path):
    stats = fill(Squeamish(1))
    assert [(problem["index"], problem["reason"]) for problem in stats["problems"]] == [(1, "image refused")]
    assert stats["filled"] == {"short": 4} and stats["samples"] == 4
    with pytest.raises(ValueError, match="refused every image"):
        fill(Squeamish(*range(5)), "b")
    assert not list(tmp_path.glob("b*"))


def test_a_caption_that_training_would_refuse_is_not_kept(fill, tmp_path):
    stats = fill(Parrot(["nan", "a dog", "2023", "['a', 'b']", '["a", "b"]']))
    assert [problem["index"] for problem in stats["problems"]] == [0, 2, 3, 4]
    assert {problem["reason"] for problem in stats["problems"]} == {"unusable caption written"}
    source = open_source(f"wds:{tmp_path}")
    assert len(source) == 1 and source.captions(0) == ("a dog",)


@pytest.mark.parametrize("prompt", ["Describe {}.", "{caption}", "a {0} of"])
def test_a_prompt_with_a_hole_that_nothing_fills_is_refused(prompt):
    with pytest.raises(ValueError, match="--long-prompt is .*placeholder"):
        CaptionSettings("list", 5, long_prompt=prompt)
    assert CaptionSettings("list", 5, long_prompt=prompt, fill="short").kinds == ("short",)  # which isn't asked
    assert CaptionSettings("list", 5, long_prompt='Answer as {"caption": "..."}')


def test_a_prompt_with_the_image_token_is_refused():
    from vladva_training.tiny.evaluate import SHIPPED_BASE

    with pytest.raises(ValueError, match="expected one without <image>"):
        captioners.open_chat(str(SHIPPED_BASE), "<image> Describe.", "cpu", "fp32")
