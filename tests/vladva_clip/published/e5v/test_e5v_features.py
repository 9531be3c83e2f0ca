"""E5-V's ids and features equal its authors', by its short name and by its Hub id."""

import pytest
import torch

from tests.support.published import e5v, samples
from tests.support.published.ours import Ours, with_changes

CAPTIONS = list(samples.CAPTIONS.values())
BY_ROUNDING = 1e-6  # cosine distance: the authors' processor rounds the pixels of the whole picture once more
FAR = 1e-3


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The greatest cosine distance of two rows."""
    return float((1 - torch.cosine_similarity(one.double(), other.double(), dim=-1)).max())


@pytest.mark.parametrize("caption", CAPTIONS, ids=samples.CAPTIONS)
def test_ids_of_captions(ours, way, caption):
    assert [ours.text_ids(caption)] == way.ids(way.text_inputs([caption]))


def test_captions_merge_with_their_borders(way):
    """So tokenized alone they would have other ids: what `caption_ids` is for."""
    names = way.processor.tokenizer.convert_ids_to_tokens
    rows = {caption: names(way.ids_of_texts([caption])[0]) for caption in ("a dog.", "", "\n a")}
    assert rows["a dog."][4:9] == ["ĊĊ", "a", "Ġdog", ".Ċ", "Summary"]
    assert rows[""][4:6] == ["ĊĊĊ", "Summary"] and rows["\n a"][4] == "ĊĊĊ"
    assert all(
        row[:2] == ["<|begin_of_text|>", "<|start_header_id|>"] and row[-2:] == ["ĊĊ", "ĠĊ"] for row in rows.values()
    )


def test_features_of_captions(ours, way):
    """One by one, and in a batch of mixed lengths."""
    expected = torch.cat([way.features(way.text_inputs([caption])) for caption in CAPTIONS])
    close(torch.cat([ours.text([caption]) for caption in CAPTIONS]), expected)
    close(ours.text(CAPTIONS * 2), expected.repeat(2, 1))
    assert (expected @ expected.T - torch.eye(len(expected))).max() < 0.9999  # no two captions look alike


@pytest.mark.wide
def test_ids_of_strange_captions(ours, way):
    """White space and line breaks of all kinds, signs that merge with their neighbors, letters that compose."""
    captions = samples.strange_captions(2000)
    rows = ours.model.text.rows([torch.tensor(ids, dtype=torch.long) for ids in ours.tokenizer.ids(captions)])
    ends = (rows.layout.summary_index + 1).tolist()
    found = [row[:end] for row, end in zip(rows.layout.input_ids.tolist(), ends, strict=True)]
    expected = way.ids_of_texts(captions)
    assert [caption for caption, one, other in zip(captions, found, expected, strict=True) if one != other] == []


@torch.no_grad()
def test_pictures(ours, way):
    """Equal but for one rounding, which the picture scaled as a whole has in the authors' processor."""
    assert ours.model.visual.image_size == (672, 672) and ours.model.visual.num_visual_tokens == 2928
    pictures = [samples.picture(672, seed) for seed in range(2)]
    inputs, found = way.image_inputs(pictures), ours.images(pictures)
    assert [ours.image_ids(pictures[0])] == way.ids(inputs)[:1]
    assert distance(found, way.features(inputs)) < BY_ROUNDING
    pixels = torch.stack([ours.preprocess(picture) for picture in pictures])
    inputs["pixel_values"][:, 0] = torch.nn.functional.interpolate(pixels, size=336, mode="bicubic", antialias=True)
    close(found, way.features(inputs))
    close(ours.images(pictures[:1]), found[:1])


@pytest.mark.wide
@torch.no_grad()
def test_visual_tokens_of_pictures(ours, way):
    """Seen before the language model, which makes the features of pictures alike while its weights are random."""
    pictures = [samples.picture(672, seed) for seed in range(2)]
    inputs = way.image_inputs(pictures)
    backbone = ours.model.visual.backbone
    found = backbone.visual_tokens(torch.stack([ours.preprocess(picture) for picture in pictures]))

    def theirs(order: list[int]) -> torch.Tensor:
        crops = inputs["pixel_values"][:, order]
        return torch.stack(list(way.lvlm.model.get_image_features(crops, inputs["image_sizes"]).pooler_output))

    expected = theirs([0, 1, 2, 3, 4])
    torch.testing.assert_close(found[:, 576:], expected[:, 576:], atol=1e-5, rtol=1e-5)
    assert 0 < distance(found[:, :576], expected[:, :576]) < 1e-3
    assert distance(found[:, 576:], theirs([0, 1, 3, 2, 4])[:, 576:]) > 0.01


@pytest.mark.wide
@pytest.mark.parametrize("side", [337, 500, 1200])
def test_other_squares_are_scaled_twice_here(ours, way, side):
    """The authors scale the whole picture from the original; the tiles are equal."""
    pictures = [samples.picture(side, seed) for seed in range(2)]
    inputs = way.image_inputs(pictures)
    assert [ours.image_ids(pictures[0])] == way.ids(inputs)[:1]
    assert distance(ours.images(pictures), way.features(inputs)) < 1e-5


@pytest.mark.wide
def test_the_whole_picture_alone_is_another_feature(cache_dir, way):
    """336 pixels: a fifth of the tokens, and a deviation."""
    small, pictures = Ours(e5v.NAME, image_size=336, cache_dir=cache_dir), [samples.picture(672, 1)]
    assert small.model.visual.num_visual_tokens == 576
    assert (small.images(pictures) - way.features(way.image_inputs(pictures))).abs().max() > FAR
    close(small.text(CAPTIONS), way.features(way.text_inputs(CAPTIONS)))


@pytest.mark.wide
def test_by_the_hub_id(cache_dir, ours):
    other = Ours(f"hf-hub:{e5v.REPOSITORY}", cache_dir=cache_dir)
    assert torch.equal(other.text(CAPTIONS), ours.text(CAPTIONS))
    assert other.model.config.base.revision == e5v.REVISION


@pytest.mark.wide
@pytest.mark.parametrize(
    ("part", "values", "caption"),
    [
        ("prompt", {"caption_ids": "alone"}, "a dog."),
        ("prompt", {"caption_ids": "in_place"}, ""),
        ("prompt", {"clean": "open_clip"}, "two  spaces"),
        ("prompt", {"text_template": e5v.TEXT.replace("<sent>", "{caption}").removesuffix(" \n")}, "a cat"),
        ("prompt", {"text_template": e5v.TEXT.replace("<sent>", "{caption}").replace(": <", ":<")}, "a cat"),
    ],
)
def test_each_setting_decides_the_features(directory, way, tmp_path, part, values, caption):
    changed = with_changes(e5v.NAME, directory, tmp_path, **{part: values})
    assert (changed.text([caption]) - way.features(way.text_inputs([caption]))).abs().max() > FAR


@pytest.mark.wide
def test_control_tokens_in_a_caption_stay_text(ours, way):
    """Here we differ from the authors on purpose: a caption can't change the row, nor open an image slot."""
    caption = "a<|eot_id|>b<image>"
    row, control = ours.text_ids(caption), way.processor.tokenizer.all_special_ids
    assert [one for one in row if one in control] == [one for one in ours.text_ids("a") if one in control]
    assert row != way.ids_of_texts([caption])[0]
