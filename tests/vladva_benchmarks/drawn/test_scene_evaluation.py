"""The scene figures against encoders whose scores are known: one that knows the truth, one that counts words."""

import re
from collections.abc import Sequence

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

import vladva_clip
from tests.support.scene_oracle import Knowledge, Oracle, knows_all, oracle
from vladva_benchmarks.drawn.caption_quality import Captioner, caption_quality
from vladva_benchmarks.drawn.pictures import DrawnPicture
from vladva_benchmarks.drawn.scene_evaluation import Figures, embed, evaluate_worlds, figures
from vladva_benchmarks.drawn.scene_retrieval import SceneRetrieval
from vladva_benchmarks.drawn.scene_rival import RivalTokenizer, build_rival
from vladva_benchmarks.drawn.scene_tasks import World, scene_tasks
from vladva_benchmarks.suites import models
from vladva_benchmarks.suites.drawn_scenes import export, read
from vladva_benchmarks.suites.tasks import Retrieval
from vladva_clip.scenes import (
    CLAIM_KINDS,
    COLORS,
    EVALUATION_KINDS,
    FOIL_KINDS,
    HELD_OUT_PAIRS,
    SHAPES,
    TRIPLE_KINDS,
    Mention,
    Scene,
    named_pairs,
    scenes,
)

COUNT = 20
SPLITS = ("test", "heldout")
WORDS = (*COLORS, *SHAPES)
SAME = (("to the left of", "over"), ("left of", "above"), ("to the right of", "under"), ("right of", "below"))
AXES = ("replace_rel_axis", "relation_of_four")


def score(split: str, lookups: Oracle) -> Figures:
    return figures(scene_tasks(split, COUNT, COUNT), lambda task: task.score(*lookups))


def knowing(split: str, knows: Knowledge = knows_all) -> Oracle:
    return oracle(scene_tasks(split, COUNT, COUNT), knows)


def knows_no_axis(text: str, one: Scene) -> bool:
    """Takes "above" for "left of" and "below" for "right of": both fit where either does."""
    said = {text.replace(name, other) for pair in SAME for name in pair for other in pair}
    return any(knows_all(text, one) for text in said)


def knows_no_size(text: str, one: Scene) -> bool:
    """Skips sizes, and dislikes a caption that has some among objects without one."""
    sized = len(re.findall("small|large", text))
    return knows_all(re.sub("small |large ", "", text), one) and sized in (0, len(one.objects))


def word_counter() -> Oracle:
    """Images and texts are the colors and shapes that are in them, in no order."""

    def features(rows: list[list[str]]) -> torch.Tensor:
        return normalize(torch.tensor([[float(row.count(word)) for word in WORDS] for row in rows]), dim=-1)

    def images(pictures: Sequence[DrawnPicture]) -> torch.Tensor:
        return features([[word for pair in picture.scene.pairs for word in pair] for picture in pictures])

    return images, lambda texts: features([text.replace(",", "").split() for text in texts])


@pytest.mark.parametrize("split", SPLITS)
def test_an_encoder_that_knows_the_truth_scores_full_marks(split):
    found = score(split, knowing(split))
    assert list(found["foils"]) == list(FOIL_KINDS) and list(found["itt"]) == list(TRIPLE_KINDS)
    assert list(found["evaluation_foils"]) == list(EVALUATION_KINDS)
    for name in set(found) - {"retrieval"}:
        assert set(found[name].values()) == {1.0}, name
    assert found["retrieval"]["text_to_image_R@5"] == found["retrieval"]["image_to_text_R@5"] == 1


@pytest.mark.parametrize("split", SPLITS)
def test_an_encoder_that_counts_words_fails_where_their_order_matters(split):
    found = score(split, word_counter())
    right = {kind for kind, share in found["foils"].items() if share == 1}
    lost = {kind for kind, share in found["foils"].items() if share == 0}
    assert right == {"replace_obj", "replace_att", "add_obj"}
    assert lost == {"replace_rel", "swap_obj", "swap_att", "add_att"}
    for name in ("itt", "tot"):
        assert found[name] == {kind: float(kind in right) for kind in TRIPLE_KINDS}
    assert set(found["winoground"].values()) == {0.0}
    assert found["retrieval"]["text_to_image_R@1"] == 0  # a family has the same words


@pytest.mark.parametrize("split", SPLITS)
def test_who_knows_no_axis_is_found_out(split):
    found = score(split, knowing(split, knows_no_axis))
    assert found["evaluation_foils"]["relation_of_four"] == 0 and found["evaluation_winoground"]["text"] < 1
    assert found["evaluation_foils"]["replace_rel_axis"] < 1 and found["evaluation_itt"]["replace_rel_axis"] < 1
    assert all(share == 1 for kind, share in found["evaluation_foils"].items() if kind not in AXES)


@pytest.mark.parametrize("split", SPLITS)
def test_who_knows_no_size_is_found_out_by_the_kinds_of_evaluation_alone(split):
    found = score(split, knowing(split, knows_no_size))
    assert set(found["foils"].values()) == {1.0}
    assert found["evaluation_foils"]["replace_size"] == found["evaluation_foils"]["swap_size"] == 0
    assert found["size"]["acc"] == 0 and found["zero_shot_single"]["top_1"] == 1
    assert all(found["evaluation_foils"][kind] == 1 for kind in AXES)


