"""The task mix: every answer is right, every batch is the rows that it claims to be."""

import random
from collections import Counter

import pytest
import torch

import vladva_clip
from vladva_clip.scenes import facts, long_caption, scenes, short_captions, short_sayings
from vladva_training.tiny.batches import PADDING, TASK_NAMES, Batcher
from vladva_training.tiny.bindings import labels
from vladva_training.tiny.forward import SummaryReader, all_losses, hidden_states
from vladva_training.tiny.model import build_model, save_base
from vladva_training.tiny.tasks import (
    DESCRIBE_LONG,
    IMAGE_SUMMARY,
    NUM_SHORT,
    Row,
    Task,
    image_row,
    summary_task,
    text_row,
)
from vladva_training.tiny.words import FACT_WORDS, words_of

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL["num_key_value_heads"] = 2
STYLES = pytest.mark.parametrize("style", ["classic", "varied"])
KINDS = pytest.mark.parametrize("kind", ["image", "text"])


@pytest.fixture(scope="module")
def batcher(tokenizer):
    return Batcher(tokenizer, style="varied")


@pytest.fixture(scope="module")
def model(batcher):
    torch.manual_seed(0)
    return build_model(batcher.tokenizer, **SMALL).eval()


@STYLES
def test_an_image_row_has_its_captions_and_in_the_encoders_form_its_summary(style):
    rows = [image_row(drawn, random.Random(index)) for index, drawn in enumerate(scenes("train", 0, 80, style))]
    for row in rows:
        tasks = {task.name: task for task in row.tasks}
        assert ("one_word" in tasks) == (row.form == "summary")
        captions = tasks["image_short"].answers
        assert len(set(captions)) == NUM_SHORT["image"] and set(captions) <= set(short_captions(row.scene))
        assert "image_long" not in tasks or tasks["image_long"].answers == (long_caption(row.scene),)
    assert 8 < sum(row.form == "chat" for row in rows) < 32


@STYLES
def test_a_text_row_repeats_its_own_caption_from_the_summary_token_alone(style):
    repeated = 0
    for index, drawn in enumerate(scenes("train", 0, 100, style)):
        row = text_row(drawn, random.Random(index))
        assert row.caption in (*short_captions(drawn), long_caption(drawn))
        repeating = {task.name for task in row.tasks if row.caption in task.answers}
        assert repeating <= {"text_summary"}
        repeated += len(repeating)
        sayings = dict(short_sayings(drawn))
        told = [answer for task in row.tasks if task.from_summary for answer in task.answers]
        assert all(sayings[answer] <= sayings[row.caption] for answer in told)
    assert repeated > 50


@STYLES
def test_all_tasks_occur_under_known_names(style):
    names = {
        task.name
        for index, drawn in enumerate(scenes("train", 0, 100, style))
        for make in (image_row, text_row)
        for task in make(drawn, random.Random(index)).tasks
    }
    assert names == set(TASK_NAMES)


def test_one_word_answers_are_the_captions_facts_as_often_as_they_say_them():
    task = summary_task(
        IMAGE_SUMMARY, ["two shapes: a small red circle left of a blue star", "one of them is a red circle top left"]
    )
    counts = Counter({"two": 1, "red": 2, "circle": 2, "left": 2, "small": 1, "blue": 1, "star": 1, "top": 1})
    assert dict(zip(task.answers, task.shares, strict=True)) == {word: count / 11 for word, count in counts.items()}


@STYLES
def test_every_caption_has_a_one_word_answer(style):
    for drawn in scenes("train", 0, 200, style):
        assert all(any(word in FACT_WORDS for word in words_of(caption)) for caption in short_captions(drawn))


@KINDS
def test_a_batch_is_a_function_of_its_step(batcher, kind):
    first, second = (Batcher(batcher.tokenizer, style="varied").batch(kind, 3, 4) for _ in range(2))
    assert torch.equal(first.input_ids, second.input_ids) and torch.equal(first.targets, second.targets)
    later = batcher.batch(kind, 4, 4).input_ids
    assert later.shape != first.input_ids.shape or not torch.equal(later, first.input_ids)


def test_sorted_batches_hold_the_rows_of_one(batcher):
    whole, parts = batcher.batch("image", 0, 9), batcher.batches("image", 0, 9)
    assert [len(part.input_ids) for part in parts] == [5, 4]
    assert sum(part.weights.sum() for part in parts) == pytest.approx(whole.weights.sum().item())
    assert parts[0].input_ids.shape[1] <= parts[1].input_ids.shape[1] == whole.input_ids.shape[1]


