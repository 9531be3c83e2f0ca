"""The scene figures of the varied and the unseen style, against the same figures computed pair by pair."""

from collections.abc import Sequence
from itertools import product

import pytest
import torch
from torch.nn.functional import normalize

from tests.support.scene_oracle import knows_all, knows_sayings, oracle
from vladva_benchmarks.drawn.family_winoground import FACTS, quadruple_of
from vladva_benchmarks.drawn.pictures import DrawnPicture
from vladva_benchmarks.drawn.scene_evaluation import Figures, figures
from vladva_benchmarks.drawn.scene_retrieval import truths
from vladva_benchmarks.drawn.scene_tasks import World, scene_tasks
from vladva_clip.scenes import (
    COLORS,
    SHAPES,
    VARIED_MEMBERS,
    Mention,
    Scene,
    evaluation_foils,
    facts,
    family,
    foils,
    scenes,
    short_sayings,
    stable_seed,
)

COUNT = 48  # six families, the last of one-object scenes
STYLES = ("varied", "unseen")


def random_feature(key: object) -> torch.Tensor:
    generator = torch.Generator().manual_seed(stable_seed(key) % 2**63)
    return normalize(torch.randn(16, generator=generator), dim=0)


def of_scene(one: Scene) -> torch.Tensor:
    return random_feature(repr(one))


def images(pictures: Sequence[DrawnPicture]) -> torch.Tensor:
    return torch.stack([of_scene(picture.scene) for picture in pictures])


def texts(wanted: Sequence[str]) -> torch.Tensor:
    return torch.stack([random_feature(text) for text in wanted])


def similarity(one: Scene, text: str) -> float:
    return float(of_scene(one) @ random_feature(text))


@pytest.fixture(scope="module", params=STYLES)
def measured(request) -> tuple[list[Scene], Figures]:
    tasks = scene_tasks("test", COUNT, COUNT, request.param)
    return scenes("test", 0, COUNT, request.param), figures(tasks, lambda task: task.score(images, texts))


def share(right: Sequence[bool]) -> float:
    return pytest.approx(sum(right) / len(right))


def test_retrieval_counts_every_scene_of_which_a_caption_is_true(measured):
    gallery, found = measured
    sayings = [saying for one in gallery for saying in short_sayings(one)]
    best = []
    for saying in sayings:
        scores = [(similarity(one, saying.text), saying.claims <= facts(one)) for one in gallery]
        best.append([is_true for _, is_true in sorted(scores, reverse=True)])
    assert any(sum(row) > 1 for row in best)
    for k in (1, 5):
        assert found["retrieval"][f"text_to_image_R@{k}"] == share([any(row[:k]) for row in best])
    best = []
    for one in gallery:
        scores = [(similarity(one, saying.text), saying.claims <= facts(one)) for saying in sayings]
        best.append([is_true for _, is_true in sorted(scores, reverse=True)])
    for k in (1, 5):
        assert found["retrieval"][f"image_to_text_R@{k}"] == share([any(row[:k]) for row in best])


def test_every_kind_of_foil_stands_apart(measured):
    gallery, found = measured
    asked = {"foils": {}, "evaluation_foils": {}}
    for one in gallery:
        for kind, (caption, foil) in foils(one).items():
            asked["foils"].setdefault(kind, []).append(similarity(one, caption) > similarity(one, foil))
        for kind, (caption, false) in evaluation_foils(one).items():
            right = all(similarity(one, caption) > similarity(one, text) for text in false)
            asked["evaluation_foils"].setdefault(kind, []).append(right)
    for group, kinds in asked.items():
        assert found[group] == {kind: share(right) for kind, right in kinds.items()}
    assert "relation_of_four" in found["evaluation_foils"]


