"""The task mix: every answer is right, every batch is the chat it claims to be."""

import random

import pytest
import torch

from vladva_clip.scenes import long_caption, scenes, short_captions
from vladva_training.tiny.batches import PADDING_BRANCH, TASK_NAMES, Batcher
from vladva_training.tiny.forward import hidden_states
from vladva_training.tiny.model import build_model
from vladva_training.tiny.tasks import (
    IMAGE_SUMMARY,
    NUM_CLAIMS,
    NUM_QUESTIONS,
    TEXT_SUMMARY,
    image_row,
    summary_task,
    text_row,
)

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL["num_key_value_heads"] = 2


@pytest.fixture(scope="module")
def batcher(tokenizer):
    return Batcher(tokenizer)


@pytest.fixture(scope="module")
def model(batcher):
    torch.manual_seed(0)
    return build_model(batcher.tokenizer, **SMALL).eval()


def test_an_image_row_has_its_summary_and_questions_and_often_its_captions():
    names = [[task.name for task in image_row(drawn, random.Random(0)).tasks] for drawn in scenes("train", 0, 50)]
    asked = ["question"] * (NUM_QUESTIONS + NUM_CLAIMS)
    assert all(row[0] == "one_word" and row[-len(asked) :] == asked for row in names)
    assert all(set(row[1 : -len(asked)]) <= {"image_long", "image_short"} for row in names)


def test_a_row_asks_different_questions():
    for index, drawn in enumerate(scenes("train", 0, 50)):
        prompts = [task.prompt for task in text_row(drawn, random.Random(index)).tasks if task.name == "question"]
        assert len(set(prompts[:NUM_QUESTIONS])) == NUM_QUESTIONS
        assert len(prompts) == NUM_QUESTIONS + NUM_CLAIMS


def test_a_text_row_never_answers_with_its_own_caption():
    for index, drawn in enumerate(scenes("train", 0, 100)):
        row = text_row(drawn, random.Random(index))
        assert row.caption in (*short_captions(drawn), long_caption(drawn))
        assert row.caption not in [task.answer for task in row.tasks]


def test_all_tasks_occur_under_known_names():
    names = {
        task.name
        for index, drawn in enumerate(scenes("train", 0, 100))
        for make in (image_row, text_row)
        for task in make(drawn, random.Random(index)).tasks
    }
    assert names == set(TASK_NAMES)


def test_one_word_answers_are_the_objects_colors_and_shapes():
    for drawn in scenes("train", 0, 20):
        task = summary_task(IMAGE_SUMMARY, drawn, random.Random(0))
        assert sorted(task.answers) == sorted(word for pair in drawn.pairs for word in pair)
        assert task.answer in task.answers


def test_a_batch_is_a_function_of_its_step(batcher):
    other = Batcher(batcher.tokenizer)
    for first, second in zip(batcher.image_batches(3, 4), other.image_batches(3, 4), strict=True):
        assert torch.equal(first.input_ids, second.input_ids) and torch.equal(first.targets, second.targets)
        assert torch.equal(first.pixel_values, second.pixel_values)
    assert not torch.equal(batcher.image_batches(4, 4)[0].pixel_values, first.pixel_values)


def test_the_first_branch_with_its_prefix_is_the_rendered_chat(batcher):
    tokenizer = batcher.tokenizer
    batch = batcher.text_batches(0, 4)[0]
    ids = batch.input_ids[0][(batch.branches[0] == 0) | (batch.branches[0] == 1)]
    text = tokenizer.decode(ids)
    caption, answer = text.removeprefix("<s>USER: ").split(f"\n{TEXT_SUMMARY} ASSISTANT:")
    assert len(caption.split()) > 4 and len(answer.split()) == 1


def test_targets_follow_their_positions(batcher):
    batch = batcher.text_batches(0, 8)[0]
    rows, columns, tokens, tasks = batch.targets
    eos = batcher.tokenizer.eos_token_id
    for row, column, token, task in zip(rows, columns, tokens, tasks, strict=True):
        same_branch = (
            column + 1 < batch.branches.shape[1] and batch.branches[row, column + 1] == batch.branches[row, column]
        )
        if TASK_NAMES[task] != "one_word" and token != eos:
            assert same_branch and batch.input_ids[row, column + 1] == token
    assert (batch.branches[rows, columns] > 0).all()
    assert torch.allclose(batch.weights[tasks == 0].sum(), torch.tensor(2.0 * len(batch.input_ids)))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["image", "text"])
def test_branches_side_by_side_equal_plain_sequences(batcher, model, kind, attention):
    """Every branch computes what transformers' own forward computes for its chat alone."""
    model.set_attn_implementation({"text_config": attention})
    batch = (batcher.image_batches if kind == "image" else batcher.text_batches)(0, 2)[0]
    with torch.no_grad():
        together = hidden_states(model, batch)[0]
        for branch in range(1, int(batch.branches[0].max()) + 1):
            chosen = (batch.branches[0] == 0) | (batch.branches[0] == branch)
            pixels = None if kind == "text" else batch.pixel_values[:1]
            alone = model(
                input_ids=batch.input_ids[:1, chosen], pixel_values=pixels, output_hidden_states=True
            ).hidden_states[-1][0]
            torch.testing.assert_close(together[chosen], alone, atol=1e-5, rtol=1e-4)


def test_padding_is_marked(batcher):
    for batch in batcher.text_batches(0, 8):
        padding = batch.branches == PADDING_BRANCH
        assert torch.equal(padding, batch.input_ids == batcher.tokenizer.pad_token_id)
