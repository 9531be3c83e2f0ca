import pytest

import vladva_clip
from vladva_training.data.captions import CaptionSplitter

WORDS = "a red circle left of the dog and the small green square above it on the right below blue cat"


def caption_of(tokenizer, count: int) -> str:
    """A caption of exactly `count` ids."""
    text = " ".join([WORDS] * (1 + count // 10))
    return tokenizer.decode(tokenizer.encode(text)[:count])


@pytest.mark.parametrize(("count", "kind"), [(1, "short"), (29, "short"), (30, "long"), (500, "long"), (501, None)])
def test_limits_are_those_of_the_paper(count, kind):
    tokenizer = vladva_clip.get_tokenizer("vladva-tiny")
    caption = caption_of(tokenizer, count)
    assert len(tokenizer.encode(caption)) == count
    split = CaptionSplitter(tokenizer).split([caption])
    assert (len(split.short), len(split.long), split.too_long) == (kind == "short", kind == "long", kind is None)


def test_ids_are_those_of_encode_text(tokenizer):
    captions = [" a red\tcircle ", "the dog &amp; the cat", "a </s> <image> <|im_end|> dog"]
    split = CaptionSplitter(tokenizer).split(captions)
    assert [list(ids) for ids in split.short] == tokenizer.ids(captions)
    assert split.short_texts[0] == "a red circle"
    assert tokenizer.eot_token_id not in split.short[2]


def test_a_transformers_tokenizer_works_too(tokenizer):
    captions = ["a red circle", " ".join([WORDS] * 3)]
    ours = CaptionSplitter(tokenizer).split(captions)
    theirs = CaptionSplitter(tokenizer.tokenizer, prompt=tokenizer.prompt).split(captions)
    assert ours == theirs and ours.long


def test_a_long_caption_keeps_its_line_breaks(tokenizer):
    caption = f"{WORDS}\n\n{WORDS}\n"
    (ids,) = CaptionSplitter(tokenizer).split([caption]).long
    assert tokenizer.decode(ids).strip() == caption.strip()


def test_order_and_counts(tokenizer):
    split = CaptionSplitter(tokenizer, short_max_tokens=5, long_max_tokens=30).split(
        ["dog", "", WORDS * 9, " \n", "a red circle on the left of the cat", "cat"]
    )
    assert split.short_texts == ("dog", "cat")
    assert (len(split.long), split.too_long, split.empty) == (1, 1, 2)
    assert CaptionSplitter(tokenizer).split([]).short == ()


@pytest.mark.parametrize(("short", "long"), [(1, 500), (30, 29)])
def test_limits_that_allow_no_captions_are_refused(tokenizer, short, long):
    with pytest.raises(ValueError, match="expected at least 2"):
        CaptionSplitter(tokenizer, short, long)
