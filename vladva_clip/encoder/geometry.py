"""Image arguments at load time: they can repeat a model's geometry, not change it."""

import dataclasses
from typing import Any

from vladva_clip.storage.config import ImageConfig, nearest


def side(image_size: int | tuple[int, int] | None) -> int | None:
    """Return a square's side in pixels; raises ValueError for another shape."""
    if image_size is None or isinstance(image_size, int):
        return image_size
    if not isinstance(image_size, list | tuple):
        raise ValueError(f"image size is {image_size!r:.60}, expected a whole number of pixels")
    if len(set(image_size)) != 1:
        raise ValueError(f"image size {tuple(image_size)} is not square, expected a square one")
    return image_size[0]


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
