"""Values of image tensors that no preprocess can have made: seen on CPU tensors, where looking waits for nothing."""

import torch

LEAST, TIMES = 20.0, 10.0  # randn stays below 7; pixels of 0 to 255 that weren't normalized reach far above


def highest(mean: tuple[float, ...], std: tuple[float, ...]) -> float:
    """Return the bound: ten times what preprocess makes of black and white, and 20 at least."""
    reach = max(max(abs(m), abs(1 - m)) / s for m, s in zip(mean, std, strict=True))
    return max(LEAST, TIMES * reach)


def require_normalized(images: torch.Tensor, bound: float) -> None:
    """Refuse values that are not finite or beyond the bound; on other devices and under tracing nothing is read.

    Args:
        images: floats of any shape.
        bound: see `highest`.

    Raises:
        ValueError: with the lowest and the highest value.
    """
    if images.device.type != "cpu" or not images.numel() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    try:
        images = images.detach().float()  # aminmax takes no floats of 8 bits
        low, high = (value.item() for value in torch.aminmax(images))  # NaN if any is NaN
        normalized = -bound <= low and high <= bound
    except RuntimeError:  # torch.func.vmap, fake tensors: there is no value to read
        return
    if not normalized:
        raise ValueError(
            f"encode_image got values from {low:.4g} to {high:.4g}, expected finite ones within {bound:.4g} of 0, as "
            "preprocess makes them: pass preprocess(image), not pixels from 0 to 255"
        )
