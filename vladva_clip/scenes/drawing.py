"""Draws a scene with Pillow: the background, then the objects, anti-aliased by supersampling.

Every coordinate is rounded to a whole pixel of the enlarged canvas, so that the last bit of a sine does not change the
image.
"""

from collections.abc import Iterable

from PIL import Image, ImageDraw

from .backgrounds import draw_background
from .finishing import finish
from .looks import CLASSIC, Look
from .objects import Background, SceneObject
from .outlines import Points, outline, turned, wobbled
from .vocabulary import COLORS

SUPERSAMPLING = 4
_VARIED_SUPERSAMPLING = {"smooth": 3, "soft": 2, "wobbly": 3, "jagged": 1}

RGB = tuple[int, int, int]


def draw_scene(
    objects: Iterable[SceneObject], background: Background, image_size: int, look: Look = CLASSIC
) -> Image.Image:
    """Draw a scene.

    Args:
        objects: later ones cover earlier ones.
        background: what is behind them.
        image_size: the shorter side in pixels, at least 16.
        look: how it is drawn.

    Returns:
        An RGB image; a square one, if the look's ratio is 1.

    Raises:
        ValueError: the image is too small to tell the shapes apart.
    """
    if image_size < 16:
        raise ValueError(f"image_size is {image_size}; a scene needs at least 16 pixels: pass 64 for vladva-tiny")
    factor = SUPERSAMPLING if look.is_classic else _VARIED_SUPERSAMPLING[look.edge]
    width, height = (round(image_size * max(1, ratio)) * factor for ratio in (look.ratio, 1 / look.ratio))
    canvas = draw_background(background, (width, height))
    for number, scene_object in enumerate(objects):
        _draw_object(canvas, scene_object, look, number)
    return finish(canvas.reduce(factor), look)


def _draw_object(canvas: Image.Image, one: SceneObject, look: Look, number: int) -> None:
    draw, color = ImageDraw.Draw(canvas), one.rgb or shaded_color(one.color, one.shade)
    if look.is_classic and one.shape == "circle":
        center, radius = (one.x * canvas.width, one.y * canvas.width), one.radius * canvas.width
        draw.ellipse(
            [round(value) for value in (*(c - radius for c in center), *(c + radius for c in center))], fill=color
        )
        return
    points = turned(outline(one.shape, look.arms, look.slim), one.rotation)
    if look.edge == "wobbly":
        points = wobbled(points, look.seed + number)
    _fill(canvas, draw, points, one, look, color)


def _fill(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, points: Points, one: SceneObject, look: Look, color: RGB
) -> None:
    """Draw an object's outline and what is in it."""
    line = max(1, round(look.thickness * _scale(canvas) * one.radius))
    at = _on_canvas(points, one, look, canvas)
    if look.fill in ("gradient", "hatched"):
        mask = Image.new("L", canvas.size, 0)
        ImageDraw.Draw(mask).polygon(at, fill=255)
        canvas.paste(_shading(at, color, canvas.size, look), mask=mask)
        return
    draw.polygon(at, fill=None if look.fill == "outlined" else color)
    if look.fill in ("bordered", "outlined"):
        width = line if look.fill == "outlined" else max(1, line // 2)
        draw.line([*at, *at[:2]], fill=color if look.fill == "outlined" else look.line, width=width, joint="curve")


def _shading(at: Points, color: RGB, size: tuple[int, int], look: Look) -> Image.Image:
    """A picture of the canvas's size, from a lighter to a darker color across the object, or striped with both."""
    top, bottom = (edge(y for _, y in at) for edge in (min, max))
    height = max(1, bottom - top)
    shading = Image.new("RGB", size)
    draw = ImageDraw.Draw(shading)
    step = max(2, height // 6)
    for y in range(max(0, top), min(size[1], bottom + 1)):
        share = (y - top) / height if look.fill == "gradient" else ((y - top) // step % 2) * 0.85
        draw.line((0, y, size[0], y), fill=tuple(min(255, round(part * (1.08 - 0.5 * share))) for part in color))
    return shading


def _scale(canvas: Image.Image) -> float:
    """The length in pixels of which a radius is a share: the side of a square as large as the canvas."""
    return (canvas.width * canvas.height) ** 0.5


def _on_canvas(points: Points, one: SceneObject, look: Look, canvas: Image.Image) -> list[tuple[int, int]]:
    """An object's outline in pixels, on the look's leaning plane."""
    if look.is_classic:
        center, radius = (one.x * canvas.width, one.y * canvas.width), one.radius * canvas.width
        return [(round(center[0] + x * radius), round(center[1] + y * radius)) for x, y in points]
    wide, high = (one.radius * _scale(canvas) / side for side in canvas.size)
    placed = [leaning(one.x + x * wide, one.y + y * high, look) for x, y in points]
    return [(round(x * canvas.width), round(y * canvas.height)) for x, y in placed]


def leaning(x: float, y: float, look: Look) -> tuple[float, float]:
    """A point of the plane, as a share of the canvas, where the look's zoom and tilt bring it."""
    (shear, perspective), right, down = look.tilt, (x - 0.5) * look.zoom, (y - 0.5) * look.zoom
    return 0.5 + right * (1 + perspective * down) + shear * down, 0.5 + down * (1 + perspective * down / 2)


def shaded_color(color: str, shade: float) -> RGB:
    """The RGB of a color under a shade (1 keeps it, less darkens it)."""
    red, green, blue = (min(255, round(channel * shade)) for channel in COLORS[color])
    return red, green, blue
