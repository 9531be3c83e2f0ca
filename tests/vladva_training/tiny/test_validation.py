"""Validation figures: an oracle that knows the answer gets all, one that knows the opposite gets none."""

import math

import pytest
import torch

from vladva_clip.scenes import RELATIONS, family, holds, scenes
from vladva_training.tiny import validation
from vladva_training.tiny.batches import Batcher
from vladva_training.tiny.forward import SummaryReader
from vladva_training.tiny.model import build_model
from vladva_training.tiny.questions import statements
from vladva_training.tiny.validation import Validation, answer_accuracy, caption_accuracy, word_accuracy

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL["num_key_value_heads"] = 2


@pytest.fixture(scope="module")
def batcher(tokenizer):
    return Batcher(tokenizer, "validation", style="varied")


@pytest.fixture(scope="module")
def drawn():
    return [scene for scene in scenes("validation", 0, 60, "varied") if len(scene.objects) > 1]


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return build_model(tokenizer, **SMALL).eval()


class Oracle:
    """Stands for the model's states: at every target, one that the head turns into the wanted token's logit."""

    def __init__(self, model, sign):
        self.model, self.sign = model, sign

    def states(self, model, batch, visual=None):
        row, column, token, _ = batch.targets
        found = torch.zeros(*batch.input_ids.shape, 1024)
        found[row, column, token] = self.sign
        return found


@pytest.mark.parametrize(("sign", "share"), [(1.0, 1.0), (-1.0, 0.0)])
def test_an_oracle_is_always_right_and_its_opposite_never(model, batcher, drawn, monkeypatch, sign, share):
    monkeypatch.setattr(validation, "hidden_states", Oracle(model, sign).states)
    monkeypatch.setattr(model, "lm_head", torch.nn.Identity())
    assert set(word_accuracy(model, batcher, batcher.batch("image", 0, 24)).values()) == {share}
    straight = [one for one in drawn if sum(holds(relation, *one.objects[:2]) for relation in RELATIONS) == 1]
    assert answer_accuracy(model, batcher, straight) == share


def test_the_likeliest_caption_is_that_with_the_lowest_loss(model, batcher, drawn, monkeypatch):
    """Told which of the four relations is to cost nothing, the figure is the share of scenes where it holds."""
    for relation in RELATIONS:

        def losses(model, batch, relation=relation):
            others = [batcher.word_id(one.split()[0]) for one in RELATIONS if one != relation]
            return torch.isin(batch.targets[2], torch.tensor(others)).float()

        monkeypatch.setattr(validation, "target_losses", losses)
        expected = sum(holds(relation, *one.objects[:2]) for one in drawn) / len(drawn)
        assert caption_accuracy(model, batcher, drawn) == pytest.approx(expected)


def test_relations_are_asked_of_many_families(batcher):
    asked = Validation(batcher, size=24)._asked
    assert len(asked) == 24 and all(len(one.objects) > 1 for one in asked)
    members = [
        (number, member)
        for number in range(40)
        for member, one in enumerate(family("validation", number, "varied"))
        if one in asked
    ]
    assert len(members) == 24 and len({number for number, _ in members}) >= 20 and len({m for _, m in members}) == 8


def test_statements_differ_in_their_relation_alone(drawn):
    for scene in drawn:
        told = statements(scene)
        assert [one.relation for one in told] == list(dict.fromkeys([told[0].relation, *RELATIONS]))
        assert told[0].true_of(scene) and len({(one.first, one.second) for one in told}) == 1


def test_an_untrained_model_guesses(model, batcher):
    reader = SummaryReader(model.config.text_config.hidden_size)
    figures = Validation(batcher, size=16).figures(model, reader)
    assert figures["loss"] == pytest.approx(math.log(1024), abs=0.4)
    assert {"sizes", "counts", "backgrounds", "relations in captions", "relations in answers"} <= set(figures)
    assert Validation(batcher, size=16).figures(model, reader) == figures
