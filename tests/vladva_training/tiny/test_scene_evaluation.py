"""The scene figures against encoders whose scores are known: one that knows the truth, one that counts words."""

import re
from collections.abc import Callable

import open_clip
import pytest
import torch
from scene_truth import is_true

import vladva_clip
from vladva_clip.scenes import (
    CLAIM_KINDS,
    COLORS,
    COUNTS,
    EVALUATION_KINDS,
    FOIL_KINDS,
    HELD_OUT_PAIRS,
    SHAPES,
    TRIPLE_KINDS,
    Scene,
    evaluation_winoground,
    scenes,
)
from vladva_training.tiny.evaluate import named_pairs
from vladva_training.tiny.scene_evaluation import (
    Captioner,
    Embedded,
    Encoder,
    caption_quality,
    clip_encoder,
    evaluate_scenes,
    zero_shot,
)

COUNT = 20
SPLITS = ("test", "heldout")
WORDS = (*COLORS, *SHAPES)
SAME = (("to the left of", "over"), ("left of", "above"), ("to the right of", "under"), ("right of", "below"))
AXES = ("replace_rel_axis", "relation_of_four")


def gallery(split: str) -> dict[bytes, object]:
    drawn = scenes(split, 0, COUNT)
    turned = [quadruple[1] for one in drawn if (quadruple := evaluation_winoground(one))]
    return {one.draw(64).tobytes(): one for one in (*drawn, *turned)}


def knows_all(text: str, one: Scene) -> bool:
    count = re.search(r"(two|three|four) (?:objects|shapes)", text)
    if count:
        return COUNTS[len(one.objects)] == count.group(1) and one.background.kind in text
    pairs = named_pairs(text)
    return pairs <= one.pairs if len(pairs) == 1 else is_true(text, one)


def oracle(split: str, fits: Callable[[str, Scene], bool] = knows_all) -> Encoder:
    """An image is its own direction; a text is the images that it fits."""
    known = gallery(split)
    return Encoder(
        lambda images: torch.eye(len(known))[[list(known).index(image.tobytes()) for image in images]],
        lambda texts: torch.tensor([[fits(text, one) for one in known.values()] for text in texts]).float(),
    )


def knows_no_axis(text: str, one: Scene) -> bool:
    """Takes "above" for "left of" and "below" for "right of": both fit where either does."""
    return any(knows_all(text.replace(name, other), one) for pair in SAME for name in pair for other in pair)


def knows_no_size(text: str, one: Scene) -> bool:
    """Skips sizes, and dislikes a caption that has some among objects without one."""
    sized = len(re.findall("small|large", text))
    return knows_all(re.sub("small |large ", "", text), one) and sized in (0, len(one.objects))


def word_counter(split: str) -> Encoder:
    """Images and texts are the colors and shapes that are in them, in no order."""
    known = gallery(split)

    def count(words):
        return [float(words.count(word)) for word in WORDS]

    def words_of(one):
        return [word for pair in one.pairs for word in pair]

    return Encoder(
        lambda images: torch.tensor([count(words_of(known[image.tobytes()])) for image in images]),
        lambda texts: torch.tensor([count(text.replace(",", "").split()) for text in texts]),
    )


@pytest.mark.parametrize("split", SPLITS)
def test_an_encoder_that_knows_the_truth_scores_full_marks(split):
    figures = evaluate_scenes(oracle(split), split, COUNT)
    assert list(figures["foils"]) == list(FOIL_KINDS) and list(figures["itt"]) == list(TRIPLE_KINDS)
    assert list(figures["evaluation_foils"]) == list(EVALUATION_KINDS)
    for name in set(figures) - {"retrieval"}:
        assert set(figures[name].values()) == {1.0}, name
    assert figures["retrieval"]["text_to_image_R@5"] == figures["retrieval"]["image_to_text_R@5"] == 1


@pytest.mark.parametrize("split", SPLITS)
def test_an_encoder_that_counts_words_fails_where_their_order_matters(split):
    figures = evaluate_scenes(word_counter(split), split, COUNT)
    found = {kind for kind, score in figures["foils"].items() if score == 1}
    lost = {kind for kind, score in figures["foils"].items() if score == 0}
    assert found == {"replace_obj", "replace_att", "add_obj"}
    assert lost == {"replace_rel", "swap_obj", "swap_att", "add_att"}
    for name in ("itt", "tot"):
        assert figures[name] == {kind: float(kind in found) for kind in TRIPLE_KINDS}
    assert set(figures["winoground"].values()) == {0.0}
    assert figures["retrieval"]["text_to_image_R@1"] == 0  # a family has the same words


