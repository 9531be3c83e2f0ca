"""Allow-lists for JSON objects that strangers wrote: which keys are handed on, and which values each may have.

transformers and PEFT read far more keys than a model of ours needs, and some of them choose classes, open files or ask
the network. So nothing reaches them that is not listed here by its name.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Keys that make transformers or PEFT choose code, files or kernels, wherever they stand.
_ACTING = re.compile(
    r"auto_map|quantization_config|compression_config|sparsity_config"
    r"|_?(?:attn|experts)_implementation(?:_internal)?|model_args|use_(?:timm|pretrained)_backbone|backbone.*|timm_.*"
    r"|custom_(?:generate|pipelines?|code)|code_revision|trust_remote_code|(?:fusion|kernel|distributed)_config"
    r"|use_kernels|per_layer_config|transformers_weights|extra_(?:config_)?files|fast_tokenizer_files|gguf_file"
    r"|(?!.*name_or_path$).*_(?:path|paths|file|files|dir|directory|folder|url|urls|uri|module|script|class_path)"
)


@dataclass(frozen=True)
class Check:
    """What a value must be: in words, and as a test. `null` stands for a default of transformers' own where allowed."""

    expected: str
    holds: Callable[[Any], bool]
    nullable: bool = False

    def or_null(self) -> "Check":
        """The same check, which `null` passes too."""
        return Check(f"{self.expected} or null", self.holds, True)


@dataclass(frozen=True)
class Part:
    """A nested object with an allow-list of its own. `optional` parts may be absent, null or empty."""

    fields: Mapping[str, "Check | Part"]
    optional: bool = False


Fields = Mapping[str, Check | Part]


def admit(data: Mapping[str, Any], fields: Fields, where: str) -> dict[str, Any]:
    """Return the listed keys of an object, recursively; keys that are not listed are dropped.

    Args:
        data: an object of a JSON file.
        fields: what is listed.
        where: what an error puts before the key, such as "config.json: vision_config.".

    Raises:
        ValueError: a key that would make a library choose code, files or kernels, or a value of another kind.
    """
    refuse_acting(set(data) - set(fields), data, where)
    _refuse_parts(set(data) - set(fields), data, where)
    for key, field in fields.items():
        if isinstance(field, Part) and not field.optional and key not in data:
            raise ValueError(f"{where}{key} is missing, expected an object")
    admitted = {}
    for key in data:
        if key in fields:
            value = _value(data[key], fields[key], key, where)
            if value is not None or _nullable(fields[key]):
                admitted[key] = value
    return admitted


def refuse_acting(keys: set[str], data: Mapping[str, Any], where: str) -> None:
    """Refuse keys by which a library would choose code, files or kernels; unset ones (null, false, empty) are harmless.

    Raises:
        ValueError: the first such key, with its value.
    """
    for key in sorted(keys):
        if _ACTING.fullmatch(key) and data[key] not in (None, False, "", [], {}):
            raise ValueError(
                f"{where}{key} is {data[key]!r:.80}: refused, since it would choose code, files or kernels. Remove the "
                "key if you trust the file's origin and the model works without it"
            )


def _refuse_parts(keys: set[str], data: Mapping[str, Any], where: str) -> None:
    """Refuse parts with a model type, by which transformers would choose code, where a family has no such part."""
    for key in sorted(keys):
        if isinstance(data[key], dict) and "model_type" in data[key]:
            found = data[key]["model_type"]
            raise ValueError(f"{where}{key} is a part of the model type {found!r:.80}, which this family doesn't have")


def _nullable(field: Check | Part) -> bool:
    return isinstance(field, Check) and field.nullable


def _value(value: Any, field: Check | Part, key: str, where: str) -> Any:
    if isinstance(field, Part):
        if field.optional and value in (None, {}):
            return None
        if not isinstance(value, dict):
            raise ValueError(f"{where}{key} is {value!r:.60}, expected an object")
        return admit(value, field.fields, f"{where}{key}.")
    if not (field.nullable and value is None) and not field.holds(value):
        raise ValueError(f"{where}{key} is {value!r:.80}, expected {field.expected}")
    return value


def whole(low: int, high: int) -> Check:
    """A whole number from `low` to `high`."""
    bounds = f"a positive whole number, {high} at most" if low == 1 else f"a whole number from {low} to {high}"
    return Check(bounds, lambda value: type(value) is int and low <= value <= high)


def real(low: float, high: float) -> Check:
    """A finite number from `low` to `high`."""
    return Check(f"a number from {low:g} to {high:g}", lambda value: is_number(value) and low <= value <= high)


def one_of(*known: Any) -> Check:
    """One of the given values, of the same type."""
    return Check(
        f"one of {', '.join(map(str, known))}",
        lambda value: any(type(value) is type(item) and value == item for item in known),
    )


def text(longest: int = 256) -> Check:
    """A string of at most so many characters."""
    return Check(
        f"a string of {longest} characters at most", lambda value: isinstance(value, str) and len(value) <= longest
    )


def list_of(item: Check, longest: int) -> Check:
    """A list of at most so many values."""
    return Check(
        f"a list of at most {longest}, each {item.expected}",
        lambda value: isinstance(value, list) and len(value) <= longest and all(map(item.holds, value)),
    )


def either(*checks: Check) -> Check:
    """What passes one of the checks."""
    expected = " or ".join(check.expected for check in checks)
    return Check(expected, lambda value: any(check.holds(value) for check in checks))


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number (true and false are none)."""
    return type(value) in (int, float) and math.isfinite(value)


FLAG = Check("true or false", lambda value: isinstance(value, bool))
