"""Programs that PyTorch records from a run of the model: export is supported, tracing is refused."""

import types
from typing import Any

import torch


def is_exporting() -> bool:
    """Return whether `torch.export` is recording a program. False under `torch.compile`, which guards its programs."""
    if hasattr(torch.compiler, "is_exporting"):
        return torch.compiler.is_exporting()
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()  # before torch 2.7


def refuse_tracing(what: str) -> None:
    """Refuse `torch.jit.trace`: its program would be fixed to the lengths and the order of the recorded rows.

    Args:
        what: the thing that is called, for the error.

    Raises:
        ValueError: a trace is being recorded.
    """
    if torch.jit.is_tracing():
        raise ValueError(
            f"torch.jit.trace (and torch.onnx.export with dynamo=False) can't record {what}: the program would be "
            "wrong for other captions or numbers of rows. Use torch.export.export(tower, (inputs,), strict=False)"
        )


def without_compiled(state: dict[str, Any]) -> dict[str, Any]:
    """Return an object's attributes without compiled methods, such as `model.encode_text = torch.compile(...)`.

    A compiled method is bound to the object it was made from, so a copy would run the original's weights.
    """
    return {name: value for name, value in state.items() if not _is_compiled(value)}


def _is_compiled(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and hasattr(value, "_torchdynamo_orig_callable")