@pytest.fixture(scope="module")
def loaded(tokenizer, tmp_path_factory):
    """(model, tokenizer) of a new base, by the public API."""
    directory = tmp_path_factory.mktemp("base")
    save_base(build_model(tokenizer, **SMALL), tokenizer, directory)
    name = f"local-dir:{directory}"
    return vladva_clip.create_model(name)[0], vladva_clip.get_tokenizer(name)


def test_an_image_row_with_its_long_caption_is_the_encoders(batcher, loaded):
    """The second turn behind an empty first answer, as next-token prediction and `generate` lay it out."""
    prompts, tokenize = loaded[0].visual.prompts, loaded[1]
    for one in scenes("train", 0, 8, "varied"):
        batch = batcher.collate([Row(one, None, (Task("image_long", DESCRIBE_LONG, (long_caption(one),)),))])
        (caption,) = tokenize.long_ids([long_caption(one)])
        expected = prompts.continued_batch([torch.tensor(caption)], 64).input_ids
        assert torch.equal(batch.input_ids, expected)
        assert torch.equal(batch.position_ids[0], torch.arange(expected.shape[1]))
        assert batch.targets[2, -1] == tokenize.eot_token_id


def test_a_text_row_begins_as_the_encoders(batcher, loaded):
    for drawn in scenes("train", 0, 40, "varied"):
        for caption in short_captions(drawn):
            tokens = loaded[1]([caption])[0]
            ids = tokens[: (tokens == loaded[1].eot_token_id).nonzero()[0, 0]]
            expected = loaded[0].visual.prompts.text_batch([ids]).input_ids[0]
            assert batcher.prefix_ids(caption) == tuple(expected.tolist())


def test_a_chat_row_is_the_rendered_chat(batcher):
    tokenizer, drawn = batcher.tokenizer, scenes("train", 0, 1)[0]
    row = Row(drawn, None, (Task("image_long", DESCRIBE_LONG, (long_caption(drawn),)),), "chat")
    text = tokenizer.decode([*batcher.collate([row]).input_ids[0], tokenizer.eos_token_id])
    content = [{"type": "image"}, {"type": "text", "text": DESCRIBE_LONG}]
    chat = [{"role": "user", "content": content}, {"role": "assistant", "content": long_caption(drawn)}]
    assert text.replace("<image>" * 64, "<image>") == tokenizer.apply_chat_template(chat, tokenize=False)


@KINDS
def test_targets_follow_their_positions(batcher, kind):
    batch = batcher.batch(kind, 0, 8)
    eos, summary = batcher.tokenizer.eos_token_id, TASK_NAMES.index("one_word")
    for row, column, token, task in batch.targets.T.tolist():
        if token == eos or task == summary:
            continue
        next_position = batch.position_ids[row] == batch.position_ids[row, column] + 1
        at = (batch.tasks[row] == batch.tasks[row, column]) & next_position
        same = batch.answers[row] == batch.answers[row, column]
        follows = at & (same | (batch.answers[row, column] == 0))
        assert token in batch.input_ids[row][follows]


def test_one_word_answers_follow_the_prefix_and_share_one_target(batcher):
    batch = batcher.batch("image", 0, 8)
    summary = (batch.targets[3] == TASK_NAMES.index("one_word")) & (batch.targets[2] != batcher.tokenizer.eos_token_id)
    rows, columns = batch.targets[:2, summary]
    assert (batch.tasks[rows, columns] == 0).all() and (batch.tasks[rows, columns + 1] == 1).all()
    sums = torch.zeros(8).index_add_(0, rows, batch.weights[summary])
    assert set(sums.round(decimals=5).tolist()) <= {0.0, 1.0} and sums.sum() > 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@KINDS
