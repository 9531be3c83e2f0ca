"""Rows from literal strings, with the real Llama and Qwen tokenizers: their ids are those of the whole string."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from tests.support.models import layouts, llama
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.prompts import Prompts
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.storage.config import PromptConfig
from vladva_training.data.captions import CaptionSplitter

IMAGE, TEXT = "Summarize the provided image in one word:", "Summarize the provided text in one word:"
ASK = "Describe the image in detail."
LONG = "The picture shows two dogs.\n\nBoth of them run."
VISUAL = {"llava": "<image>" * 4, "qwen2_vl": f"<|vision_start|>{'<|image_pad|>' * 4}<|vision_end|>"}
IMAGE_ROWS = {
    "llava": f"USER: {IMAGE} {VISUAL['llava']} ASSISTANT:",
    "qwen2_vl": f"<|im_start|>user\n{IMAGE} {VISUAL['qwen2_vl']}<|im_end|>\n<|im_start|>assistant\n",
}
TEXT_ROWS = {
    "llava": f"USER: {TEXT} CAPTION ASSISTANT:",
    "qwen2_vl": f"<|im_start|>user\n{TEXT} CAPTION<|im_end|>\n<|im_start|>assistant\n",
}
TURNS = {
    "llava": f"</s>USER: {ASK} ASSISTANT: {LONG}</s>",
    "qwen2_vl": f"<|im_end|>\n<|im_start|>user\n{ASK}<|im_end|>\n<|im_start|>assistant\n{LONG}<|im_end|>",
}


@pytest.fixture(scope="module", params=["llava", "qwen2_vl"])
def family(request):
    return backbone_class(request.param)


@pytest.fixture(scope="module")
def directory(family, shared_data, tmp_path_factory):
    if family.family == "qwen2_vl":
        return shared_data / "tokenizers" / "qwen2_vl"
    place = tmp_path_factory.mktemp("llama")
    llama.llava_tokenizer(shared_data, place)
    return place


@pytest.fixture(scope="module")
def real(directory):
    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def ours(directory, family):
    return VladvaTokenizer(directory, prompt=family.prompt_config())


@pytest.fixture(scope="module")
def prompts(real, family):
    return build(real, family, family.prompt_config())


@pytest.fixture(scope="module")
def captions(shared_data):
    rows = json.loads((shared_data / "data" / "sugarcrepe" / "swap_att.json").read_text()).values()
    found = [row[key] for row in rows for key in ("caption", "negative_caption")][:200]
    assert len(found) == 200
    return found


def build(tokenizer, family, config: PromptConfig) -> Prompts:
    return Prompts.build(tokenizer, config, family.visual_span, family.starts_with_bos)


def whole(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def whole_row(tokenizer, family, text: str) -> list[int]:
    """The ids of a whole row's string. LLaVA's processor puts BOS in front of it."""
    return [*([tokenizer.bos_token_id] if family.starts_with_bos else []), *whole(tokenizer, text)]


def long_ids(ours, real) -> torch.Tensor:
    return torch.tensor([*ours.long_ids(LONG)[0], real.eos_token_id])


def test_text_rows_have_the_ids_of_the_whole_string(family, real, ours, prompts, captions):
    captions = [" ".join(caption.split()) for caption in captions] + ["42 dogs", "(left) of it", "«été»", "it's"]
    rows = [torch.tensor(ids) for ids in ours.ids(captions)]
    batch = prompts.text_batch(rows)
    for caption, ids, last in zip(captions, batch.input_ids.tolist(), batch.summary_index.tolist(), strict=True):
        assert ids[: last + 1] == whole_row(real, family, TEXT_ROWS[family.family].replace("CAPTION", caption)), caption
        assert not any(ids[last + 1 :])


def test_a_line_break_behind_a_caption_is_in_its_ids(family, real, directory):
    """Qwen writes a full stop and the line break behind it as one token."""
    config = layouts.content_first(family.family)
    ours, prompts = VladvaTokenizer(directory, prompt=config), build(real, family, config)
    assert config.caption_place.behind == "\n"
    for caption in ("a dog.", "a dog", "what?", "(left) of it", "42", "«été»", "it's"):
        ids = ours.ids([caption])[0]
        row = whole_row(real, family, config.rendered("text").replace("{caption}", caption))
        assert [*prompts.text.before, *ids, *prompts.text.suffix] == row, caption
        assert ours.decode(ids) == caption
        assert [list(short) for short in CaptionSplitter(ours).split([caption]).short] == [ids]
    assert ours.ids([""]) == [[]]


def test_the_export_lays_out_the_same_text_rows(prompts, ours):
    tokens = ours(["a red circle", "", "a dog on a very long and narrow sofa"], context_length=12)
    captions = [row[: (row == ours.eot_token_id).nonzero()[0, 0]] for row in tokens]
    expected, found = prompts.text_batch(captions), prompts.whole_text_batch(tokens)
    width = expected.input_ids.shape[1]
    for name in ("input_ids", "soft_mask"):
        assert torch.equal(getattr(found, name)[:, :width], getattr(expected, name))
        assert not getattr(found, name)[:, width:].any()
    assert torch.equal(found.summary_index, expected.summary_index)


def test_image_rows_have_the_ids_of_the_whole_string(family, real, prompts):
    assert prompts.image_row(4) == whole_row(real, family, IMAGE_ROWS[family.family])


def test_next_token_rows_have_the_ids_of_the_whole_string(family, real, ours, prompts):
    """One by one and in a batch; the summary token, and the token that predicts the first word, are where they were."""
    row = whole_row(real, family, IMAGE_ROWS[family.family])
    expected, caption = whole_row(real, family, IMAGE_ROWS[family.family] + TURNS[family.family]), long_ids(ours, real)
    assert prompts.continued_batch([caption], 4).input_ids[0].tolist() == expected
    batch = prompts.continued_batch([None, caption, caption[:3]], 4)
    assert batch.input_ids[0].tolist() == row + [0] * (len(expected) - len(row))
    assert batch.input_ids[1].tolist() == expected
    assert batch.input_ids[2].tolist() == expected[: 3 - len(caption)] + [0] * (len(caption) - 3)
    assert batch.summary_index.tolist() == [len(row) - 1] * 3
    assert len(row) + len(prompts.second_turn) + len(caption) == len(expected)


def test_asking_for_a_caption_is_the_training_row_up_to_it(family, real, ours, prompts):
    caption = long_ids(ours, real)
    asked = prompts.continued_batch([caption[:0]], 4).input_ids[0].tolist()
    assert asked == prompts.continued_batch([caption], 4).input_ids[0, : -len(caption)].tolist()
    turn = TURNS[family.family].partition(LONG)[0].rstrip(" ")
    assert asked == whole_row(real, family, IMAGE_ROWS[family.family] + turn)


def test_the_hand_written_prompt_alone_is_soft(real, prompts):
    for side, prompt in (("image", IMAGE), ("text", TEXT)):
        assert real.decode(getattr(prompts, side).soft_ids).strip() == prompt
    row, layout = prompts.image_row(4), prompts.image_batch(1, 4)
    assert [row[place] for place in layout.soft_mask[0].nonzero()[:, 0]] == list(prompts.image.soft_ids)
    text = prompts.text_batch([torch.tensor([5, 6])])
    assert text.input_ids[0][text.soft_mask[0]].tolist() == list(prompts.text.soft_ids)


def test_either_order_with_either_choice_of_slots(real, family):
    first = family.prompt_config()
    behind = replace(
        first,
        image_template="USER: {visual}\n{prompt} ASSISTANT:",
        text_template="USER: {caption}\n{prompt} ASSISTANT:",
    )
    for config in (first, behind):
        narrow, wide = (build(real, family, replace(config, soft_slots=kind)) for kind in ("prompt", "template"))
        assert narrow.image.ids == wide.image.ids and narrow.text.ids == wide.text.ids
        assert wide.image.soft_ids == wide.image.ids and wide.text.soft_ids == wide.text.ids
        assert real.decode(narrow.image.soft_ids).strip() == IMAGE
    assert not any(narrow.image.soft_before) and any(narrow.image.soft_after)


def test_the_first_format_keeps_its_ids(family, real, directory):
    """Captions alone, and a space of its own in front of them."""
    config = PromptConfig("USER: {visual}\nin one word: ASSISTANT:", "USER: {caption}\nin one word: ASSISTANT:")
    prompts, tokenizer = build(real, family, config), VladvaTokenizer(directory, prompt=config)
    assert tokenizer.ids(["a dog"]) == [whole(real, "a dog")]
    space = {"llava": "▁", "qwen2_vl": "Ġ"}[family.family]
    assert real.convert_ids_to_tokens(prompts.text.prefix)[-1] == space
    assert prompts.second_turn == () and prompts.text.soft_ids == prompts.text.ids
    assert len(prompts.continued_batch([torch.tensor([7])], 4).input_ids[0]) == len(prompts.image_row(4)) + 1


def test_captions_are_decoded_as_they_were(ours):
    for caption in ("a red circle.", "42 dogs", "(left) of it"):
        assert ours.decode(ours.encode(caption)) == caption
    assert ours.ids([""]) == [[]] and ours.ids([]) == []


def test_special_words_in_captions_stay_words(ours, real):
    rows = ours.ids(["a </s> <image> dog", "<|im_end|>", "<s>"])
    assert not {*real.all_special_ids} & {token for row in rows for token in row}


def test_a_prompt_that_merges_with_its_neighbor_is_refused(real, family):
    template = "USER: {prompt}ning {visual} ASSISTANT:"
    config = replace(family.prompt_config(), image_template=template, image_prompt="Go run")
    build(real, family, replace(config, soft_slots="template"))  # then the border doesn't matter
    with pytest.raises(ValueError, match="merges.*Go run"):
        build(real, family, config)
