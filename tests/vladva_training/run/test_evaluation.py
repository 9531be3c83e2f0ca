"""Evaluation while training: figures equal those worked out by other means, and the run does not notice."""

import logging
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

import vladva_clip
from tests.support.adapters import with_lora
from tests.support.samples import picture
from tests.support.saying_truth import Reading
from vladva_clip.metrics import foil_accuracy, recall_at_k
from vladva_clip.records.records import BadRecord, Record
from vladva_clip.scenes import scenes, short_captions
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.specs import open_source
from vladva_training.run.evaluation import (
    RECALLS,
    evaluate,
    evaluating,
    long_caption_loss,
    matches,
    telling_recalls,
    true_images,
)

LONG = "a red circle left of a blue square on a green dog below the cat " * 4


class Records:
    """A list of records as a source; a string stands for a bad one."""

    name = "records in memory"

    def __init__(self, *records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        if isinstance(self.records[index], str):
            raise BadRecord("corrupt image", self.records[index])
        return self.records[index]

    def captions(self, index):
        return self[index].captions


def record(number, captions, foils=()):
    return Record(f"record {number}", picture(number), captions, foils)


RECORDS = (
    record(0, ("a red circle", "the circle is red", LONG), ("a blue circle", "a red square")),
    record(1, ("a blue square left of a dog",), ("a dog left of a blue square",)),
    record(2, ("a red circle", "a cat"), ()),
    record(3, (LONG, "a green dog"), ()),
)


@pytest.fixture
def trained(base):
    """A model with random, unmerged LoRA and dropout, in train mode, as the trainer has it."""
    model, preprocess = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{base}")
    return with_lora(model, dropout=0.5).train(), CaptionSplitter(tokenizer, short_max_tokens=20), preprocess, tokenizer


def test_recall_and_foils_are_those_of_the_model_in_eval_mode(trained):
    model, splitter, preprocess, tokenizer = trained
    figures = evaluate(model, Records(*RECORDS), splitter, preprocess, 10)
    model.eval()
    images = model.encode_image(torch.stack([preprocess(one.image) for one in RECORDS]), normalize=True)
    shorts = [[caption for caption in one.captions if caption != LONG] for one in RECORDS]
    queries = [caption for captions in shorts for caption in captions]
    similarity = model.encode_text(tokenizer(queries), normalize=True) @ images.T
    positives = torch.tensor([[query in captions for captions in shorts] for query in queries])
    assert int(positives.sum()) == 8  # "a red circle" is a caption of two images, and asked twice
    expected = {"text_to_image_R@1": recall_at_k(similarity, positives, 1)}  # of four images
    expected |= {f"image_to_text_R@{k}": recall_at_k(similarity.T, positives.T, k) for k in (1, 5)}  # of six texts
    assert {name: figure for name, figure in figures.items() if "R@" in name} == expected
    true, false = [], []
    for image, (captions, one) in enumerate(zip(shorts, RECORDS, strict=True)):
        for caption in captions:
            for foil in one.hard_negatives:
                true.append(similarity[queries.index(caption), image])
                false.append(model.encode_text(tokenizer([foil]), normalize=True)[0] @ images[image])
    assert len(true) == 5
    assert figures["foils"] == foil_accuracy(torch.stack(true), torch.stack(false))
    assert figures["records"] == 4


def test_the_next_token_loss_is_the_mean_over_the_tokens_of_all_long_captions(trained):
    model, splitter, preprocess, _ = trained
    figures = evaluate(model, Records(*RECORDS), splitter, preprocess, 10)
    (long,) = splitter.split([LONG]).long
    pixels = torch.stack([preprocess(RECORDS[row].image) for row in (0, 3)])
    with evaluating(model):
        nats, tokens = long_caption_loss(model, pixels, [torch.tensor(long)] * 2)
    assert tokens == 2 * (len(long) + 1)
    assert figures["ntp_loss"] == pytest.approx(nats / tokens, rel=1e-5)


def test_the_next_token_loss_is_what_transformers_own_forward_gives(bases):
    model, preprocess = vladva_clip.create_model(f"local-dir:{bases['llava']}", precision="fp32")
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{bases['llava']}")
    captions = [torch.tensor(ids) for ids in tokenizer.ids(["a red circle", "the dog is on the small blue square"])]
    pixels = torch.stack([preprocess(picture(number)) for number in range(2)])
    prompts = model.visual.prompts
    prompt = torch.tensor([*prompts.image_row(model.visual.num_visual_tokens), *prompts.second_turn])
    expected = 0.0
    for image, caption in zip(pixels, captions, strict=True):
        answer = torch.cat([caption, torch.tensor([tokenizer.eot_token_id])])
        ids = torch.cat([prompt, answer])[None]
        labels = torch.cat([torch.full_like(prompt, -100), answer])[None]
        loss = model.visual.backbone.lvlm(input_ids=ids, pixel_values=image[None], labels=labels).loss
        expected += loss.item() * len(answer)
    nats, tokens = long_caption_loss(model, pixels, captions)
    assert tokens == sum(map(len, captions)) + 2
    assert nats == pytest.approx(expected, rel=1e-5)


def test_the_next_token_loss_does_not_depend_on_batch_micro_batch_or_chunk(model, preprocess):
    captions = [torch.arange(5, 5 + length) for length in (3, 9, 6)]
    pixels = torch.stack([preprocess(picture(number)) for number in range(3)])
    rows = list(zip(pixels.split(1), captions, strict=True))
    alone = sum(long_caption_loss(model, image, [caption])[0] for image, caption in rows)
    assert long_caption_loss(model, pixels, captions, chunk=4)[0] == pytest.approx(alone, rel=1e-5)
    model.visual.micro_batch_tokens = 1
    try:
        assert long_caption_loss(model, pixels, captions)[0] == pytest.approx(alone, rel=1e-5)
    finally:
        model.visual._micro_batch_tokens = None
    with pytest.raises(ValueError, match="3 images for 2 long captions"):
        long_caption_loss(model, pixels, captions[:2])


def test_a_run_does_not_notice_that_it_was_measured(trained):
    model, splitter, preprocess, _ = trained
    frozen = model.visual.backbone.vision_tower
    frozen.eval()  # a mode of its own
    modes = [module.training for module in model.modules()]

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    undisturbed = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    first = evaluate(model, Records(*RECORDS), splitter, preprocess, 10)
    assert draw() == undisturbed
    assert [module.training for module in model.modules()] == modes and not frozen.training
    assert torch.is_grad_enabled()
    assert evaluate(model, Records(*RECORDS), splitter, preprocess, 10) == first


def test_modes_and_generators_come_back_from_an_error_too(trained):
    model, splitter, preprocess, _ = trained
    state = torch.get_rng_state()

    class Broken(Records):
        def __getitem__(self, index):
            torch.rand(3)
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        evaluate(model, Broken(*RECORDS), splitter, preprocess, 10)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())


