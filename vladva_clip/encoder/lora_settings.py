"""Untrusted adapter_config.json files: which of PEFT's settings are read, and which values they may have.

A LoRA is defined by its stored tensors; once they are stored, their initialization no longer matters. PEFT must not
repeat it: pissa, olora and others would change the base's weights.
"""

import functools
import logging
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from peft import LoraConfig, TaskType

from vladva_clip.storage.config import nearest
from vladva_clip.storage.fields import FLAG, Check, Fields, admit, either, is_number, list_of, one_of, whole

_log = logging.getLogger(__name__)
_FILE = "adapter_config.json"
MAX_RANK, MAX_NAMES, MAX_NAME = 1 << 16, 1 << 12, 1 << 12
MAX_PATTERNS = 480  # looked up by PEFT; Python caches 512 compiled regular expressions
_UNSET = (None, False, "", [], {})
# keys that only tell how, where or with which PEFT the LoRA was made
_WITHOUT_MEANING = (
    *("init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("auto_mapping", "base_model_name_or_path", "revision", "peft_version", "inference_mode", "runtime_config"),
    *("megatron_core", "qalora_group_size", "ensure_weight_tying", "peft_type", "task_type"),
)
# these change the base's weights, unless the LoRA was converted when it was saved
_CHANGES_THE_BASE = re.compile(r"pissa.*|olora|corda|loftq|lora_ga|mica", re.IGNORECASE)
# module names, and pieces of patterns that never take long to match
_PLAIN = re.compile(r"(?:[\w-]|\\?\.)+")
_PIECE = re.compile(r"[\w-]|\\[.d]|\.\*|\.|\+(?<=\\d\+)|\^|\$|\((?:\?:)?\w+(?:\|\w+)*\)(?![*+?{])")
MAX_KEYS, MAX_FREE_KEYS, MAX_QUICK_NAMES = 1 << 10, 16, 512


def _is_quick(value: str, free: int = 1) -> bool:
    """Whether a pattern always matches quickly: names with at most `free` repetitions and one choice."""
    stretches, choices = value.count(".*") + value.count("+"), value.count("(")
    short = len(value) <= MAX_NAME and stretches <= free and choices <= 1
    return short and bool(_PLAIN.fullmatch(value) or not _PIECE.sub("", value))


def _by_module(item: Check, value: Any) -> bool:
    """Whether a value is an object whose values pass `item` and whose keys are quick to look up."""
    if not isinstance(value, dict) or len(value) > MAX_KEYS:
        return False
    patterns = [key for key in value if not _PLAIN.fullmatch(key)]
    return len(patterns) <= MAX_FREE_KEYS and all(map(_is_quick, value)) and all(map(item.holds, value.values()))


def _are_modules(value: Any) -> bool:
    """Whether a value is valid as targets; slow patterns are valid but never evaluated (`with_quick_targets`)."""
    names = value if isinstance(value, list) else [value]
    return len(names) <= MAX_NAMES and all(isinstance(name, str) and len(name) <= MAX_NAME for name in names)


_RANK = Check("a positive whole number", lambda value: type(value) is int and 0 < value <= MAX_RANK)
_MODULES = Check("a pattern or a list of names", _are_modules)
_NAME = Check("a name", lambda value: isinstance(value, str) and bool(re.fullmatch(r"\w{1,64}", value)))
_ALPHA = Check("a finite number", is_number)
_KEYS = r"by module names (a few of them may have one \d+ or .* and one (a|b))"
_SETTINGS: Fields = {
    "r": _RANK,
    "lora_alpha": _ALPHA,
    "lora_dropout": Check("a number from 0 to below 1", lambda value: is_number(value) and 0 <= value < 1),
    "bias": Check("none, all or lora_only", one_of("none", "all", "lora_only").holds),
    "target_modules": _MODULES,
    "exclude_modules": Check("a pattern, a list of names or null", _MODULES.holds, nullable=True),
    "rank_pattern": Check(f"an object of positive whole numbers {_KEYS}", functools.partial(_by_module, _RANK)),
    "alpha_pattern": Check(f"an object of finite numbers {_KEYS}", functools.partial(_by_module, _ALPHA)),
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
_LORA_A = re.compile(r"(.+)\.(?:lora_A\.weight|lora_embedding_A)")
_TASK = one_of(*(task.value for task in TaskType)).or_null()


def lora_settings(data: dict[str, Any]) -> dict[str, Any]:
    """Return PEFT's settings for a stored LoRA, whose tensors are put in afterwards.

    Args:
        data: the content of adapter_config.json.

    Raises:
        ValueError: not a plain LoRA, an unknown key, or a value that could cost too much memory or time.
    """
    if data.get("peft_type") != "LORA":
        raise ValueError(f"{_FILE}: peft_type is {data.get('peft_type')!r:.80}, expected 'LORA'")
    _refuse_others(data)
    for name, check in (("init_lora_weights", _INITIALIZATION), ("task_type", _TASK)):
        admit({name: data.get(name)}, {name: check}, f"{_FILE}: ")
    settings = admit(data, _SETTINGS, f"{_FILE}: ")
    return {**settings, "init_lora_weights": True, "inference_mode": False}


def are_patterns_admitted(data: dict[str, Any]) -> bool:
    """Whether `lora_settings` admits the keys of rank_pattern and alpha_pattern."""
    return all(_SETTINGS[key].holds(data.get(key) or {}) for key in ("rank_pattern", "alpha_pattern"))


def strengths(settings: dict[str, Any], names: Iterable[str]) -> dict[str, tuple[int, float]]:
    """Return the ranks and alphas that the settings give to modules: name -> (rank, alpha), looked up as in PEFT."""
    ranks, alphas = (settings.get(key) or {} for key in ("rank_pattern", "alpha_pattern"))
    rank, alpha = settings.get("r", 8), settings.get("lora_alpha", 8)
    return {name: (_look_up(name, ranks, rank), _look_up(name, alphas, alpha)) for name in names}


def of_tensors(settings: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the settings with ranks and alphas given by exact module names instead of patterns.

    So PEFT evaluates no untrusted pattern.

    Args:
        settings: from `lora_settings`.
        shapes: name -> shape of the stored tensors.

    Raises:
        ValueError: there is no LoRA among the tensors, their ranks contradict the settings, or too many modules have
            their own rank or alpha.
    """
    ranks = _stored_ranks(shapes)
    stated = strengths(settings, ranks)
    if others := [name for name in ranks if stated[name][0] != ranks[name]]:
        raise ValueError(
            f"the LoRA does not fit: {len(others)} tensors of another shape, such as {others[0]:.200} (found rank "
            f"{ranks[others[0]]}, expected {stated[others[0]][0]} as in {_FILE})"
        )
    alphas = {name: alpha for name, (_, alpha) in stated.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    patterns = {
        "rank_pattern": {re.escape(name): value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {re.escape(name): value for name, value in alphas.items() if value != alpha},
    }
    if sum(map(len, patterns.values())) > MAX_PATTERNS:
        raise ValueError(f"the LoRA has more than {MAX_PATTERNS} modules with a rank or alpha of their own")
    return {**with_quick_targets(settings, shapes), "r": rank, "lora_alpha": alpha, **patterns}


def with_quick_targets(settings: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the settings with targets that PEFT matches quickly: their own, or else the stored tensors' modules.

    Its own targets reveal missing tensors, but a pattern that could take forever to match must not be evaluated.
    """
    names = ("target_modules", "exclude_modules")
    if all(_are_quick(settings.get(name)) for name in names):
        return settings
    dropped = {*names, "layers_to_transform", "layers_pattern"}
    kept = {key: value for key, value in settings.items() if key not in dropped}
    return {**kept, "target_modules": sorted(_stored_ranks(shapes))}


def _stored_ranks(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Module -> rank."""
    ranks = {match[1]: shape[0] for name, shape in shapes.items() if (match := _LORA_A.fullmatch(name)) and shape}
    if not ranks:
        raise ValueError(f"the LoRA does not fit: none of its {len(shapes)} tensors is a lora_A in PEFT's format")
    return ranks


def _are_quick(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= MAX_QUICK_NAMES and all(map(_PLAIN.fullmatch, value))
    return value is None or _is_quick(value, free=2)


def _look_up(name: str, patterns: dict[str, float], default: float) -> float:
    """Return a module's value as PEFT does: that of the first key that the name ends with, at a dot."""
    for key, value in patterns.items():
        plain = key.replace("\\", "")
        if _PLAIN.fullmatch(key):
            found = name == plain or name.endswith(f".{plain}")
        else:
            found = re.match(rf"(.*\.)?({key})$", name)
        if found:
            return value
    return default


def initialization(data: dict[str, Any]) -> bool | str:
    """Return the initialization to write, with which PEFT loads the LoRA as we do.

    PEFT repeats an initialization that changes the base each time it loads the LoRA, so those are replaced by True.
    """
    stated = data.get("init_lora_weights", True)
    return True if stated is None or _CHANGES_THE_BASE.fullmatch(str(stated)) else stated


def warn_of_initialization(data: dict[str, Any]) -> None:
    """Warn if a LoRA's initialization changed the base's weights."""
    name = str(data.get("init_lora_weights"))
    if _CHANGES_THE_BASE.fullmatch(name):
        _log.warning(
            "%s: init_lora_weights is %r, which changes the base's weights when training begins; here, only the stored "
            "tensors are put over the published base. Unless that was already done, convert the LoRA when you save it "
            "(PEFT's path_initial_model_for_weight_conversion)",
            *(_FILE, name[:40]),
        )


def _refuse_others(data: dict[str, Any]) -> None:
    known = {*LoraConfig.__dataclass_fields__, "peft_version"}
    asked = [name for name in sorted(set(data) - set(_SETTINGS) - set(_WITHOUT_MEANING)) if data[name] not in _UNSET]
    for name in asked:
        if name in known or name.endswith("_config"):
            raise ValueError(f"{_FILE}: {name} is {data[name]!r:.80}; only plain LoRA is supported")
        raise ValueError(f"{_FILE} has the unknown key {name!r:.80}; {nearest(name, known)}")
