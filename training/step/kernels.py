"""Checks, before a model loads, that this machine has the attention and the compiler that a recipe asks for."""

import importlib.util
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

import torch

from vladva_clip.interface import devices
from vladva_training.config import ModelSection, Recipe
from vladva_training.processes.one_line import in_one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Package(NamedTuple):
    """A package that provides an attention: its name, the module to look for, and how to install it."""

    package: str
    module: str
    how: str


PLAIN = ("eager", "sdpa")  # run everywhere
FLASH = {
    "flash_attention_2": Package("flash-attn", "flash_attn", "pip install flash-attn --no-build-isolation"),
    "flash_attention_3": Package(
        "flash-attn-3",
        "flash_attn_interface",
        "build it from the folder hopper of github.com/Dao-AILab/flash-attention",
    ),
    "flash_attention_4": Package("flash-attn-4", "flash_attn.cute", "pip install flash-attn-4"),
}
FLEX = "flex_attention"
ELSE = "use model.attention=sdpa, which runs everywhere"


def check_kernels(recipe: Recipe, device: str | torch.device | None = None, elsewhere: bool = False) -> None:
    """Check `model.attention` and `model.compile` against what is installed here.

    Args:
        recipe: of a run that is about to start or to be planned.
        device: where it computes (see `devices`); None for CUDA if there is one, else the CPU.
        elsewhere: it is planned for a GPU of another machine, so nothing has to be installed here.

    Raises:
        ValueError: an unknown attention, one that is not installed or does not train on this device, or no compiler for
            `model.compile`; says what to do.
    """
    model = recipe.model
    if model.attention in (None, *PLAIN) and not model.compile:
        return
    place = devices.resolve(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if model.attention not in (None, *PLAIN):
        _require_known(model.attention)
        if not elsewhere:
            check_attention(model.attention, place.type)
        _check_dtype(model)
    if model.compile and not elsewhere:
        _check_compiler(place)


def check_attention(name: str, device_type: str) -> None:
    """Check that an attention is known, trains on this type of device, and is installed.

    Raises:
        ValueError: it isn't; lists everything that is missing, or the known names.
    """
    _require_known(name)
    lacking = []
    if name in FLASH and not _is_installed(FLASH[name].module):
        lacking.append(f"{FLASH[name].package}, which is not installed ({FLASH[name].how})")
    if name in (*FLASH, FLEX) and device_type != "cuda":
        lacking.append(f"a CUDA device to train on (this is {device_type})")
    if lacking:
        raise ValueError(f"model.attention is {name!r}, which needs {' and '.join(lacking)}: {ELSE}")


def _require_known(name: str) -> None:
    known = _known()
    if name not in known:
        raise ValueError(f"model.attention is {name!r}, {_why_unknown(name)}; expected one of {', '.join(known)}")


def set_attention(lvlm: "PreTrainedModel", name: str) -> None:
    """Switch the LLM within an LVLM to another attention, in place.

    Raises:
        ValueError: transformers refuses it (a package is too old or broken), or it does not support the model's dtype.
    """
    if name in FLASH and lvlm.dtype.itemsize > 2:
        raise ValueError(
            f"model.attention is {name!r}, which does not support {lvlm.dtype}: set model.precision=bf16, or {ELSE}"
        )
    try:
        lvlm.set_attn_implementation({"text_config": name})
    except (ImportError, ValueError, RuntimeError) as error:
        raise ValueError(f"model.attention is {name!r}, which can't be used ({in_one_line(error)}): {ELSE}") from error


def _known() -> Collection[str]:
    """All attentions that transformers has here, registered ones included, except those that need a paged cache."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    found = [name for name in ALL_ATTENTION_FUNCTIONS.valid_keys() if not name.startswith("paged|")]
    return [*PLAIN, *sorted(set(found) - set(PLAIN))]


def _why_unknown(name: str) -> str:
    if name.startswith("paged|"):
        return "which serves requests from a paged cache and can't train"
    if "/" in name:
        return "a kernel from the Hub, which would be downloaded and run: install the package instead"
    return "which transformers does not know"


def _check_dtype(model: ModelSection) -> None:
    """Refuse flash attention for float32 models: such a run also measures and checks in float32."""
    full, fp32 = model.train == "full", model.precision in ("fp32", "float32")
    if model.attention in FLASH and (full or fp32):
        key = "model.train=full (in float32)" if full else f"model.precision={model.precision}"
        raise ValueError(
            f"model.attention is {model.attention!r}, which does not support float32, and {key} asks for it: {ELSE}"
        )


def _check_compiler(device: torch.device) -> None:
    """Compile a small function, as the run would compile the LLM."""
    try:
        torch.compile(lambda tensor: tensor.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # of torch, its compiler or the system: all mean that nothing compiles here
        needed = "triton and a C compiler" if device.type == "cuda" else "a C++ compiler (g++ or clang++)"
        raise ValueError(
            f"model.compile is true, but torch.compile does not work here ({in_one_line(error)}): install "
            f"{needed}, or leave model.compile=false"
        ) from error


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # its parent package is missing; a stand-in in sys.modules
        return False
