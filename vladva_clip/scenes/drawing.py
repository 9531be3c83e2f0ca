"""Draws a scene with Pillow: a textured background, then the objects, anti-aliased by supersampling.

Every coordinate is rounded to a whole pixel of the enlarged canvas, so that the last bit of a sine does not change the
image.
"""

import math
import random
from collections.abc import Iterable

from PIL import Image, ImageDraw

from .objects import Background, SceneObject
from .vocabulary import COLORS

SUPERSAMPLING = 4

RGB = tuple[int, int, int]
Points = list[tuple[float, float]]


def draw_scene(objects: Iterable[SceneObject], background: Background, image_size: int) -> Image.Image:
    """Draw a scene.

    Args:
        objects: later ones cover earlier ones.
        background: what is behind them.
        image_size: width and height in pixels, at least 16.

    Returns:
        An RGB image of `image_size` x `image_size` pixels.

    Raises:
        ValueError: the image is too small to tell the shapes apart.
    """
    if image_size < 16:
        raise ValueError(f"image_size is {image_size}; a scene needs at least 16 pixels: pass 64 for vladva-tiny")
    canvas = _draw_background(background, image_size * SUPERSAMPLING)
    for scene_object in objects:
        _draw_object(canvas, scene_object)
    return canvas.reduce(SUPERSAMPLING)


def _draw_background(background: Background, width: int) -> Image.Image:
    first, second = background.colors
    mask = _TEXTURES[background.kind](background, width)
    return Image.composite(Image.new("RGB", (width, width), second), Image.new("RGB", (width, width), first), mask)


def _plain(background: Background, width: int) -> Image.Image:
    return Image.new("L", (width, width), 0)


def _shaded(background: Background, width: int) -> Image.Image:
    """A linear gradient across the image, from top to bottom or from left to right."""
    gradient = Image.linear_gradient("L").resize((width, width))
    return gradient if background.turned else gradient.transpose(Image.Transpose.ROTATE_90)


def _striped(background: Background, width: int) -> Image.Image:
    mask = Image.new("L", (width, width), 0)
    draw, step = ImageDraw.Draw(mask), width / background.count
    for index in range(0, background.count, 2):
        low, high = round(index * step), round((index + 1) * step) - 1
        draw.rectangle((low, 0, high, width) if background.turned else (0, low, width, high), fill=255)
    return mask


def _checkered(background: Background, width: int) -> Image.Image:
    count = background.count
    values = bytes(255 * ((column + row + background.turned) % 2) for row in range(count) for column in range(count))
    return Image.frombytes("L", (count, count), values).resize((width, width), Image.Resampling.NEAREST)


def _dotted(background: Background, width: int) -> Image.Image:
    mask = Image.new("L", (width, width), 0)
    draw, step = ImageDraw.Draw(mask), width / background.count
    radius = step / 5
    for row in range(background.count):
        for column in range(background.count):
            x, y = (column + 0.5) * step, (row + 0.5) * step
            draw.ellipse([round(v) for v in (x - radius, y - radius, x + radius, y + radius)], fill=255)
    return mask


def _cloudy(background: Background, width: int) -> Image.Image:
    """Smooth random clouds: a small grid of random bytes, enlarged."""
    count = background.count
    noise = random.Random(background.seed).randbytes(count * count)
    return Image.frombytes("L", (count, count), noise).resize((width, width), Image.Resampling.BILINEAR)


_TEXTURES = {
    "plain": _plain,
    "shaded": _shaded,
    "striped": _striped,
    "checkered": _checkered,
    "dotted": _dotted,
    "cloudy": _cloudy,
}


def _draw_object(canvas: Image.Image, scene_object: SceneObject) -> None:
    draw, width = ImageDraw.Draw(canvas), canvas.width
    color = shaded_color(scene_object.color, scene_object.shade)
    center = (scene_object.x * width, scene_object.y * width)
    radius = scene_object.radius * width
    if scene_object.shape == "circle":
        box = [center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius]
        draw.ellipse([round(value) for value in box], fill=color)
    else:
        outline = _rotate(_OUTLINES[scene_object.shape], scene_object.rotation)
        draw.polygon([(round(center[0] + x * radius), round(center[1] + y * radius)) for x, y in outline], fill=color)


def shaded_color(color: str, shade: float) -> RGB:
    """The RGB of a color under a shade (1 keeps it, less darkens it)."""
    red, green, blue = (min(255, round(channel * shade)) for channel in COLORS[color])
    return red, green, blue


def _rotate(outline: Points, degrees: float) -> Points:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cosine - y * sine, x * sine + y * cosine) for x, y in outline]


def _star_outline() -> Points:
    radii = (1.2, 0.5)
    turns = [(radii[step % 2], math.radians(36 * step - 90)) for step in range(10)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in turns]


def _cross_outline(arm: float = 1.05, half_width: float = 0.36) -> Points:
    quarter = [(half_width, -arm), (half_width, -half_width), (arm, -half_width)]
    return [point for turn in range(4) for point in _rotate(quarter, 90 * turn)]


# Outlines in units of the radius, y pointing down. The diamond is taller than wide, so that it is not a turned square.
_OUTLINES: dict[str, Points] = {
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": [(0.0, -1.1), (1.05, 0.8), (-1.05, 0.8)],
    "star": _star_outline(),
    "cross": _cross_outline(),
    "diamond": [(0.0, -1.25), (0.8, 0.0), (0.0, 1.25), (-0.8, 0.0)],
}
