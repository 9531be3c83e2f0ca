"""The chat template `embed`: one image or one caption -> the very sequence that the encoder was trained on."""

import json
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from vladva_clip.config import PromptConfig, VisualSpan
from vladva_clip.prompts import Prompts

NAME = "embed"
# ends and beginnings that a tokenizer may merge with, or put a space before
PROBES = ("a red circle.", "is it red?", "route 66", "42 dogs", "A", "(left) of it", "«été»", "the  end\n", "")
# loops as vLLM looks for them, to tell that a message's content is a list of parts
_TEMPLATE = """\
{%- if messages | length != 1 or messages[0]['role'] not in ('user', 'query', 'document') -%}
{{- raise_exception('the template embed takes one message, of the user, with one image or one caption') -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message['content'] is string -%}
{%- set caption = message['content'].split() | join(' ') -%}
{{- TEXT_OPENING -}}{%- if caption -%}{{- GLUE + caption -}}{%- endif -%}{{- TEXT_CLOSING -}}
{%- else -%}
{%- if message['content'] | length != 1 -%}
{{- raise_exception('the template embed takes one image or one caption, this message has another number of parts') -}}
{%- endif -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or part['type'] == 'image_url' -%}
{{- IMAGE -}}
{%- elif part['type'] == 'text' -%}
{%- set caption = part['text'].split() | join(' ') -%}
{{- TEXT_OPENING -}}{%- if caption -%}{{- GLUE + caption -}}{%- endif -%}{{- TEXT_CLOSING -}}
{%- else -%}
{{- raise_exception('the template embed takes an image or a text, not ' + part['type']) -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endfor -%}
"""


def embed_template(
    tokenizer: PreTrainedTokenizerBase, templates: PromptConfig, visual: VisualSpan, bos: str, prompts: Prompts
) -> str:
    """Return the Jinja template; white space in captions is cleaned as by our tokenizer.

    Args:
        tokenizer: with the slots' tokens.
        templates: spelled in the slots' tokens.
        visual: the family's span of an image.
        bos: the text of the token at a row's beginning, "" for none.
        prompts: the same templates as ids.

    Raises:
        ValueError: a tokenizer that changes a caption's ids between special tokens.
    """
    opening, closing = (bos + templates.text_template).split("{caption}")
    pieces = {
        "TEXT_OPENING": opening,
        "TEXT_CLOSING": closing,
        "GLUE": _glue(tokenizer, opening, closing, prompts),
        "IMAGE": bos + templates.image_template.replace("{visual}", visual.text),
    }
    template = _TEMPLATE
    for name, text in pieces.items():
        template = template.replace(name, json.dumps(text, ensure_ascii=False))  # a Jinja string
    return template


def caption_rows(
    tokenizer: PreTrainedTokenizerBase, prompts: Prompts, captions: Sequence[str] = PROBES
) -> list[list[int]]:
    """Return the ids of captions' text rows as the encoder lays them out: tokenised alone, between the template."""
    text = prompts.text
    ids = [
        tokenizer(" ".join(caption.split()), add_special_tokens=False, split_special_tokens=True).input_ids
        for caption in captions
    ]
    return [[*text.bos, *text.prefix, *caption, *text.suffix] for caption in ids]


def _glue(tokenizer: PreTrainedTokenizerBase, opening: str, closing: str, prompts: Prompts) -> str:
    """What must stand before a caption: SentencePiece puts a space before a text, but not behind a special token."""
    expected = caption_rows(tokenizer, prompts)
    for glue in ("", " "):
        rendered = [f"{opening}{glue if caption else ''}{' '.join(caption.split())}{closing}" for caption in PROBES]
        if tokenizer(rendered, add_special_tokens=False).input_ids == expected:
            return glue
    raise ValueError(
        "this base's tokenizer changes captions that stand between special tokens, so no chat template can write the "
        "encoder's sequences; such a base can't be exported"
    )
