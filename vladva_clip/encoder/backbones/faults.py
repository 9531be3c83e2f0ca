"""Faults of a base's weights, gathered in one error: missing, unexpected and misshapen tensors."""

from collections.abc import Set
from pathlib import Path

BUFFERS = ("position_ids", "inv_freq")  # constants in older files; transformers computes them


def check_complete(directory: Path, faults: dict[str, set[str]]) -> None:
    """Raise if any tensor is at fault.

    Args:
        directory: of the base.
        faults: kind of fault -> names.

    Raises:
        ValueError: names each kind of fault with its count and its first tensors.
    """
    if any(faults.values()):
        lines = [
            f"{kind}: {', '.join(sorted(names)[:8])} ({len(names)} in all)" for kind, names in faults.items() if names
        ]
        raise ValueError(
            f"the weights in {directory} do not fill the model of its config.json; {'; '.join(lines)}. "
            "Get the files again, or check that config.json belongs to them"
        )


def check_loaded(directory: Path, info: dict, expected_missing: Set[str] = frozenset()) -> None:
    """Raise ValueError for what transformers' `loading_info` reports: missing, unexpected or misshapen tensors."""
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    faults = {kind: set(map(str, info.get(kind) or ())) for kind in kinds}
    faults["missing_keys"] -= expected_missing
    faults["unexpected_keys"] = {name for name in faults["unexpected_keys"] if not name.endswith(BUFFERS)}
    check_complete(directory, faults)
