"""The tokenizer of vladva-tiny: round trips, single-token words, borders, caption lengths."""

import re

import pytest

from vladva_clip.scenes import (
    COLORS,
    PLACES,
    SHAPES,
    SIZES,
    STYLES,
    foils,
    hard_negatives,
    long_caption,
    scenes,
    short_captions,
)
from vladva_training.tiny.model import VOCABULARY_ROWS
from vladva_training.tiny.tasks import IMAGE_SUMMARY, TEXT_SUMMARY, all_texts
from vladva_training.tiny.tokenizer import MAX_TOKENS, train_tokenizer


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    "text",
    ["a red circle", "  two  spaces", "Größe 東京 🙂", "tab\tand\nnewline", "", "USER: x", "a" * 300, "it's 3.5%"],
)
def test_any_text_round_trips(tokenizer, text):
    assert tokenizer.decode(ids(tokenizer, text)) == text


def test_vocabulary_leaves_rows_free(tokenizer):
    assert len(tokenizer) <= MAX_TOKENS < VOCABULARY_ROWS


def test_training_is_repeatable(tokenizer):
    assert train_tokenizer(all_texts()).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("word", [*COLORS, *SHAPES, *SIZES, "yes", "no"])
def test_a_word_of_the_world_is_one_token_at_the_start_and_inside(tokenizer, word):
    assert len(ids(tokenizer, word)) == len(ids(tokenizer, f" {word}")) == 1


def test_a_text_starts_with_bos_and_special_tokens_are_distinct(tokenizer):
    assert tokenizer("red").input_ids[0] == tokenizer.bos_token_id
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert len(special | {tokenizer.convert_tokens_to_ids("<image>")}) == 4


@pytest.mark.parametrize("question", [IMAGE_SUMMARY, "Describe the image in detail."])
def test_the_rendered_image_prompt_has_the_ids_of_its_pieces(tokenizer, question):
    content = [{"type": "image"}, {"type": "text", "text": question}]
    chat = [{"role": "user", "content": content}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert rendered == f"<s>USER: <image>\n{question} ASSISTANT:"
    pieces = ("<s>", "USER: ", "<image>", f"\n{question} ASSISTANT:")
    assert ids(tokenizer, rendered) == [i for piece in pieces for i in ids(tokenizer, piece)]


def test_an_answer_tokenized_alone_follows_the_rendered_prompt(tokenizer):
    prompt, answer = f"\n{TEXT_SUMMARY} ASSISTANT:", " A large red circle on the left."
    assert ids(tokenizer, prompt + answer) == ids(tokenizer, prompt) + ids(tokenizer, answer)


def test_a_chat_with_an_answer_is_rendered_as_trained(tokenizer):
    content = [{"type": "image"}, {"type": "text", "text": IMAGE_SUMMARY}]
    chat = [{"role": "user", "content": content}, {"role": "assistant", "content": "red"}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False)
    assert rendered == f"<s>USER: <image>\n{IMAGE_SUMMARY} ASSISTANT: red</s>"


def test_caption_lengths_are_the_recipes(tokenizer):
    for drawn in (*scenes("test", 0, 80), *scenes("heldout", 0, 80)):
        assert 30 <= len(ids(tokenizer, long_caption(drawn))) <= 500
        foil_captions = [caption for pair in foils(drawn).values() for caption in pair]
        assert all(len(ids(tokenizer, caption)) < 30 for caption in (*short_captions(drawn), *foil_captions))


@pytest.mark.parametrize("style", STYLES)
def test_captions_have_one_token_per_word(tokenizer, style):
    for drawn in (*scenes("test", 0, 200, style), *scenes("heldout", 0, 40, style)):
        for caption in (*short_captions(drawn), *hard_negatives(drawn), long_caption(drawn)):
            assert len(ids(tokenizer, f" {caption}")) == len(re.findall(r"\w+|[^\w\s]", caption)), caption


def test_places_are_in_the_vocabulary(tokenizer):
    assert all(len(ids(tokenizer, f" {place}")) == len(place.split()) for place in PLACES)
