"""A base's chat templates, kept as texts: they go into what is saved and exported, and nothing of ours runs them."""

import re
from pathlib import Path
from typing import Any

from vladva_clip.encoder.admission.tokenizer_files import SETTINGS, SETTINGS_LIMITS, read_bytes
from vladva_clip.storage.allowed_files import refuse_links_out
from vladva_clip.storage.config import read_json

CHAT, CHAT_JSON, MORE = "chat_template.jinja", "chat_template.json", "additional_chat_templates"
MAX_BYTES, MAX_TEMPLATES = 1 << 16, 16


def chat_files(directory: Path) -> dict[str, bytes]:
    """Return the chat templates of a base by the names of the files that transformers 5 reads.

    Older places (chat_template.json, tokenizer_config.json) count where the newer file is not there.

    Raises:
        ValueError: templates that are no texts, too long or too many, or links to elsewhere.
    """
    refuse_links_out(directory, (CHAT, CHAT_JSON, MORE))
    found = {}
    for name in (SETTINGS, CHAT_JSON):
        found |= {place: text.encode() for place, text in _stored(directory / name).items()}
    if (directory / CHAT).is_file():
        found[CHAT] = read_bytes(directory / CHAT, MAX_BYTES)
    more = sorted(path for path in (directory / MORE).glob("*.jinja") if path.is_file())
    if len(found) + len(more) > MAX_TEMPLATES:
        raise ValueError(f"{directory} holds {len(found) + len(more)} chat templates, {MAX_TEMPLATES} at most are read")
    for path in more:
        refuse_links_out(directory, (f"{MORE}/{path.name}",))
        found[f"{MORE}/{path.name}"] = read_bytes(path, MAX_BYTES)
    return found


def _stored(path: Path) -> dict[str, str]:
    """The templates within a JSON file: one text, or a list of names and texts."""
    template = read_json(path, SETTINGS_LIMITS).get("chat_template") if path.is_file() else None
    if template is None:
        return {}
    templates = template if isinstance(template, list) else [{"name": "default", "template": template}]
    if not all(map(_is_named_text, templates)):
        raise ValueError(f"{path}: chat_template is {template!r:.60}, expected texts of {MAX_BYTES} characters at most")
    return {
        CHAT if item["name"] == "default" else f"{MORE}/{item['name']}.jinja": item["template"] for item in templates
    }


def _is_named_text(item: Any) -> bool:
    if not isinstance(item, dict) or set(item) != {"name", "template"}:
        return False
    name, text = item["name"], item["template"]
    good = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
    return bool(good) and isinstance(text, str) and len(text) <= MAX_BYTES