@pytest.mark.parametrize("fact", FACTS)
def test_winoground_shows_the_member_of_the_family_that_differs_in_the_fact(measured, fact):
    gallery, found = measured
    style, right = gallery[0].style, {"text": [], "image": [], "group": []}
    for number in range(COUNT // 8):
        members = family("test", number, style)
        if quadruple := quadruple_of(members, fact):
            first, second, caption, other = quadruple
            assert (first, second) == (members[0], members[VARIED_MEMBERS.index(fact)])
            scores = [[similarity(one, text) for text in (caption, other)] for one in (first, second)]
            text = scores[0][0] > scores[0][1] and scores[1][1] > scores[1][0]
            image = scores[0][0] > scores[1][0] and scores[1][1] > scores[0][1]
            for name, is_right in (("text", text), ("image", image), ("group", text and image)):
                right[name].append(is_right)
    assert len(right["group"]) >= 3
    assert found[f"winoground_{fact}"] == {name: share(values) for name, values in right.items()}


def test_naming_alone_has_one_object_in_the_picture_and_48_classes(measured):
    gallery, found = measured
    classes = {
        pair: normalize(
            sum(
                random_feature(text.format(Mention(*pair).phrase)) for text in ("{}", "a picture of {}", "there is {}")
            ),
            dim=0,
        )
        for pair in product(COLORS, SHAPES)
    }
    right = []
    for one in gallery:
        single = Scene(one.objects[:1], one.background, one.seed, one.look)
        assert len(single.objects) == 1 and single.draw().size == one.draw().size
        right.append(max(classes, key=lambda pair: float(of_scene(single) @ classes[pair])) == one.objects[0].pair)
    assert found["zero_shot_single"]["top_1"] == share(right)


def test_sizes_are_small_against_large_of_every_object(measured):
    gallery, found = measured
    right = []
    for one in gallery:
        for thing in one.objects:
            small, large = (similarity(one, Mention(*thing.pair, size).phrase) for size in ("small", "large"))
            right.append((small > large) == (thing.size == "small"))
    assert found["size"]["acc"] == share(right)


@pytest.mark.parametrize(("split", "style"), list(product(("test", "heldout"), STYLES)))
@pytest.mark.wide
def test_an_encoder_that_knows_the_truth_scores_full_marks(split, style):
    tasks = scene_tasks(split, COUNT, COUNT, style)
    lookups = oracle(tasks, knows_sayings(scenes(split, 0, COUNT, style)))
    found = figures(tasks, lambda task: task.score(*lookups))
    assert {f"winoground_{fact}" for fact in FACTS} < set(found)
    for name, values in found.items():
        assert set(values.values()) == {1.0}, (name, values)


def test_who_knows_no_axis_is_found_out_by_the_family():
    tasks = scene_tasks("test", COUNT, COUNT, "varied")
    asked = [one for one in tasks if one.name.startswith("winoground") or one.name.endswith("/relation_of_four")]
    turned = {"to the left of": "over", "left of": "above", "to the right of": "under", "right of": "below"}
    turned |= {new: old for old, new in turned.items()}

    def knows(text: str, one: Scene) -> bool:
        found = [old for old in turned if old in text]
        return knows_all(text, one) or (bool(found) and knows_all(text.replace(found[0], turned[found[0]]), one))

    lookups = oracle(asked, knows)
    found = figures(asked, lambda task: task.score(*lookups))
    assert found["evaluation_foils"]["relation_of_four"] < 1 and found["winoground_axis"]["group"] < 1
    assert found["winoground_places"]["group"] == found["winoground_colors"]["group"] == 1


def test_truths_are_the_claims_among_the_facts_of_a_thousand_scenes():
    gallery = scenes("validation", 0, 96, "varied")
    claims = [saying.claims for one in gallery for saying in short_sayings(one)]
    known = [facts(one) for one in gallery]
    expected = torch.tensor([[claimed <= facts_of_one for facts_of_one in known] for claimed in claims])
    assert torch.equal(truths(claims, gallery), expected)
    owners = torch.arange(len(gallery)).repeat_interleave(5)
    assert expected[torch.arange(len(claims)), owners].all() and expected.sum() > len(claims)


def test_worlds_are_named_by_split_and_style():
    assert [World("test").name, World("heldout", "unseen").name] == ["test", "heldout unseen"]