def test_a_caption_answers_every_scene_that_has_the_same_words():
    """The first two scenes share a caption, which the encoder takes for the second one's alone."""
    pictures = [DrawnPicture(one) for one in scenes("test", 0, 2)]
    known = {"shared": torch.tensor([0.0, 1.0]), "own": torch.tensor([1.0, 0.0])}
    lookups = (lambda asked: torch.eye(2)), (lambda texts: torch.stack([known[text] for text in texts]))
    strict = Retrieval("strict", pictures, [["shared", "own"], ["shared"]])
    assert strict.score(*lookups)["image_retrieval_recall@1"] == pytest.approx(2 / 3)
    lenient = SceneRetrieval("lenient", pictures, strict.captions)
    assert lenient.score(*lookups)["text_to_image_R@1"] == 1


@pytest.mark.wide
def test_each_picture_and_each_text_is_encoded_once():
    model, drawn, read = build_rival(0).eval(), [], []
    tokenizer = RivalTokenizer()

    def preprocess(image):
        drawn.append(image.tobytes())
        return torch.zeros(3, 64, 64)

    encoder = models.in_hand(model, preprocess, lambda texts: read.extend(texts) or tokenizer(texts))
    evaluate_worlds(encoder, [World("test"), World("heldout")], COUNT, COUNT)
    tasks = [task for split in SPLITS for task in scene_tasks(split, COUNT, COUNT)]
    assert len(drawn) == len(set(drawn)) == len({picture for task in tasks for picture in task.pictures})
    assert len(read) == len(set(read)) > 10 * COUNT


def test_heldout_asks_for_never_seen_pairs_alone():
    images, texts = knowing("heldout")

    def blind(wanted: Sequence[str]) -> torch.Tensor:
        known = torch.tensor([not named_pairs(text) & HELD_OUT_PAIRS for text in wanted])
        return texts(wanted) * known[:, None]

    assert score("heldout", (images, blind))["zero_shot"]["top_1"] == 0


def test_an_object_alone_is_named_as_in_the_suite(tmp_path):
    """The same pictures, classes and templates, so that an encoder has the same accuracy on both."""
    (task,) = [task for task in scene_tasks("test", COUNT, COUNT) if task.name == "zero_shot_single"]
    export(tmp_path, COUNT)
    suite = next(read(tmp_path))
    assert [picture.open().tobytes() for picture in task.pictures] == [one.open().tobytes() for one in suite.pictures]
    assert [Mention(*pair).phrase for pair in task.pairs] == [suite.classnames[label] for label in suite.labels]
    assert task.texts == [text.format(c=name) for name in suite.classnames for text in suite.templates]


@pytest.mark.parametrize(("count", "foil_count"), [(6, 4), (0, 4), (8, 0)])
def test_part_of_a_family_and_no_foils_are_refused(count, foil_count):
    with pytest.raises(ValueError, match=f"count is {count if foil_count else foil_count}"):
        scene_tasks("test", count, foil_count)


@pytest.fixture(scope="module")
def captioner():
    model, preprocess = vladva_clip.create_model("vladva-tiny", "base", precision="fp32")
    return Captioner(model, preprocess, vladva_clip.get_tokenizer("vladva-tiny"))


def test_a_vladva_clip_is_measured_in_eval_mode_and_keeps_its_own(captioner):
    model = captioner.model.train()
    encoder = models.in_hand(model, captioner.preprocess, captioner.tokenizer)
    pictures, captions = [DrawnPicture(one) for one in scenes("test", 0, 2)], ["a red circle", "a blue square"]
    task, state = Retrieval("two", pictures, [[caption] for caption in captions]), torch.get_rng_state()
    images, texts = embed(encoder, [task])
    assert all(module.training for module in model.modules()) and torch.equal(torch.get_rng_state(), state)
    model.eval()
    pixels = torch.stack([captioner.preprocess(picture.open()) for picture in pictures])
    assert torch.equal(images(pictures), normalize(model.encode_image(pixels), dim=-1))
    expected = normalize(model.encode_text(captioner.tokenizer(captions)), dim=-1)
    assert torch.equal(texts(captions), expected)


def test_an_open_clip_model_goes_through_the_same_code():
    vision = {"layers": 1, "width": 64, "patch_size": 16, "image_size": 64}
    text = {"layers": 1, "width": 32, "heads": 2}
    model = open_clip.CLIP(16, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text))
    preprocess = open_clip.image_transform(64, is_train=False)
    encoder = models.in_hand(model, preprocess, open_clip.get_tokenizer("ViT-B-32"))
    found = evaluate_worlds(encoder, [World("test")], 4)["test"]
    assert all(0 <= share <= 1 for shares in found.values() for share in shares.values())


def test_the_captions_of_the_shipped_base_are_measured_from_both_prompts(captioner):
    scores = caption_quality(captioner, World("test"), 8)
    assert scores["described"] >= 7 / 8 and scores["continued"] >= 7 / 8  # in the second turn
    assert 0 < scores["ntp_loss"] < 1
    assert all(0 <= scores[f"{way}_{kind}"] <= 1 for way in ("continued", "described") for kind in CLAIM_KINDS)
    assert scores["described_counts"] >= 7 / 8 and scores["continued_relations"] >= 7 / 8