@pytest.mark.parametrize("split", SPLITS)
def test_who_knows_no_axis_is_found_out(split):
    figures = evaluate_scenes(oracle(split, knows_no_axis), split, COUNT)
    assert figures["evaluation_foils"]["relation_of_four"] == 0 and figures["evaluation_winoground"]["text"] < 1
    assert figures["evaluation_foils"]["replace_rel_axis"] < 1 and figures["evaluation_itt"]["replace_rel_axis"] < 1
    assert all(score == 1 for kind, score in figures["evaluation_foils"].items() if kind not in AXES)


@pytest.mark.parametrize("split", SPLITS)
def test_who_knows_no_size_is_found_out_by_the_kinds_of_evaluation_alone(split):
    figures = evaluate_scenes(oracle(split, knows_no_size), split, COUNT)
    assert set(figures["foils"].values()) == {1.0}
    assert figures["evaluation_foils"]["replace_size"] == figures["evaluation_foils"]["swap_size"] == 0
    assert all(figures["evaluation_foils"][kind] == 1 for kind in AXES)


def test_the_same_words_are_asked_once():
    asked = {"images": [], "texts": []}
    inner = oracle("test")
    encoder = Encoder(
        lambda images: asked["images"].extend(image.tobytes() for image in images) or inner.encode_images(images),
        lambda texts: asked["texts"].extend(texts) or inner.encode_texts(texts),
    )
    evaluate_scenes(encoder, "test", COUNT)
    assert len(asked["images"]) == len(set(asked["images"])) == len(gallery("test"))
    assert len(asked["texts"]) == len(set(asked["texts"]))


def test_never_seen_pairs_are_what_heldout_classifies():
    inner = oracle("heldout")

    def blind(texts):
        known = torch.tensor([not named_pairs(text) & HELD_OUT_PAIRS for text in texts])
        return inner.encode_texts(texts) * known[:, None]

    embedded = Embedded(Encoder(inner.encode_images, blind))
    assert zero_shot(embedded, scenes("heldout", 0, COUNT), "heldout") == 0


def test_a_gallery_with_part_of_a_family_is_refused():
    with pytest.raises(ValueError, match="whole families"):
        evaluate_scenes(oracle("test"), "test", 6)


@pytest.fixture(scope="module")
def captioner():
    model, preprocess = vladva_clip.create_model("vladva-tiny", "base", precision="fp32")
    return Captioner(model, preprocess, vladva_clip.get_tokenizer("vladva-tiny"))


def test_a_vladva_clip_is_measured_in_eval_mode_and_keeps_its_own(captioner):
    model = captioner.model.train()
    encoder = clip_encoder(model, captioner.preprocess, captioner.tokenizer)
    images, texts = [one.draw() for one in scenes("test", 0, 3)], ["a red circle", "a blue square above a white star"]
    pixels = torch.stack([captioner.preprocess(image) for image in images])
    assert torch.equal(encoder.encode_images(images), model.encode_image(pixels))
    assert torch.equal(encoder.encode_texts(texts), model.encode_text(captioner.tokenizer(texts)))
    assert all(module.training for module in model.modules())
    model.eval()


def test_an_open_clip_model_goes_through_the_same_code():
    vision = {"layers": 1, "width": 64, "patch_size": 16, "image_size": 64}
    text = {"layers": 1, "width": 32, "heads": 2}
    model = open_clip.CLIP(16, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text))
    preprocess = open_clip.image_transform(64, is_train=False)
    figures = evaluate_scenes(clip_encoder(model, preprocess, open_clip.get_tokenizer("ViT-B-32")), "test", 4)
    assert all(0 <= score <= 1 for scores in figures.values() for score in scores.values())


def test_the_captions_of_the_shipped_base_are_measured_from_both_prompts(captioner):
    scores = caption_quality(captioner, "test", 8)
    assert scores["described"] >= 7 / 8
    assert scores["continued"] == 0  # an untuned base answers with one word
    pixels = captioner.preprocess(scenes("test", 0, 1)[0].draw())[None]
    assert len(captioner.model.generate(pixels)[0].split()) == 1
    assert 0 < scores["ntp_loss"] < 10
    assert all(0 <= scores[f"{way}_{kind}"] <= 1 for way in ("continued", "described") for kind in CLAIM_KINDS)
    assert scores["described_counts"] >= 7 / 8 and scores["continued_relations"] == 0
