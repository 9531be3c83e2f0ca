"""Ids and features equal the authors', by the short name and by the Hub id, with every tag."""

import copy

import pytest
import torch

from tests.support.published import samples
from tests.support.published.ours import Ours, profile, with_changes

NAME, REPO = "embeddinggemma-2", "google/embeddinggemma-2"
TAGS = list(profile(NAME)["tags"])
CAPTIONS = {**samples.CAPTIONS, "colon": ": a dog", "full_stop": "狗。"}
FAR = 1e-3  # a hundred times what counts as equal

once = pytest.mark.parametrize(
    "tag", ["retrieval", *(pytest.param(tag, marks=pytest.mark.wide) for tag in TAGS if tag != "retrieval")]
)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def ours(gemma):
    """The model of the default tag, on pictures of 384 pixels."""
    return Ours(NAME, image_size=384, cache_dir=gemma.cache_dir)


@once
def test_captions(gemma, way, tag):
    """The ids of each, and features one by one and in a batch of mixed lengths."""
    ours, captions = Ours(NAME, tag, image_size=384, cache_dir=gemma.cache_dir), list(CAPTIONS.values())
    for caption in captions:
        inputs = way.text_inputs([caption], tag)
        assert [ours.text_ids(caption)] == way.ids(inputs)
        close(ours.text([caption]), way.features(inputs))
    features = ours.text(captions)
    close(features, way.features(way.text_inputs(captions, tag)))
    assert (features @ features.T - torch.eye(len(features))).max() < 0.9999  # no two captions look alike


def test_ids_are_those_counted_by_hand(ours, way):
    names = way.processor.tokenizer.convert_ids_to_tokens
    expected = ["<bos>", "title:", "▁none", "▁|", "▁text:", "▁", "\n", "hi", "▁▁", "a", "<eos>"]
    assert names(ours.text_ids("\nhi  a")) == expected
    row = names(ours.image_ids(samples.picture(384)))
    assert row == ["<bos>", "<|image>", *["<|image|>"] * 64, "<image|>", "<eos>"]


@pytest.mark.wide
def test_tags_differ(gemma, ours):
    query = Ours(NAME, "retrieval", image_size=384, cache_dir=gemma.cache_dir)
    assert (query.text(["a dog"]) - ours.text(["a dog"])).abs().max() > FAR


@pytest.mark.parametrize(
    ("side", "budget"), [(384, 70), *(pytest.param(*one, marks=pytest.mark.wide) for one in ((528, 140), (1104, 560)))]
)
def test_pictures_of_the_sizes_that_are_kept(gemma, way, side, budget):
    """By the Hub id; the authors' processor pads the patches to its budget, ours has none to pad."""
    ours = Ours(f"hf-hub:{REPO}", image_size=side, cache_dir=gemma.cache_dir)
    theirs, pictures = _of_budget(way, budget), [samples.picture(side, seed) for seed in range(2)]
    inputs = theirs.image_inputs(pictures)
    assert inputs["pixel_values"].shape[1] > (side // 16) ** 2
    assert [ours.image_ids(pictures[0])] == way.ids(inputs)[:1]
    close(ours.images(pictures), way.features(inputs))
    close(ours.images(pictures[:1]), way.features(theirs.image_inputs(pictures[:1])))
    assert ours.model.config.base.id == REPO and ours.model.config.base.revision == profile(NAME)["revision"]


@pytest.mark.wide
def test_pictures_of_the_default_size(gemma, way):
    ours, pictures = Ours(NAME, cache_dir=gemma.cache_dir), [samples.picture(768, seed) for seed in range(3)]
    assert ours.model.visual.image_size == (768, 768) and ours.model.visual.num_visual_tokens == 256
    features = ours.images(pictures)
    close(features, way.features(way.image_inputs(pictures)))
    assert (features[0] - features[1]).abs().max() > FAR


@pytest.mark.wide
def test_a_picture_of_another_size_is_resized_as_the_authors_do(gemma, way):
    """Up to what PIL and torchvision differ in when they enlarge a picture (here of 192 pixels)."""
    ours, pictures = Ours(NAME, image_size=384, cache_dir=gemma.cache_dir), [samples.picture(192)]
    found, expected = ours.images(pictures), way.features(_of_budget(way, 70).image_inputs(pictures))
    assert torch.cosine_similarity(found, expected).item() > 0.999


def test_cut_features(gemma, way):
    """Matryoshka: the first dimensions, normalized again."""
    ours = Ours(NAME, truncate_dim=24, image_size=384, cache_dir=gemma.cache_dir)
    whole = way.features(way.text_inputs(list(CAPTIONS.values())))[:, :24]
    close(ours.text(CAPTIONS.values()), whole / whole.norm(dim=1, keepdim=True))
    assert ours.images([samples.picture(384)]).shape == (1, 24)


def test_ids_of_strange_captions(ours, way):
    """White space and line breaks of all kinds, signs that merge with their neighbors, letters that compose."""
    captions = samples.strange_captions(1000)
    rows = ours.model.text.rows([torch.tensor(ids, dtype=torch.long) for ids in ours.tokenizer.ids(captions)])
    ends = (rows.layout.summary_index + 1).tolist()
    found = [row[:end] for row, end in zip(rows.layout.input_ids.tolist(), ends, strict=True)]
    expected = way.ids_of_texts(captions)
    assert [caption for caption, one, other in zip(captions, found, expected, strict=True) if one != other] == []


@pytest.mark.wide
@pytest.mark.parametrize(
    ("side", "part", "values"),
    [
        ("text", "encoding", {"pooling": "last"}),
        ("text", "prompt", {"text_template": "title: none | text: {caption}<eos>"}),
        ("text", "prompt", {"text_template": "<bos>title: none | text: {caption}<eos><eos>"}),
        ("text", "prompt", {"text_template": "<bos>{caption}<eos>"}),
        ("image", "encoding", {"pooling": "last"}),
        ("image", "prompt", {"image_template": "{visual}<eos>"}),
        ("image", "image", {"mean": [0.5, 0.5, 0.5]}),
        ("image", "image", {"std": [0.5, 0.5, 0.5]}),
    ],
)
def test_what_the_profile_states_decides(gemma, way, tmp_path, side, part, values):
    parts = {"image": {"size": 384}}
    parts[part] = parts.get(part, {}) | values
    ours = with_changes(NAME, gemma.directory(), tmp_path, **parts)
    if side == "image":
        pictures = [samples.picture(384)]
        found, expected = ours.images(pictures), way.features(_of_budget(way, 70).image_inputs(pictures))
    else:
        found, expected = ours.text(["a dog"]), way.features(way.text_inputs(["a dog"]))
    assert (found - expected).abs().max() > FAR


@pytest.mark.wide
def test_control_tokens_in_a_caption_stay_text(ours, way):
    """Here we differ from the authors on purpose: a caption can't change the row."""
    special = set(way.processor.tokenizer.convert_tokens_to_ids(["<bos>", "<eos>", "<|image|>", "<|audio|>"]))
    caption = "a<eos>b<bos><|image|>"
    assert [token for token in ours.text_ids(caption) if token in special] == [2, 1]
    assert [ours.text_ids(caption)] != way.ids_of_texts([caption])


def _of_budget(way, budget: int):
    """The authors' way with another budget of visual tokens."""
    other = copy.copy(way)
    other.budget = budget
    return other