def test_answers_side_by_side_equal_plain_sequences(batcher, model, kind, attention):
    """Every answer computes what transformers' own forward computes for its prefix and prompt alone."""
    model.set_attn_implementation({"text_config": attention})
    batch = batcher.batch(kind, 0, 2)
    with torch.no_grad():
        together = hidden_states(model, batch)[0]
        tasks, answers = batch.tasks[0], batch.answers[0]
        for task, answer in {(t, a) for t, a in zip(tasks.tolist(), answers.tolist(), strict=True) if a > 0}:
            chosen = (tasks == 0) | ((tasks == task) & ((answers == 0) | (answers == answer)))
            pixels = None if kind == "text" else batch.pixel_values[:1]
            alone = model(
                input_ids=batch.input_ids[:1, chosen], pixel_values=pixels, output_hidden_states=True
            ).hidden_states[-1][0]
            torch.testing.assert_close(together[chosen], alone, atol=1e-5, rtol=1e-4)


@KINDS
def test_an_answer_from_the_summary_sees_one_token_of_its_prefix(batcher, model, kind):
    """What transformers computes behind one input embedding: the last state of transformers' own row, as it is read."""
    batch, reader, seen = batcher.batch(kind, 0, 6), SummaryReader(SMALL["hidden_size"]), 0
    embed = model.get_input_embeddings()
    with torch.no_grad():
        (_, _), (behind, losses) = all_losses(model, reader, batch, hidden_states(model, batch))
        for place, row in enumerate(batch.behind_rows.tolist()):
            pixels = None if kind == "text" else batch.pixel_values[row : row + 1]
            prefix = batch.input_ids[row : row + 1, batch.tasks[row] == 0]
            states = model(input_ids=prefix, pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
            for task in set(behind.tasks[place].tolist()) - {0, PADDING}:
                chosen = (behind.tasks[place] == task) & (behind.answers[place] <= 1)
                ids = behind.input_ids[place : place + 1, chosen]
                inputs = torch.cat([reader(states[:, -1]), embed(ids)], dim=1)
                logits = model(inputs_embeds=inputs).logits[0]
                where = {column: at for at, column in enumerate(chosen.nonzero()[:, 0].tolist(), start=1)}
                for index, (its, column, token, _) in enumerate(behind.targets.T.tolist()):
                    if its == place and column in where:
                        expected = -logits[where[column]].log_softmax(-1)[token]
                        assert losses[index] == pytest.approx(expected.item(), abs=1e-4)
                        seen += 1
    assert seen > 40 and behind.input_ids.eq(batcher.prompts.visual_slot).sum(1).eq(1).all()


@KINDS
def test_tasks_from_the_summary_stand_behind_it_alone(batcher, kind):
    batch = batcher.batch(kind, 0, 12)
    names = {TASK_NAMES[number] for number in batch.behind.targets[3].tolist()}
    assert names == {f"{kind}_summary"} and batch.behind.behind is None and batch.behind.modality == kind
    assert not {TASK_NAMES[number] for number in batch.targets[3].tolist()} & names
    last = batch.input_ids[torch.arange(12), batch.summary]
    assert (batch.tasks[torch.arange(12), batch.summary] == 0).all()
    assert (last[batch.behind_rows] == batcher.prefix_ids("a cat")[-1]).all()  # the encoder's summary token


@pytest.mark.parametrize("kind", ["image", "text", "caption"])
def test_each_summary_token_is_asked_for_the_bindings_of_its_prefix(batcher, kind):
    rows = batcher._rows(kind, 0, 12)
    row, column, truth = batcher.collate(rows).bound
    for number, one in enumerate(rows):
        asked = list(zip(column[row == number].tolist(), truth[row == number].tolist(), strict=True))
        assert asked == (labels(_told(one), facts(one.scene)) if one.form == "summary" else [])
    assert len(row) > 40 and 0.2 < truth.float().mean() < 0.8


def _told(row):
    return facts(row.scene) if row.claims is None else row.claims


def test_captions_with_nothing_behind_are_rows_of_the_encoder(batcher):
    rows = batcher._rows("caption", 0, 8)
    batch = batcher.collate(rows)
    assert batch.targets.shape == (4, 0) and batch.behind is None and batch.modality == "text"
    for ids, one in zip(batch.input_ids, rows, strict=True):
        prefix = batcher.prefix_ids(one.caption)
        assert (
            tuple(ids[: len(prefix)].tolist()) == prefix
            and (ids[len(prefix) :] == batcher.tokenizer.pad_token_id).all()
        )
        assert one.claims is None or one.claims <= facts(one.scene)


def test_padding_is_marked(batcher):
    batch = batcher.batch("text", 0, 8)
    padding = batch.tasks == PADDING
    assert padding.any() and torch.equal(padding, batch.input_ids == batcher.tokenizer.pad_token_id)
