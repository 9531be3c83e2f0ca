"""Features of files and texts equal those of direct calls; a query of another model is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import vladva_clip
from tests.support.samples import CAPTIONS, picture
from vladva_clip.index import embed
from vladva_clip.index.embed import count_cut, embed_pictures, embed_texts, probes, require_same_model
from vladva_clip.index.store import Index, load, save


@pytest.fixture
def paths(tmp_path):
    """Eight pictures, the fourth of them broken."""
    found = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(found):
        picture(number).save(path)
    found[3].write_bytes(b"not a picture")
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_eight_pictures_one_of_them_broken(model, preprocess, paths, batch_size):
    failures, steps = [], []
    features, names = embed_pictures(model, preprocess, paths, batch_size, failures, steps.append)
    readable = [path for path in paths if path != paths[3]]
    assert names == [str(path) for path in readable]
    assert [one.name for one in failures] == [str(paths[3])]
    pixels = torch.stack([preprocess(picture(paths.index(path))) for path in readable])
    expected = model.encode_image(pixels, normalize=True).numpy()
    assert features.dtype == np.float32 and features.shape == (7, model.embed_dim)
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5)
    assert sum(steps) == 8 and min(steps) > 0


def test_nothing_readable(model, preprocess, paths):
    failures, steps = [], []
    features, names = embed_pictures(model, preprocess, [paths[3]], 4, failures, steps.append)
    assert features.shape == (0, model.embed_dim) and names == [] and len(failures) == 1 and steps == [1]
    features, names = embed_pictures(model, preprocess, [], 4, failures, steps.append)
    assert features.shape == (0, model.embed_dim) and steps == [1]


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_texts(model, tokenizer, batch_size):
    steps = []
    features = embed_texts(model, tokenizer, CAPTIONS, batch_size, steps.append)
    expected = model.encode_text(tokenizer(CAPTIONS), normalize=True).numpy()
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5)
    assert sum(steps) == len(CAPTIONS) == sum(min(batch_size, one) for one in steps)
    assert embed_texts(model, tokenizer, [], batch_size, steps.append).shape == (0, model.embed_dim)


def test_an_invalid_batch_size_is_refused(model, preprocess, tokenizer, paths):
    with pytest.raises(ValueError, match="batch_size"):
        embed_texts(model, tokenizer, CAPTIONS, 0, int)
    with pytest.raises(ValueError, match="batch_size"):
        embed_pictures(model, preprocess, paths, 0, [], int)


def test_cut_texts_are_counted(tokenizer):
    """As many words as the context has tokens: every word has one at least, and one place is the end of text's."""
    width = tokenizer.context_length
    ids = len(tokenizer.ids("dog")[0])
    fits = " ".join(["dog"] * ((width - 1) // (ids + 1)))
    long = " ".join(["dog"] * width)
    assert count_cut(tokenizer, [fits, long, "dog", long]) == 2 and count_cut(tokenizer, []) == 0
    assert (tokenizer([long])[0] != 0).all(), "cut: the row is full"


@pytest.fixture(scope="module")
def scenes():
    return (*vladva_clip.create_model("vladva-tiny"), vladva_clip.get_tokenizer("vladva-tiny"))


@pytest.fixture(scope="module")
def index(scenes, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "scenes.npz"
    features = embed_texts(scenes[0], scenes[2], CAPTIONS, 8, int)
    made_by = {"model": "vladva-tiny", "pretrained": "scenes", **probes(*scenes)}
    save(Index(features, ["text"] * len(CAPTIONS), CAPTIONS, made_by), path)
    return load(path)


class TestProbes:
    def test_they_are_direct_features(self, scenes, index):
        model, preprocess, tokenizer = scenes
        image = model.encode_image(preprocess(embed.probe_picture())[None], normalize=True)[0]
        text = model.encode_text(tokenizer([embed.SENTENCE]), normalize=True)[0]
        assert index.made_by["image_probe"] == image.tolist() and index.made_by["text_probe"] == text.tolist()

    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_the_same_model_passes_in_any_precision(self, scenes, index, precision):
        model, preprocess = vladva_clip.create_model("vladva-tiny", precision=precision)
        require_same_model(index, model, preprocess, scenes[2])

    def test_another_tag_is_refused_and_both_are_named(self, scenes, index):
        model, preprocess = vladva_clip.create_model("vladva-tiny", "base")
        with pytest.raises(ValueError, match="vladva-tiny:scenes") as caught:
            require_same_model(index, model, preprocess, scenes[2], "vladva-tiny:base")
        assert "vladva-tiny:base" in str(caught.value)

    def test_another_width_is_refused(self, scenes, index):
        model, preprocess = vladva_clip.create_model("vladva-tiny", truncate_dim=64)
        with pytest.raises(ValueError, match="256 and 64"):
            require_same_model(index, model, preprocess, scenes[2])

    @pytest.mark.parametrize("side", ["image_probe", "text_probe"])
    def test_each_side_counts(self, scenes, index, side):
        """A model whose other side is the same, such as one with another prompt for texts."""
        turned = [-number for number in index.made_by[side]]
        other = replace(index, made_by=index.made_by | {side: turned})
        with pytest.raises(ValueError, match=f"{side}: cosine -1"):
            require_same_model(other, *scenes)

    def test_other_preprocessing_is_refused(self, scenes, index):
        model, preprocess, tokenizer = scenes
        with pytest.raises(ValueError, match="image_probe"):
            require_same_model(index, model, lambda image: -preprocess(image), tokenizer)

    def test_the_picture_is_the_same_everywhere(self):
        image = embed.probe_picture()
        assert image.size == (256, 256) and image.getpixel((80, 120)) == (210, 30, 40)
        assert image.getpixel((184, 136)) == (30, 60, 200) and image.getpixel((0, 255)) == (200, 189, 205)
