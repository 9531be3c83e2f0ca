"""Refuse image tensors that were not preprocessed. Only CPU tensors are checked: elsewhere the check would wait."""

import torch

LEAST, TIMES = 20.0, 10.0  # randn stays below 7; unnormalized pixels from 0 to 255 reach far above


def highest(mean: tuple[float, ...], std: tuple[float, ...]) -> float:
    """Return the bound: ten times the largest value that preprocess gives for black or white, and at least 20."""
    reach = max(max(abs(m), abs(1 - m)) / s for m, s in zip(mean, std, strict=True))
    return max(LEAST, TIMES * reach)


def require_normalized(images: torch.Tensor, bound: float) -> None:
    """Refuse values that are not finite or beyond the bound; other devices and traced tensors are not checked.

    Args:
        images: floats of any shape.
        bound: see `highest`.

    Raises:
        ValueError: the message gives the lowest and highest value.
    """
    if images.device.type != "cpu" or not images.numel() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    try:
        images = images.detach().float()  # aminmax doesn't support 8-bit floats
        low, high = (value.item() for value in torch.aminmax(images))  # NaN if any is NaN
        normalized = -bound <= low and high <= bound
    except RuntimeError:  # torch.func.vmap and fake tensors have no values to read
        return
    if not normalized:
        raise ValueError(
            f"encode_image got values from {low:.4g} to {high:.4g}, expected finite ones within {bound:.4g} of 0, as "
            "preprocess makes them: pass preprocess(image), not pixels from 0 to 255"
        )
