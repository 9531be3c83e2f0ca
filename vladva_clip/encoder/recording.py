"""Programs that PyTorch records from a run of the model: which kinds, and what becomes of them."""

import types
from typing import Any

import torch


def is_exporting() -> bool:
    """Whether `torch.export` is recording a program (`torch.compile`, which guards what it records, isn't meant)."""
    if hasattr(torch.compiler, "is_exporting"):
        return torch.compiler.is_exporting()
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()  # before torch 2.7


def refuse_tracing(what: str) -> None:
    """Refuse `torch.jit.trace`, whose program would hold the lengths and the order of the rows it was recorded with.

    Args:
        what: is called.

    Raises:
        ValueError: a trace is being recorded.
    """
    if torch.jit.is_tracing():
        raise ValueError(
            f"torch.jit.trace (and torch.onnx.export with dynamo=False) can't record {what}: the program would be "
            "wrong for other captions or numbers of rows. Use torch.export.export(tower, (inputs,), strict=False)"
        )


def without_compiled(state: dict[str, Any]) -> dict[str, Any]:
    """Return an object's attributes without compiled methods, as `model.encode_text = torch.compile(...)` leaves them.

    They are bound to the object that they were made of, so that a copy would run the original's weights.
    """
    return {name: value for name, value in state.items() if not _is_compiled(value)}


def _is_compiled(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and hasattr(value, "_torchdynamo_orig_callable")
