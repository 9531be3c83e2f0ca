"""The vision tower's pre-training: heads on the states that the projector reads, and a loss that falls."""

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionModel

from vladva_training.tiny import pretrain_vision
from vladva_training.tiny.course import Course, run
from vladva_training.tiny.model import vision_config
from vladva_training.tiny.pretrain_vision import (
    DrawnScenes,
    Recognizer,
    VisionSettings,
    VisionTrainer,
    recognition_figures,
)
from vladva_training.tiny.recognition import HEADS, recognition_loss

EIGHT = VisionSettings(batch_size=8)


def make_recognizer():
    torch.manual_seed(0)
    config = vision_config()
    config.num_hidden_layers, config.hidden_size, config.intermediate_size = 1, 48, 48
    return Recognizer(CLIPVisionModel(config))


def silent(*args, **kwargs):
    """Print nothing."""


def test_items_are_a_function_of_their_step():
    first, second = DrawnScenes(EIGHT)[3], DrawnScenes(EIGHT)[3]
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(DrawnScenes(EIGHT)[4][0], first[0])


def test_the_loss_of_no_knowledge_is_the_sum_of_logarithms():
    recognizer = make_recognizer()
    for head in recognizer.heads.heads:
        torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    pixels, labels = DrawnScenes(EIGHT)[0]
    expected = sum(math.log(len(answers)) for answers in HEADS.values())
    assert recognition_loss(recognizer(pixels), labels).item() == pytest.approx(expected, rel=1e-4)


def test_the_heads_answer_at_every_patch():
    logits = make_recognizer()(DrawnScenes(EIGHT)[0][0])
    assert [one.shape for one in logits] == [(8, 64, len(answers)) for answers in HEADS.values()]


def test_figures_of_right_answers():
    pixels, labels = DrawnScenes(EIGHT, split="validation")[0]
    logits = [50 * torch.eye(len(answers))[labels[:, i]] for i, answers in enumerate(HEADS.values())]
    figures = recognition_figures(lambda given: logits, pixels, labels)
    assert figures.pop("loss") == pytest.approx(0, abs=1e-4)
    assert figures == dict.fromkeys(HEADS, 1.0)


@pytest.mark.parametrize("muon", [True, False])
def test_pretraining_lowers_the_loss(muon):
    course = Course(steps=40, warmup_steps=5, learning_rate=3e-3)
    trainer = VisionTrainer(make_recognizer(), VisionSettings(batch_size=8, muon=muon), course)
    losses = [trainer.train_step(trainer.data[step])["loss"] for step in range(40)]
    assert losses[0] == pytest.approx(9.8, abs=0.8)
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.8
    assert set(trainer.validate()) == {"loss", *HEADS}


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    course = Course(steps=4, warmup_steps=2, validate_every=0)
    whole, first, second = (VisionTrainer(make_recognizer(), EIGHT, course) for _ in range(3))
    run(whole, tmp_path / "a" / "vision", log=silent)
    for step in range(2):
        first.train_step(first.data[step])
    first.save(tmp_path / "b" / "vision")
    second.resume(tmp_path / "b" / "vision")
    run(second, tmp_path / "b" / "vision", log=silent)
    stored = [load_file(tmp_path / name / "vision.safetensors") for name in "ab"]
    assert stored[0] and all(torch.equal(tensor, stored[1][name]) for name, tensor in stored[0].items())


def test_the_command_trains_and_resumes(tmp_path):
    words = ["--output-dir", str(tmp_path), "--batch-size", "4", "--workers", "0", "--validate-every", "0"]
    pretrain_vision.main([*words, "--steps", "1"])
    pretrain_vision.main([*words, "--steps", "2", "--resume"])
    assert torch.load(tmp_path / "vision/checkpoint.pt", weights_only=True)["step"] == 2
    CLIPVisionModel(vision_config()).load_state_dict(load_file(tmp_path / "vision.safetensors"))
