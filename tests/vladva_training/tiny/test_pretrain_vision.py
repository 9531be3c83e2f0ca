"""The vision tower's pre-training: right labels for every patch, and a loss that falls."""

import math

import pytest
import torch
from transformers import CLIPVisionModel

from vladva_clip.scenes import BACKGROUNDS, COLORS, PLACES, SHAPES, SIZES, Scene, scene
from vladva_training.tiny.model import vision_config
from vladva_training.tiny.pretrain_vision import (
    HEADS,
    DrawnScenes,
    Recognizer,
    learning_rate_at,
    patch_labels,
    pretrain_vision,
    recognition_accuracy,
    recognition_loss,
)


@pytest.fixture
def recognizer():
    torch.manual_seed(0)
    config = vision_config()
    config.num_hidden_layers, config.hidden_size, config.intermediate_size = 1, 48, 48
    return Recognizer(CLIPVisionModel(config))


def test_patches_are_labeled_with_what_stands_in_their_cell():
    drawn = Scene.of([("circle", "red", "top left", "small"), ("star", "blue", "bottom")])
    labels = dict(zip(HEADS, patch_labels(drawn).reshape(len(HEADS), 8, 8), strict=True))
    assert (labels["color"][:3, :3] == list(COLORS).index("red")).all()
    assert (labels["shape"][5:, 3:5] == SHAPES.index("star")).all()
    assert (labels["size"][:3, :3] == list(SIZES).index("small")).all()
    assert (labels["color"] == len(COLORS)).sum() == (labels["shape"] == len(SHAPES)).sum() == 64 - 9 - 6
    assert labels["place"][0, 0] == list(PLACES).index("top left")
    assert labels["place"][2, 7] == list(PLACES).index("top right")
    assert labels["place"][5, 2] == list(PLACES).index("bottom left")
    assert (labels["background"] == BACKGROUNDS.index(drawn.background.kind)).all()


def test_items_are_a_function_of_their_index():
    first, second = DrawnScenes(10)[3], DrawnScenes(10)[3]
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(DrawnScenes(10)[4][0], first[0])


def test_the_loss_of_no_knowledge_is_the_sum_of_logarithms(recognizer):
    for head in recognizer.heads.heads:
        torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    drawn = [DrawnScenes(2)[index] for index in range(2)]
    loss = recognition_loss(recognizer(torch.stack([d[0] for d in drawn])), torch.stack([d[1] for d in drawn]))
    assert loss.item() == pytest.approx(sum(math.log(len(answers)) for answers in HEADS.values()), rel=1e-4)


def test_the_heads_read_the_states_that_the_projector_reads(recognizer):
    pixels = DrawnScenes(1)[0][0][None]
    logits = recognizer(pixels)
    assert [one.shape for one in logits] == [(1, 64, len(answers)) for answers in HEADS.values()]


def test_pretraining_lowers_the_loss(recognizer):
    losses = pretrain_vision(recognizer, count=400, batch_size=8, workers=0)
    assert len(losses) == 50
    assert losses[0] == pytest.approx(9.5, abs=0.7)
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.4
    assert set(recognition_accuracy(recognizer, count=8)) == set(HEADS)


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate_at(step, 1000, peak=1.0) for step in (0, 500, 1000)]
    assert rates == pytest.approx([0.01, 0.51, 0.02], abs=1e-3)


def test_test_scenes_are_not_training_scenes():
    assert scene("test", 0) != scene("train", 0)
    assert DrawnScenes(1, split="test").split == "test"