def test_a_bad_record_gives_way_to_the_next_and_is_counted(trained, caplog):
    model, splitter, preprocess, _ = trained
    source = Records("broken.jpg", RECORDS[0], record(9, ("",)), RECORDS[1], RECORDS[2])
    with caplog.at_level(logging.WARNING):
        figures = evaluate(model, source, splitter, preprocess, 2)
    assert figures == evaluate(model, Records(*RECORDS[:2]), splitter, preprocess, 2)
    assert "2 bad records" in caplog.text and "broken.jpg: corrupt image" in caplog.text


def test_what_the_records_have_nothing_for_is_absent(trained):
    model, splitter, preprocess, _ = trained
    assert set(evaluate(model, Records(record(0, (LONG,))), splitter, preprocess, 5)) == {"ntp_loss", "records"}
    only_short = evaluate(model, Records(record(0, ("a cat",))), splitter, preprocess, 5)
    assert {"ntp_loss", "foils"}.isdisjoint(only_short) and only_short["records"] == 1


def test_a_source_without_a_usable_record_is_refused(trained):
    model, splitter, preprocess, _ = trained
    with pytest.raises(ValueError, match="records in memory: none of its 2 records"):
        evaluate(model, Records("one.jpg", "two.jpg"), splitter, preprocess, 5)


def test_the_embedded_scenes_are_measured_with_their_foils():
    model, preprocess = vladva_clip.create_model("vladva-tiny", "base", precision="fp32")
    splitter = CaptionSplitter(vladva_clip.get_tokenizer("vladva-tiny"))
    figures = evaluate(model, open_source("scenes:test:8"), splitter, preprocess, 8)
    names = set(RECALLS) - {"text_to_image_R@10"}  # there are eight images and forty captions
    assert set(figures) == names | {"foils", "ntp_loss", "records"}
    assert 0.9 < figures["foils"] <= 1 and 0 < figures["ntp_loss"] < 0.5


