"""The text of a model card: the sections made from config and training record, and the author's own sections."""

import re
from typing import Any

from vladva_clip.interface.precision_words import in_words, of_dtype
from vladva_clip.sources.hub_errors import HUB_TOKEN
from vladva_clip.sources.registry import forbids_commercial_use
from vladva_clip.storage.config import VladvaConfig
from vladva_clip.storage.encoding_config import EncodingConfig

HEADINGS = (
    *("Use", "Base and license", "Training data", "How it was trained", "Settings", "Figures", "Intended use"),
    "Limits",
)
_RENAMED = {"Base and licence": "Base and license"}  # earlier heading -> today's: notes may still use it
# keys of a recipe that a card leaves out: where and how a run was done, not what it trained
_NOT_SHOWN = (
    "output_dir",
    "resume",
    "model.name",
    "model.pretrained",
    "data.train",
    "data.evaluation",
    "run.log_every",
)
_NOT_SHOWN += ("run.checkpoint_every", "run.keep_last", "run.sigterm_exit_code", "data.num_workers", "model.compile")
_NOT_SHOWN += ("data.worker_timeout",)
MAX_VALUE = 1 << 12  # characters that a card shows of one value of a record


def public(text: Any) -> str:
    """Return a value of a record without tokens, passwords and directories, so that it can be published."""
    text = HUB_TOKEN.sub("hf_***", str(text)[:MAX_VALUE])
    text = re.sub(r"(?i)(bearer\s+|(?:token|password|secret|key)\s*[=:]\s*)[^\s'\"&]+", r"\1***", text)
    text = re.sub(r"\b([A-Za-z]\w{0,20}://)[^/\s@]*@", r"\1", text)
    text = re.sub(r"\b([A-Za-z]\w{0,20}://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text)
    text = re.sub(r"\b[A-Za-z]:\\(?:[^\\\s'\",]+\\)*", "", text.replace("file://", ""))
    return re.sub(r"(?<![/\w.])~?/(?:[^/\s:'\",]+/)+", "", text)


def base_name(base_id: str) -> str:
    """Return a base's id; for a local directory, the name of its last folder."""
    return base_id.removeprefix("local-dir:").rstrip("/").rpartition("/")[2] if ":" in base_id else base_id


def is_exported(config: VladvaConfig) -> bool:
    """Whether `vladva export` can write the model for other libraries (docs/export.md)."""
    encoding = config.encoding
    return (encoding.positions, encoding.pooling, encoding.attention) == ("family", "last", "causal")


def use(name: str, is_adapter: bool, is_exported: bool = True) -> str:
    """How to load the model in this package, open_clip and, if it can be exported, sentence-transformers."""
    directory = "local-dir:PATH" if is_adapter else name
    hub = ", or `hf-hub:ORG/REPO[@REVISION]` from the Hub" if is_adapter else ""
    export = f""" For sentence-transformers, without this package:
`vladva export {"PATH" if is_adapter else name} OUT`, then `SentenceTransformer("OUT")`."""
    export = export if is_exported else ""
    return f"""```python
import vladva_clip

model, preprocess = vladva_clip.create_model("{directory}")
tokenizer = vladva_clip.get_tokenizer("{directory}")
text_features = model.encode_text(tokenizer(["a red circle left of a blue square"]), normalize=True)
```

`{directory}`{hub}. Code written for open_clip works unchanged once `vladva-clip` is installed:
`open_clip.create_model_and_transforms("{directory}")`.{export}"""


def license(config: VladvaConfig, found: str | None) -> str:
    """The base and its license."""
    base = config.base
    revision = f" at revision `{base.revision}`" if base.revision else ""
    terms = (
        f"The base's license is `{found}`. It applies to everything built on the base."
        if found
        else "`vladva card` does not know the base's license. It applies to everything built on the base."
    )
    if found and forbids_commercial_use(found):
        terms += " **It allows no commercial use.**"
    fingerprint = f" (fingerprint `{base.fingerprint}`)" if base.fingerprint else ""
    profile = f", a published embedder, read by the profile `{base.profile}`" if base.profile else ""
    return f"Base: `{base_name(base.id)}`{revision}{fingerprint}{profile}. {terms}"


def settings(config: VladvaConfig, lora: dict[str, Any] | None) -> str:
    """A table of the settings that define the embedding."""
    prompt, image = config.prompt, config.image
    counts = prompt.num_image_soft_tokens, prompt.num_text_soft_tokens
    rows = {
        "features": f"{config.embed_dim} dimensions, float32, computed in {of_dtype(config.dtype)}",
        "images": f"{image.size} x {image.size} pixels, {image.resize_mode}, {image.interpolation}",
        "captions": f"{config.context_length - 1} tokens at most" + (", not cleaned" if prompt.clean == "none" else ""),
        "image prompt": f"`{_one_line(prompt.rendered('image'))}`",
        "text prompt": f"`{_one_line(prompt.rendered('text'))}`",
        **({} if prompt.second_turn is None else {"second turn": f"`{_one_line(prompt.second_turn)}`"}),
        **_encoding(config),
        "soft prompts": f"{counts[0]} vectors (image), {counts[1]} (text)"
        if all(counts)
        else "none (hand-written prompts)",
        "LoRA": f"rank {lora.get('r')}, alpha {lora.get('lora_alpha')}" if lora else "none",
        "logit scale (log)": f"{config.logit_scale:.4f}",
        **({} if config.logit_bias is None else {"logit bias": f"{config.logit_bias:.4f}"}),
    }
    return _table(rows)


def _encoding(config: VladvaConfig) -> dict[str, str]:
    """What differs from the recipe's way from rows to features."""
    encoding, usual = config.encoding, EncodingConfig()
    names = ("positions", "pooling", "attention")
    return {name: getattr(encoding, name) for name in names if getattr(encoding, name) != getattr(usual, name)}


def data(record: dict[str, Any]) -> str:
    """The data sources of a training run."""
    recipe = record["recipe"]
    train = recipe.get("data.train") or ()
    lines = [f"- `{public(spec)}`" for spec in ([train] if isinstance(train, str) else train)]
    evaluation = recipe.get("data.evaluation")
    return "\n".join([*lines, *([f"- evaluated on `{public(evaluation)}`"] if evaluation else [])])


def training(record: dict[str, Any]) -> str:
    """The recipe, and how long the run was."""
    recipe, state = in_words(record["recipe"]), record.get("state") or {}
    start = recipe.get("model.pretrained") or recipe.get("model.name")
    lines = [
        f"The recipe `{public(recipe.get('name'))}` of `vladva-train` (VladVA, arXiv 2412.04378), from "
        f"`{public(start)}`: {state.get('step', '?')} steps, {state.get('pairs', '?')} pairs, "
        f"{state.get('tokens', '?')} tokens, on {record.get('world_size', '?')} process(es).",
        "",
        _table({key: public(value) for key, value in sorted(recipe.items()) if key not in _NOT_SHOWN}),
    ]
    if versions := record.get("versions"):
        lines += ["", "Versions: " + ", ".join(f"{name} {public(value)}" for name, value in sorted(versions.items()))]
    return "\n".join(lines)


PATENT = "A Samsung patent application, EP 4742185 A1 (published 2026-05-13), describes this method (VladVA)."

INTENDED = """Retrieval between images and captions, ranking captions that differ in word order, attributes or
relations, zero-shot classification, and captioning with the same model. It is meant for research. Test it on your own
data before you rely on it."""

LIMITS = """- It inherits its base's knowledge, errors and biases. Images and captions unlike its training data are
  embedded without a warning.
- It reads captions in the languages that its base reads, and cuts them off at the token limit above.
- Don't use it to make decisions about people: neither to identify them nor to judge what is true of them."""


def sections(notes: str) -> tuple[str, dict[str, str]]:
    """Split Markdown at its `## ` headings; return the text before the first one, and heading -> text."""
    intro, *rest = re.split(r"(?m)^## +(\S.*)$", notes)
    headings = (_RENAMED.get(heading.strip(), heading.strip()) for heading in rest[::2])
    return intro.strip(), {heading: text.strip() for heading, text in zip(headings, rest[1::2], strict=True)}


def _one_line(text: str) -> str:
    text = text.replace("\n", "\\n").replace("`", "'").replace("|", "\\|")
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text)


def _table(rows: dict[str, Any]) -> str:
    lines = [f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])
