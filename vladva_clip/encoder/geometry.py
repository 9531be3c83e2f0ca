"""Image arguments at load time: they can repeat a model's geometry, not change it."""

import dataclasses
import numbers
from typing import Any

from vladva_clip.storage.config import ImageConfig, nearest


def side(image_size: int | tuple[int, int] | None) -> int | None:
    """Return a square's side in pixels; raises ValueError for another shape, or what is not a whole number."""
    if image_size is None:
        return None
    sides = list(image_size) if isinstance(image_size, tuple | list) else [image_size]
    if not sides or any(one != sides[0] for one in sides):
        raise ValueError(f"image size {tuple(sides)} is not square, expected a square one")
    if isinstance(sides[0], bool) or not isinstance(sides[0], numbers.Integral) or sides[0] < 1:
        raise ValueError(f"image size is {image_size!r:.80}, expected a positive whole number of pixels, such as 448")
    return int(sides[0])


def asked_side(image_size: int | None, force_image_size: int | tuple[int, int] | None) -> int | None:
    """Return the side that our argument or open_clip's asks for; raises ValueError if they differ, and as `side`."""
    ours, theirs = side(image_size), side(force_image_size)
    if ours is not None and theirs is not None and ours != theirs:
        raise ValueError(f"image_size={ours} and force_image_size={theirs} differ: give one of them")
    return theirs if ours is None else ours


def forced_preprocessing(cfg: dict[str, Any]) -> dict[str, Any]:
    """Return what open_clip's `force_preprocess_cfg` asks for; raises ValueError for unknown keys or another mode."""
    known = {field.name for field in dataclasses.fields(ImageConfig)}
    for name in cfg:
        if name not in known | {"mode"}:
            raise ValueError(f"force_preprocess_cfg has the unknown key {name!r}; {nearest(str(name), known)}")
    if cfg.get("mode") not in (None, "RGB"):
        raise ValueError(f"force_preprocess_cfg has the mode {cfg['mode']!r}, expected RGB")
    return {name: value for name, value in cfg.items() if name != "mode"}


def refuse_other_geometry(image: ImageConfig, asked: dict[str, Any]) -> None:
    """Raise ValueError for an argument that differs from the model's own geometry."""
    for name, value in asked.items():
        own = getattr(image, name, value)
        value = tuple(value) if isinstance(value, list) else value
        if value is not None and value != own and not (name == "size" and side(value) == own):
            raise ValueError(
                f"{name}={value!r} differs from the model's own {own!r}: preprocessing is part of the model and can't "
                "be changed by an argument; leave it out"
            )