@pytest.mark.parametrize(("images", "reported"), [(1, (1,)), (5, (1,)), (6, (1, 5)), (10, (1, 5)), (11, (1, 5, 10))])
def test_a_recall_that_no_model_could_miss_is_left_out(images, reported):
    """The nearest of all is wrong for each query, the next ones are more and more so."""
    similarity = -torch.eye(images) if images > 1 else torch.ones(1, 1)
    found = telling_recalls(similarity, torch.eye(images).bool())
    assert found == {f"{way}_R@{k}": float(images == 1) for way in ("text_to_image", "image_to_text") for k in reported}
    two_each = telling_recalls(similarity.repeat_interleave(2, dim=0), torch.eye(images).bool().repeat_interleave(2, 0))
    assert {name for name in two_each if "image_to_text" in name} == {
        f"image_to_text_R@{k}" for k in (1, 5, 10) if k == 1 or k < 2 * images
    }


def test_rows_of_one_picture_are_measured_as_one_record_with_all_captions(trained):
    model, splitter, preprocess, _ = trained
    whole = [record(n, (f"a red circle {n}", f"the dog {n}", f"a cat {n}"), ("a blue dog", "a cat")) for n in range(7)]
    rows = [record(n, (text,), one.hard_negatives) for n, one in enumerate(whole) for text in one.captions]
    expected = evaluate(model, Records(*whole), splitter, preprocess, 10)
    found = evaluate(model, Records(*rows[::2], *rows[1::2]), splitter, preprocess, 100)
    assert (expected.pop("records"), found.pop("records")) == (7, 21)
    assert found == pytest.approx(expected) and found["text_to_image_R@5"] > 0


def test_a_foil_that_is_a_caption_of_the_picture_is_left_out(trained):
    model, splitter, preprocess, _ = trained
    rows = record(0, ("a cat",), ("the dog",)), record(0, ("the dog",), (" a  cat", "the dog"))
    assert "foils" not in evaluate(model, Records(*rows), splitter, preprocess, 5)


def test_a_text_matches_every_image_that_has_it():
    found = matches(["a", "b", "c"], [("a", "b"), (), ("a",)])
    assert found.tolist() == [[True, False, True], [True, False, False], [False, False, False]]


@pytest.mark.parametrize(("split", "style"), [("validation", "varied"), ("heldout", "classic")])
def test_a_caption_of_a_drawn_scene_is_right_for_every_picture_of_which_it_is_true(split, style):
    """An independent reader of the captions decides what is true."""
    model, preprocess = vladva_clip.create_model("vladva-tiny", "base", precision="fp32")
    tokenizer, drawn = vladva_clip.get_tokenizer("vladva-tiny"), scenes(split, 0, 16, style)
    splitter = CaptionSplitter(tokenizer)
    source = open_source(f"scenes:{split}:16" + (":varied" if style == "varied" else ""))
    figures = evaluate(model, source, splitter, preprocess, 16)
    shorts = [splitter.split(short_captions(one)).short_texts for one in drawn]
    queries = [text for own in shorts for text in own]
    right = torch.tensor([[Reading(text).true_of(one) for one in drawn] for text in queries])
    images = model.encode_image(torch.stack([preprocess(one.draw()) for one in drawn]), normalize=True)
    similarity = (model.encode_text(tokenizer(queries), normalize=True) @ images.T).detach()
    for k in (1, 5, 10):
        assert figures[f"text_to_image_R@{k}"] == pytest.approx(recall_at_k(similarity, right, k))
        assert figures[f"image_to_text_R@{k}"] == pytest.approx(recall_at_k(similarity.T, right.T, k))
    own = torch.tensor([[text in of_one for of_one in shorts] for text in queries])
    assert figures["text_to_image_R@1"] > recall_at_k(similarity, own, 1)


def test_a_foil_that_is_true_by_the_facts_is_left_out_whichever_row_of_the_picture_knows_them(trained):
    model, splitter, preprocess, _ = trained
    false, true = frozenset({"a dog"}), frozenset({"a cat"})
    row = replace(record(0, ("a thing",), ("the cat ", "the dog")), claims={"the cat ": true, "the dog": false})
    other = replace(record(0, ("a thing",)), facts=true)
    only_false = record(0, ("a thing",), ("the dog",))
    known = evaluate(model, Records(row, other), splitter, preprocess, 5)
    assert known["foils"] == evaluate(model, Records(only_false), splitter, preprocess, 5)["foils"]
    assert "foils" not in evaluate(model, Records(replace(row, facts=true | false)), splitter, preprocess, 5)
    assert evaluate(model, Records(row), splitter, preprocess, 5)["foils"] in (0, 0.5, 1)


def test_texts_are_true_of_the_images_that_have_all_their_claims():
    claims = [{"a"}, {"a", "b"}, {"c"}, (), {"a", "d"}]
    assert true_images(claims, [{"a"}, set(), {"a", "b", "d"}]) == [[0, 2], [2], [], [], [2]]
