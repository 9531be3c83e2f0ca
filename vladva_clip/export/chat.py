"""Chat templates that write the encoder's sequences: `embed` for an image or a caption, `caption` to ask for one."""

import json
import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from vladva_clip.encoder.prompts import Prompts
from vladva_clip.encoder.templates import caption_ids
from vladva_clip.storage.config import PromptConfig
from vladva_clip.storage.prompt_config import CaptionPlace, VisualSpan

NAME, FOR_VLLM, CAPTION = "embed", "embed_vllm", "caption"
# captions whose ends a tokenizer may merge with their neighbors or put a space before
PROBES = ("a red circle.", "is it red?", "route 66", "42 dogs", "A", "(left) of it", "«été»", "the  end\n", "")
PROBES += (" \n a dog", "a dog \n", "\n", "赤い丸。", "a 🙂")
# vLLM looks for such loops to find out that a message's content is a list of parts
_TEMPLATE = """\
{%- if messages | length != 1 or messages[0]['role'] not in ('user', 'query', 'document') -%}
{{- raise_exception('the template embed takes one message, of the user, with one image or one caption') -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message['content'] is string -%}
{%- set caption = message['content'].split() | join(' ') if CLEANS else message['content'] -%}
{{- TEXT_OPENING -}}{%- if caption or KEEPS_EMPTY -%}{{- GLUE + caption + BEHIND -}}{%- endif -%}{{- TEXT_CLOSING -}}
{%- else -%}
{%- if message['content'] | length != 1 -%}
{{- raise_exception('the template embed takes one image or one caption, this message has another number of parts') -}}
{%- endif -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or part['type'] == 'image_url' -%}
{{- IMAGE -}}
{%- elif part['type'] == 'text' -%}
{%- set caption = part['text'].split() | join(' ') if CLEANS else part['text'] -%}
{{- TEXT_OPENING -}}{%- if caption or KEEPS_EMPTY -%}{{- GLUE + caption + BEHIND -}}{%- endif -%}{{- TEXT_CLOSING -}}
{%- else -%}
{{- raise_exception('the template embed takes an image or a text, not ' + part['type']) -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endfor -%}
"""
# the sequence of an image, then the second turn, whose answer is the long caption
_CAPTION_TEMPLATE = """\
{%- if messages | length != 1 or messages[0]['content'] is string or messages[0]['content'] | length != 1 or
    messages[0]['content'][0]['type'] not in ('image', 'image_url') -%}
{{- raise_exception('the template caption takes one message with one image') -}}
{%- endif -%}
{{- IMAGE -}}
"""


def embed_templates(
    tokenizer: PreTrainedTokenizerBase,
    templates: PromptConfig,
    visual: VisualSpan,
    prompts: Prompts,
    asks: bool = True,
) -> dict[str, str]:
    """Return the Jinja templates by name; they treat white space in captions as our tokenizer does.

    `embed` and `caption` omit BOS if the tokenizer puts it before every text: if the template wrote it too,
    transformers 5.0 to 5.4 (no longer 5.24) would keep both under sentence-transformers. `embed_vllm` always writes it,
    since vLLM adds nothing to a chat.

    Args:
        tokenizer: with the slots' tokens.
        templates: spelled in the slots' tokens.
        visual: how a chat writes an image.
        prompts: the same templates as ids.
        asks: include `caption`, which only a base with a head can answer.

    Raises:
        ValueError: the tokenizer changes a caption's ids between special tokens.
    """
    bos = "".join(tokenizer.convert_ids_to_tokens(list(prompts.text.bos)))
    own = tokenizer("", add_special_tokens=True).input_ids == list(prompts.text.bos)
    glue = _glue(tokenizer, bos, templates, prompts)
    start = "" if own else bos
    asking = {CAPTION: _jinja(_CAPTION_TEMPLATE, {"IMAGE": start + _asking(templates, visual)})} if asks else {}
    return {
        NAME: _jinja(_TEMPLATE, _pieces(templates, visual, start, glue)),
        FOR_VLLM: _jinja(_TEMPLATE, _pieces(templates, visual, bos, glue)),
        **asking,
    }


def _pieces(templates: PromptConfig, visual: VisualSpan, bos: str, glue: str) -> dict[str, str | bool]:
    opening, closing = _around_caption(templates)
    place = _place(templates)
    image = templates.image_template.replace("{visual}", visual.text)
    caption = {"GLUE": glue, "BEHIND": place.behind, "KEEPS_EMPTY": place.keeps_empty, "CLEANS": _cleans(templates)}
    return {"TEXT_OPENING": bos + opening, **caption, "TEXT_CLOSING": closing, "IMAGE": bos + image}


def _asking(templates: PromptConfig, visual: VisualSpan) -> str:
    """Return an image's sequence and the second turn up to its answer."""
    return templates.image_template.replace("{visual}", visual.text) + templates.question


def _jinja(template: str, pieces: dict[str, str | bool]) -> str:
    literals = {name: json.dumps(value, ensure_ascii=False) for name, value in pieces.items()}  # Jinja's are the same
    # in one pass, since a text may contain one of the names
    return re.sub("|".join(literals), lambda match: literals[match[0]], template)


def caption_rows(
    tokenizer: PreTrainedTokenizerBase, templates: PromptConfig, prompts: Prompts, captions: Sequence[str] = PROBES
) -> list[list[int]]:
    """Return the ids of captions' text rows as the encoder lays them out."""
    text = prompts.text
    ids = caption_ids(tokenizer, templates.text_place, _cleaned(templates, captions))
    return [[*text.before, *caption, *text.suffix] for caption in ids]


def _cleans(templates: PromptConfig) -> bool:
    return templates.clean != "none"


def _cleaned(templates: PromptConfig, captions: Sequence[str]) -> list[str]:
    return [" ".join(caption.split()) for caption in captions] if _cleans(templates) else list(captions)


def _place(templates: PromptConfig) -> CaptionPlace:
    return templates.text_place or CaptionPlace("")


def _around_caption(templates: PromptConfig) -> list[str]:
    """Return what stands around a caption, without the white space that belongs to its ids (see `_glue`)."""
    opening, closing = templates.text_template.split("{caption}")
    place = _place(templates)
    return [opening.removesuffix(place.front), closing.removeprefix(place.behind)]


def _glue(tokenizer: PreTrainedTokenizerBase, bos: str, templates: PromptConfig, prompts: Prompts) -> str:
    """Return what must precede a caption: SentencePiece puts a space before a text, but not after a special token."""
    opening, closing = _around_caption(templates)
    opening, expected = bos + opening, caption_rows(tokenizer, templates, prompts)
    cleaned, place = _cleaned(templates, PROBES), _place(templates)
    for glue in ("", " ", place.front):
        written = [f"{glue}{text}{place.behind}" if text or place.keeps_empty else "" for text in cleaned]
        rendered = [f"{opening}{caption}{closing}" for caption in written]
        if tokenizer(rendered, add_special_tokens=False).input_ids == expected:
            return glue
    raise ValueError(
        "this base's tokenizer changes captions between special tokens, so no chat template can write the encoder's "
        "sequences; such a base can't be exported"
    )
