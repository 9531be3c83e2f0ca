"""The chat template `embed`: one image or one caption -> the very sequence that the encoder was trained on."""

import json
import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from vladva_clip.encoder.prompts import Prompts
from vladva_clip.storage.config import PromptConfig, VisualSpan

NAME, FOR_VLLM = "embed", "embed_vllm"
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


def embed_templates(
    tokenizer: PreTrainedTokenizerBase, templates: PromptConfig, visual: VisualSpan, prompts: Prompts
) -> dict[str, str]:
    """Return the Jinja templates by name; white space in captions is cleaned as by our tokenizer.

    `embed` leaves BOS to a tokenizer that puts it before every text: were it written as well, transformers 5.0 to 5.4
    (5.24 no more) would keep both under sentence-transformers. `embed_vllm` has it always, since vLLM adds nothing to a
    chat.

    Args:
        tokenizer: with the slots' tokens.
        templates: spelled in the slots' tokens.
        visual: the family's span of an image.
        prompts: the same templates as ids.

    Raises:
        ValueError: a tokenizer that changes a caption's ids between special tokens.
    """
    bos = "".join(tokenizer.convert_ids_to_tokens(list(prompts.text.bos)))
    own = tokenizer("", add_special_tokens=True).input_ids == list(prompts.text.bos)
    glue = _glue(tokenizer, bos, templates, prompts)
    return {NAME: _jinja(templates, visual, "" if own else bos, glue), FOR_VLLM: _jinja(templates, visual, bos, glue)}


def _jinja(templates: PromptConfig, visual: VisualSpan, bos: str, glue: str) -> str:
    opening, closing = templates.text_template.split("{caption}")
    image = templates.image_template.replace("{visual}", visual.text)
    pieces = {"TEXT_OPENING": bos + opening, "TEXT_CLOSING": closing, "GLUE": glue, "IMAGE": bos + image}
    literals = {name: json.dumps(text, ensure_ascii=False) for name, text in pieces.items()}  # Jinja strings
    return re.sub("|".join(literals), lambda match: literals[match[0]], _TEMPLATE)  # in one go: a text may hold a name


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


def _glue(tokenizer: PreTrainedTokenizerBase, bos: str, templates: PromptConfig, prompts: Prompts) -> str:
    """What must stand before a caption: SentencePiece puts a space before a text, but not behind a special token."""
    opening, closing = (bos + templates.text_template).split("{caption}")
    expected = caption_rows(tokenizer, prompts)
    for glue in ("", " "):
        rendered = [f"{opening}{glue if caption else ''}{' '.join(caption.split())}{closing}" for caption in PROBES]
        if tokenizer(rendered, add_special_tokens=False).input_ids == expected:
            return glue
    raise ValueError(
        "this base's tokenizer changes captions that stand between special tokens, so no chat template can write the "
        "encoder's sequences; such a base can't be exported"
    )
