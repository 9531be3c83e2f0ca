"""adapter_config.json of strangers: which of PEFT's settings are read, and what they may be.

The stored tensors decide what a LoRA is; how it was initialized has no meaning once it is stored. PEFT must not repeat
it: pissa, olora and others would change the base's weights.
"""

import logging
import re
from collections.abc import Callable
from typing import Any

from peft import LoraConfig, TaskType

from vladva_clip.config import nearest
from vladva_clip.fields import FLAG, Check, Fields, admit, either, is_number, list_of, one_of, whole

_log = logging.getLogger(__name__)
_FILE = "adapter_config.json"
MAX_RANK, MAX_NAMES, MAX_NAME = 1 << 16, 1 << 12, 1 << 12
MAX_PATTERNS = 480  # of ranks and alphas together: Python keeps 512 regular expressions compiled
_UNSET = (None, False, "", [], {})
# what says how the LoRA came to be, where, or by which PEFT
_WITHOUT_MEANING = (
    *("init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("auto_mapping", "base_model_name_or_path", "revision", "peft_version", "inference_mode", "runtime_config"),
    *("megatron_core", "qalora_group_size", "ensure_weight_tying", "peft_type", "task_type"),
)
# after these the base's weights are no longer the published ones, unless the LoRA was converted when it was saved
_CHANGES_THE_BASE = re.compile(r"pissa.*|olora|corda|loftq|lora_ga|mica", re.IGNORECASE)
# pieces of a pattern that can't make Python's `re` search for long: names, digits, a few free stretches, a few choices
_PIECE = re.compile(
    r"[\w-]|\\[.\-_]|\.(?![*+?{])|\^|\$|\\d(?!\{)\+?|\.[*+]|\[0-9\]\+?|\||"
    r"\((?:\?:)?[\w.\\-]+(?:\|[\w.\\-]+)*\)(?![*+?{])"
)
_FREE = re.compile(r"\\d\+|\.[*+]|\]\+")


def _is_pattern(value: Any) -> bool:
    """Whether a regular expression is one whose matching is quick, whatever it is matched against."""
    if not isinstance(value, str) or len(value) > MAX_NAME:
        return False
    return max(len(_FREE.findall(value)), value.count("(")) <= 3 and not _PIECE.sub("", value)


def _patterns(item: Check) -> Callable[[Any], bool]:
    """Whether a value is an object from patterns of modules' names to what `item` checks."""

    def hold(value: Any) -> bool:
        return isinstance(value, dict) and all(_is_pattern(key) and item.holds(found) for key, found in value.items())

    return hold


_RANK = Check("a positive whole number", lambda value: type(value) is int and 0 < value <= MAX_RANK)
_MODULES = Check(
    r"a pattern or a list of names (in patterns: names, \d+, at most three .* and three choices (a|b))",
    lambda value: (
        _is_pattern(value) or (isinstance(value, list) and len(value) <= MAX_NAMES and all(map(_is_pattern, value)))
    ),
)
_NAME = Check("a name", lambda value: isinstance(value, str) and bool(re.fullmatch(r"\w{1,64}", value)))
_SETTINGS: Fields = {
    "r": _RANK,
    "lora_alpha": Check("a finite number", is_number),
    "lora_dropout": Check("a number from 0 to below 1", lambda value: is_number(value) and 0 <= value < 1),
    "bias": Check("none, all or lora_only", one_of("none", "all", "lora_only").holds),
    "target_modules": _MODULES,
    "exclude_modules": Check("a pattern, a list of names or null", _MODULES.holds, nullable=True),
    "rank_pattern": Check("an object of positive whole numbers", _patterns(_RANK)),
    "alpha_pattern": Check("an object of finite numbers", _patterns(Check("a number", is_number))),
    **{name: FLAG for name in ("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias")},
    "layers_to_transform": either(whole(0, MAX_NAMES), list_of(whole(0, MAX_NAMES), MAX_NAMES)).or_null(),
    "layers_pattern": either(_NAME, list_of(_NAME, 16)).or_null(),
}
_INITIALIZATIONS = re.compile(r"gaussian|eva|orthogonal|pissa(_niter_\d{1,9})?|olora|corda|loftq|lora_ga|mica", re.I)
_INITIALIZATION = Check(
    "true, false or one of PEFT's initializations",
    lambda value: isinstance(value, bool) or (isinstance(value, str) and bool(_INITIALIZATIONS.fullmatch(value))),
    nullable=True,
)
_TASK = one_of(*(task.value for task in TaskType)).or_null()


def lora_settings(data: dict[str, Any]) -> dict[str, Any]:
    """Return PEFT's settings for a stored LoRA whose tensors are put in afterwards.

    Args:
        data: the content of adapter_config.json.

    Raises:
        ValueError: not a plain LoRA, a key that PEFT doesn't know, or a value that could cost memory or time.
    """
    if data.get("peft_type") != "LORA":
        raise ValueError(f"{_FILE} says peft_type {data.get('peft_type')!r:.80}, expected 'LORA'")
    _refuse_others(data)
    for name, check in (("init_lora_weights", _INITIALIZATION), ("task_type", _TASK)):
        admit({name: data.get(name)}, {name: check}, f"{_FILE}: ")
    settings = admit(data, _SETTINGS, f"{_FILE}: ")
    if sum(len(settings.get(name, {})) for name in ("rank_pattern", "alpha_pattern")) > MAX_PATTERNS:
        raise ValueError(f"{_FILE}: rank_pattern and alpha_pattern have more than {MAX_PATTERNS} entries")
    return {
        **settings,
        "init_lora_weights": True,
        "inference_mode": False,
    }  # on the meta device, where it costs nothing


def initialization(data: dict[str, Any]) -> bool | str:
    """Return the initialization with which PEFT itself loads the stored tensors over the base as we do.

    PEFT repeats one that changes the base whenever it loads the LoRA; the others are kept as they were.
    """
    stated = data.get("init_lora_weights", True)
    return True if stated is None or _CHANGES_THE_BASE.fullmatch(str(stated)) else stated


def warn_of_initialization(data: dict[str, Any]) -> None:
    """Say so where a LoRA's training began by changing the base's weights."""
    name = str(data.get("init_lora_weights"))
    if _CHANGES_THE_BASE.fullmatch(name):
        _log.warning(
            "%s: init_lora_weights is %r, which changes the base's weights when training begins; only the stored "
            "tensors are put over the base as published. Convert the LoRA when you save it "
            "(path_initial_model_for_weight_conversion of PEFT), if that has not been done",
            *(_FILE, name[:40]),
        )


def _refuse_others(data: dict[str, Any]) -> None:
    known = {*LoraConfig.__dataclass_fields__, "peft_version"}
    asked = [name for name in sorted(set(data) - set(_SETTINGS) - set(_WITHOUT_MEANING)) if data[name] not in _UNSET]
    for name in asked:
        if name in known or name.endswith("_config"):
            raise ValueError(f"{_FILE} asks for {name} ({data[name]!r:.80}); only plain LoRA is read")
        raise ValueError(f"{_FILE} has the unknown key {name!r:.80}; {nearest(name, known)}")
