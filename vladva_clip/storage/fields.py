"""Allow-lists for untrusted JSON objects: which keys are passed on, and which values each may have.

transformers and PEFT read far more keys than our models need, and some of those choose classes, open files or access
the network. So only keys on an allow-list are passed to them.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Keys that make transformers or PEFT choose code, files or kernels, wherever they occur.
_ACTING = re.compile(
    r"auto_map|quantization_config|compression_config|sparsity_config"
    r"|_?(?:attn|experts)_implementation(?:_internal)?|model_args|use_(?:timm|pretrained)_backbone|backbone.*|timm_.*"
    r"|custom_(?:generate|pipelines?|code)|code_revision|trust_remote_code|(?:fusion|kernel|distributed)_config"
    r"|use_kernels|per_layer_config|transformers_weights|extra_(?:config_)?files|fast_tokenizer_files|gguf_file"
    r"|(?!.*name_or_path$).*_(?:path|paths|file|files|dir|directory|folder|url|urls|uri|module|script|class_path)"
)


@dataclass(frozen=True)
class Check:
    """A condition on a value, in words and as a test. Where `null` is allowed, it means transformers' own default."""

    expected: str
    holds: Callable[[Any], bool]
    nullable: bool = False

    def or_null(self) -> "Check":
        """Return the same check, but accepting `null` as well."""
        return Check(f"{self.expected} or null", self.holds, True)


@dataclass(frozen=True)
class Part:
    """A nested object with its own allow-list. `optional` parts may be absent, null or empty."""

    fields: Mapping[str, "Check | Part | LeftOut"]
    optional: bool = False


@dataclass(frozen=True)
class LeftOut:
    """A part that the published files describe and that is not built: an object, or null. It is never passed on."""


Fields = Mapping[str, Check | Part | LeftOut]


def admit(data: Mapping[str, Any], fields: Fields, where: str) -> dict[str, Any]:
    """Return the listed keys of an object, recursively; other keys are dropped.

    Args:
        data: an object of a JSON file.
        fields: the allow-list.
        where: prefix of the key in the error message, such as "config.json: vision_config.".

    Raises:
        ValueError: a key would make a library choose code, files or kernels, or a value fails its check.
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
    """Refuse keys that make a library choose code, files or kernels; unset ones (null, false, empty) are harmless.

    Raises:
        ValueError: naming the first such key and its value.
    """
    for key in sorted(keys):
        if _ACTING.fullmatch(key) and data[key] not in (None, False, "", [], {}):
            raise ValueError(
                f"{where}{key} is {data[key]!r:.80}: refused, as it makes a library choose code, files or kernels. "
                "If you trust the file and the model works without the key, remove it"
            )


def _refuse_parts(keys: set[str], data: Mapping[str, Any], where: str) -> None:
    """Refuse unlisted parts that have a model type, because transformers would choose code by it."""
    for key in sorted(keys):
        if isinstance(data[key], dict) and "model_type" in data[key]:
            found = data[key]["model_type"]
            raise ValueError(f"{where}{key} has the model type {found!r:.80}; this family has no such part. Remove it")


def _nullable(field: Check | Part | LeftOut) -> bool:
    return isinstance(field, Check) and field.nullable


def _value(value: Any, field: Check | Part | LeftOut, key: str, where: str) -> Any:
    if isinstance(field, Check):
        if not (field.nullable and value is None) and not field.holds(value):
            raise ValueError(f"{where}{key} is {value!r:.80}, expected {field.expected}")
        return value
    if value in (None, {}) and (isinstance(field, LeftOut) or field.optional):
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{where}{key} is {value!r:.60}, expected an object")
    return admit(value, field.fields, f"{where}{key}.") if isinstance(field, Part) else None


def whole(low: int, high: int) -> Check:
    """A whole number from `low` to `high`."""
    bounds = f"a positive whole number, at most {high}" if low == 1 else f"a whole number from {low} to {high}"
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
    """A string of at most `longest` characters."""
    return Check(
        f"a string of at most {longest} characters", lambda value: isinstance(value, str) and len(value) <= longest
    )


def list_of(item: Check, longest: int) -> Check:
    """A list of at most `longest` values, each passing a check."""
    return Check(
        f"a list of at most {longest}, each {item.expected}",
        lambda value: isinstance(value, list) and len(value) <= longest and all(map(item.holds, value)),
    )


def either(*checks: Check) -> Check:
    """A value that passes one of the checks."""
    expected = " or ".join(check.expected for check in checks)
    return Check(expected, lambda value: any(check.holds(value) for check in checks))


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number (true and false are not)."""
    return type(value) in (int, float) and math.isfinite(value)


FLAG = Check("true or false", lambda value: isinstance(value, bool))
