"""Embed one image and one caption with a model just loaded: finite weights can still give features that are not."""

from typing import Any

import torch

from vladva_clip.encoder import text_only


@torch.no_grad()
def require_finite(model: Any, name: str) -> None:
    """Embed a gray image, if the model has its vision tower, and a caption of one token, once.

    Args:
        model: a VladvaCLIP.
        name: the model's, for the error.

    Raises:
        ValueError: embedding fails, or a feature has NaN or infinity; the side and the dtype are named.
        torch.OutOfMemoryError: the device is full.
    """
    height, width = model.visual.image_size
    inputs = {
        "image": (model.encode_image, torch.zeros(1, 3, height, width)),
        "text": (model.encode_text, torch.tensor([[1, model.text.prompts.eot_token_id]])),
    }
    if not text_only.sees(model.visual.backbone):
        del inputs["image"]
    for side, (encode, given) in inputs.items():
        try:
            features = encode(given)
        except torch.OutOfMemoryError:
            raise
        except (ArithmeticError, LookupError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"{name} can't embed one {side} ({type(error).__name__}: {error!s:.200}): the sizes in its config.json "
                "don't fit together; get the base's files again"
            ) from error
        if not features.isfinite().all():
            raise ValueError(
                f"{name} gives {side} features with NaN or infinity in {model.visual.backbone.dtype}: its weights, "
                "LoRA or soft prompts have values that overflow this dtype. Try precision='fp32'; if that does not "
                "help, the files are damaged: get them again"
            )
