"""Probes of the base: they read what is there, find nothing in noise, and count only whole answers."""

import pytest
import torch

from vladva_clip.scenes import scenes, short_captions
from vladva_training.tiny import probes
from vladva_training.tiny.batches import Batcher
from vladva_training.tiny.model import build_model
from vladva_training.tiny.probes import WORDS, question_accuracy, visual_probes
from vladva_training.tiny.questions import questions
from vladva_training.tiny.recognition import patch_labels
from vladva_training.tiny.tasks import Row, Task

pytestmark = pytest.mark.wide


def test_the_shipped_vision_tower_tells_color_and_shape(base):
    found = visual_probes(base[0], scenes("test", 0, 200))
    assert set(found) == {"vision tower", "projector"} and all(set(one) == set(WORDS) for one in found.values())
    assert found["vision tower"]["color"] > 0.95 and found["vision tower"]["shape"] > 0.9


def test_a_probe_reads_what_was_written_and_nothing_from_noise():
    drawn = scenes("test", 0, 400)
    written = torch.randn(400, 64, 32, generator=torch.Generator().manual_seed(0))
    for row, scene in enumerate(drawn):
        for one in scene.objects:
            written[row, probes._center_patch(scene, one), WORDS["place"].index(one.place)] += 20
    found = probes._probe(written, drawn)
    assert found["place"] == 1.0
    assert found["size"] == pytest.approx(0.5, abs=0.15) and found["color"] < 0.35


def test_an_object_is_read_where_its_look_puts_it():
    """The patch at an object's center shows its color, also where the picture leans."""
    for scene in scenes("train", 0, 80, "varied"):
        colors = patch_labels(scene)[0]
        for one in scene.objects:
            assert colors[probes._center_patch(scene, one)] == WORDS["color"].index(one.color)


def test_an_answer_is_right_if_generation_would_write_it(base):
    """Held against transformers' own greedy generation from the chat."""
    model, processor = base
    tokenizer, drawn = processor.tokenizer, scenes("test", 0, 12)
    batcher = Batcher(tokenizer)
    captions = [short_captions(one)[0] for one in drawn]
    asked = [questions(one)["color"][0] for one in drawn]
    rows = [Row(*pair, (Task("question", *one),)) for *pair, one in zip(drawn, captions, asked, strict=True)]
    counted = probes._right(model, batcher, rows)
    for caption, question, right in zip(captions, asked, counted.tolist(), strict=True):
        turn = tokenizer(f"</s>USER: {question.prompt} ASSISTANT:", add_special_tokens=False).input_ids
        ids = [*batcher.prefix_ids(caption), *turn]
        output = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=6, do_sample=False)
        assert (tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True) == question.answer) == right


def test_kinds_that_nobody_is_asked_are_left_out(tokenizer):
    """A caption of a scene with one object claims no relation."""
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = build_model(tokenizer, **small).eval()
    drawn = [one for one in scenes("test", 40, 8, "varied") if len(one.objects) == 1]
    found = question_accuracy(model, Batcher(tokenizer, style="varied"), drawn, "text")
    assert {"color", "shape"} <= set(found) and not {"relation", "neighbor"} & set(found)


def test_every_kind_of_question_is_counted_for_both_modalities(base):
    model, processor = base
    for modality in ("image", "text"):
        found = question_accuracy(model, Batcher(processor.tokenizer), scenes("test", 0, 40), modality)
        claim = ["claim"] if modality == "image" else []  # no claims are judged by a caption alone
        assert list(found) == ["color", "shape", "place", "relation", "neighbor", *claim]
        assert found["shape"] >= 0.9 and all(0 <= share <= 1 for share in found.values())
