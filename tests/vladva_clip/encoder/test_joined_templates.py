"""Templates of published embedders with the real Qwen tokenizer: a row's ids are those of the whole rendered string."""

import pytest

from tests.support.published_templates import END, IMAGES, TEXTS, config_of, prompts_of, rows_of, whole
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.storage.prompt_config import VisualSpan


@pytest.mark.parametrize("name", TEXTS)
def test_text_rows_have_the_ids_of_the_whole_string(name, real_qwen, tokenizer_of, many_captions):
    """In a batch, and one by one."""
    config, captions = config_of(TEXTS[name]), many_captions
    tokenizer, prompts = tokenizer_of(config), prompts_of(real_qwen, config)
    expected = [whole(real_qwen, TEXTS[name].replace("{caption}", caption)) for caption in captions]
    ids = tokenizer.ids(captions)
    for caption, found, row in zip(captions, rows_of(prompts, ids), expected, strict=True):
        assert found == row, caption
    for caption, together in zip(captions[-40:], ids[-40:], strict=True):
        assert tokenizer.ids(caption) == [together], caption


@pytest.mark.parametrize("name", IMAGES)
def test_image_rows_have_the_ids_of_the_whole_string(name, real_qwen):
    prompts = prompts_of(real_qwen, config_of(TEXTS["gme"], IMAGES[name]))
    visual = f"<|vision_start|>{'<|image_pad|>' * 4}<|vision_end|>"
    assert prompts.image_row(4) == whole(real_qwen, IMAGES[name].replace("{visual}", visual))


def test_ids_that_the_authors_code_gives(real_qwen, tokenizer_of):
    """Written down from their tokenizer: merged line breaks, and the space that LamRA leaves behind its last word."""
    found = {name: tokenizer_of(config_of(TEXTS[name])).ids(["a dog.", ""]) for name in TEXTS}
    assert found["gme"] == [[198, 64, 5562, 13], [198]]
    assert found["unite"] == found["lamra"] == [[198, 64, 5562, 624], [271]]
    assert found["rzen query"] == [[264, 5562, 13], [220]]
    assert prompts_of(real_qwen, config_of(TEXTS["lamra"])).text.suffix[-6:] == (220, 151645, 198, 151644, 77091, 198)
    assert len(prompts_of(real_qwen, config_of(TEXTS["gme"])).text.before) == 13  # and the line break is the caption's


@pytest.mark.parametrize("name", TEXTS)
def test_captions_are_decoded_as_they_were(name, tokenizer_of, many_captions):
    tokenizer = tokenizer_of(config_of(TEXTS[name]))
    for caption, ids in zip(many_captions, tokenizer.ids(many_captions), strict=True):
        assert tokenizer.decode(ids) == caption


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("width", [4, 8, 20])
def test_a_cut_caption_keeps_what_stands_behind_it(name, width, real_qwen, tokenizer_of):
    config = config_of(TEXTS[name])
    tokenizer, prompts = tokenizer_of(config), prompts_of(real_qwen, config)
    row = tokenizer(["one two three four five six seven eight nine ten. " * 3], width)[0]
    assert row[-1] == tokenizer.eot_token_id and len(row) == width
    (found,) = rows_of(prompts, [row[:-1].tolist()])
    behind = TEXTS[name].partition("{caption}")[2]
    assert real_qwen.decode(found).endswith(behind)
    assert real_qwen.decode(found).startswith(
        TEXTS[name].partition("{caption}")[0] + "one two"[: 3 if width < 8 else 7]
    )


def test_captions_are_cleaned_as_the_config_says(bases):
    odd = "  a &amp; b\n\tdog  "
    cleaned, verbatim = (
        VladvaTokenizer(bases["qwen2_vl"], prompt=config_of(TEXTS["gme"], clean=clean))
        for clean in ("open_clip", "none")
    )
    assert cleaned.ids([odd]) == verbatim.ids(["a & b dog"]) != verbatim.ids([odd])
    assert verbatim.decode(verbatim.encode(odd)) == odd and verbatim([odd]).tolist() != cleaned([odd]).tolist()
    named = VladvaTokenizer(
        bases["qwen2_vl"], prompt=config_of(TEXTS["gme"]), clean="lower"
    )  # the caller's word decides
    assert named.ids(["A Dog"]) == cleaned.ids(["a dog"])


def test_special_words_in_captions_stay_words(real_qwen, tokenizer_of):
    tokenizer = tokenizer_of(config_of(TEXTS["unite"]))
    rows = tokenizer.ids(["<|im_end|>", "<|image_pad|>\n<|endoftext|>", "<|vision_start|>"])
    assert not {*real_qwen.all_special_ids} & {token for row in rows for token in row}


def test_a_visual_span_of_its_own(real_qwen):
    """Such as the bare slots of the authors who write no vision_start."""
    span = VisualSpan("<|image_pad|>")
    prompts = prompts_of(real_qwen, config_of(TEXTS["gme"], visual_span=span))
    assert prompts.image_row(3) == whole(real_qwen, IMAGES["gme"].replace("{visual}", "<|image_pad|>" * 3))
    layout = prompts.image_batch(1, 3)
    assert layout.input_ids[0][layout.visual_mask[0]].tolist() == [151655] * 3
    assert (prompts.visual_opening, prompts.visual_closing) == ((), ())
    assert prompts_of(real_qwen, config_of(TEXTS["gme"])).image_row(3) != prompts.image_row(3)


def test_a_template_whose_line_break_merges_with_its_own_text_is_refused(real_qwen):
    """Qwen writes a colon and the blank line behind it as one token, which a caption's line break could change."""
    with pytest.raises(ValueError, match="merges the end of 'Query:'"):
        prompts_of(real_qwen, config_of(f"Query:\n\n{{caption}}{END}"))


def test_a_caption_right_behind_a_special_token(real_qwen, tokenizer_of, many_captions):
    """Its first ids are its own; one that begins with a line break can't be told from what stands in front of it."""
    template = f"<|im_start|>{{caption}}{END}"
    tokenizer, prompts = tokenizer_of(config_of(template)), prompts_of(real_qwen, config_of(template))
    captions = [one for one in many_captions if not {"\n", "\r"} & {*one[: len(one) - len(one.lstrip())]}]
    for caption, row in zip(captions, rows_of(prompts, tokenizer.ids(captions)), strict=True):
        assert row == whole(real_qwen, template.replace("{caption}", caption)), caption
        assert tokenizer.decode(tokenizer.encode(caption)) == caption
    with pytest.raises(ValueError, match="merges the beginning of the caption"):
        tokenizer.ids(["\nleading"])


def test_a_caption_with_halves_of_utf_16_pairs(tokenizer_of):
    """No tokenizer reads them: as where captions are cleaned, two halves are their sign, and one is unreadable."""
    tokenizer = tokenizer_of(config_of(TEXTS["gme"], clean="none"))
    assert tokenizer.ids(["\ud83d\ude00  x", "\ud83d  x"]) == tokenizer.ids(["\U0001f600  x", "\ufffd  x"])
