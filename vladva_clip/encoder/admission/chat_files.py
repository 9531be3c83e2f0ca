"""A base's chat templates, kept as text: they are copied into saved and exported models, and we never run them."""

import re
from typing import Any

from vladva_clip.encoder.admission.tokenizer_files import SETTINGS, SETTINGS_LIMITS
from vladva_clip.storage.allowed_files import refuse_links_out
from vladva_clip.storage.base import BaseFiles

CHAT, CHAT_JSON, MORE = "chat_template.jinja", "chat_template.json", "additional_chat_templates"
MAX_BYTES, MAX_TEMPLATES = 1 << 16, 16


def chat_files(base: BaseFiles) -> dict[str, bytes]:
    """Return a base's chat templates, by the names of the files that transformers 5 reads.

    Older places (chat_template.json, tokenizer_config.json) count only where the newer file is missing.

    Raises:
        ValueError: templates that are not text, too long or too many, or links to places outside the base.
    """
    refuse_links_out(base.directory, (CHAT, CHAT_JSON, MORE))
    found = {}
    for name in (SETTINGS, CHAT_JSON):
        found |= {place: text.encode() for place, text in _stored(base, name).items()}
    if base.has(CHAT):
        found[CHAT] = base.content(CHAT, MAX_BYTES)
    more = sorted(f"{MORE}/{path.name}" for path in base.path(MORE).glob("*.jinja") if path.is_file())
    if len(found) + len(more) > MAX_TEMPLATES:
        raise ValueError(
            f"{base.directory} holds {len(found) + len(more)} chat templates, {MAX_TEMPLATES} at most are read"
        )
    return found | {name: base.content(name, MAX_BYTES) for name in more}


def _stored(base: BaseFiles, name: str) -> dict[str, str]:
    """The templates in a JSON file: a single text, or a list of names and texts."""
    template = base.json(name, SETTINGS_LIMITS).get("chat_template") if base.has(name) else None
    if template is None:
        return {}
    templates = template if isinstance(template, list) else [{"name": "default", "template": template}]
    if not all(map(_is_named_text, templates)):
        raise ValueError(
            f"{base.path(name)}: chat_template is {template!r:.60}, expected texts of {MAX_BYTES} characters at most"
        )
    return {
        CHAT if item["name"] == "default" else f"{MORE}/{item['name']}.jinja": item["template"] for item in templates
    }


def _is_named_text(item: Any) -> bool:
    if not isinstance(item, dict) or set(item) != {"name", "template"}:
        return False
    name, text = item["name"], item["template"]
    good = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
    return bool(good) and isinstance(text, str) and len(text) <= MAX_BYTES
