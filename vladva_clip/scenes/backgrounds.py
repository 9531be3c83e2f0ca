"""Draws backgrounds with Pillow: two colors mixed by a texture, or something like a photograph out of focus."""

import random

from PIL import Image, ImageDraw, ImageOps

from .objects import Background

Size = tuple[int, int]


def draw_background(background: Background, size: Size) -> Image.Image:
    """Draw a background as an RGB image of `size` (width, height) pixels."""
    texture = background.texture or background.kind
    if texture == "photographic":
        return _photographic(background, size)
    first, second = background.colors
    mask = _TEXTURES[texture](background, size)
    return Image.composite(Image.new("RGB", size, second), Image.new("RGB", size, first), mask)


def _plain(background: Background, size: Size) -> Image.Image:
    return Image.new("L", size, 0)


def _shaded(background: Background, size: Size) -> Image.Image:
    """A linear gradient across the image, from top to bottom or from left to right."""
    gradient = Image.linear_gradient("L")
    if background.turned:
        return gradient.resize(size)
    return gradient.resize(size[::-1]).transpose(Image.Transpose.ROTATE_90)


def _striped(background: Background, size: Size) -> Image.Image:
    mask = Image.new("L", size, 0)
    draw, (width, height) = ImageDraw.Draw(mask), size
    step = (width if background.turned else height) / background.count
    for index in range(0, background.count, 2):
        low, high = round(index * step), round((index + 1) * step) - 1
        draw.rectangle((low, 0, high, height) if background.turned else (0, low, width, high), fill=255)
    return mask


def _diagonal(background: Background, size: Size) -> Image.Image:
    """Stripes that rise to the right, or fall."""
    mask = Image.new("L", size, 0)
    draw, (width, height) = ImageDraw.Draw(mask), size
    step = (width + height) / background.count
    for index in range(0, background.count, 2):
        low, high = round(index * step), round((index + 1) * step)
        draw.polygon([(low - height, height), (low, 0), (high, 0), (high - height, height)], fill=255)
    return mask if background.turned else ImageOps.mirror(mask)


def _checkered(background: Background, size: Size) -> Image.Image:
    count = background.count
    values = bytes(255 * ((column + row + background.turned) % 2) for row in range(count) for column in range(count))
    return Image.frombytes("L", (count, count), values).resize(size, Image.Resampling.NEAREST)


def _dotted(background: Background, size: Size) -> Image.Image:
    mask = Image.new("L", size, 0)
    draw, step, down = ImageDraw.Draw(mask), size[0] / background.count, size[1] / background.count
    radius = min(step, down) / 5
    for row in range(background.count):
        for column in range(background.count):
            x, y = (column + 0.5) * step, (row + 0.5) * down
            draw.ellipse([round(v) for v in (x - radius, y - radius, x + radius, y + radius)], fill=255)
    return mask


def _cloudy(background: Background, size: Size) -> Image.Image:
    """Smooth random clouds: a small grid of random bytes, enlarged."""
    return _noise("L", background.count, random.Random(background.seed)).resize(size, Image.Resampling.BILINEAR)


def _grainy(background: Background, size: Size) -> Image.Image:
    """Random grains, a few pixels wide."""
    return _noise("L", 5 * background.count, random.Random(background.seed)).resize(size, Image.Resampling.NEAREST)


def _photographic(background: Background, size: Size) -> Image.Image:
    """Large, middle and small patches of color over each other, brighter above than below or the other way round."""
    rng = random.Random(background.seed)
    first, second = background.colors
    layers = [
        _noise("RGB", count, rng).resize(size, Image.Resampling.BICUBIC) for count in (3, 7, background.count * 3)
    ]
    patches = Image.blend(Image.blend(layers[0], layers[1], 0.4), layers[2], 0.2)
    ground = Image.composite(Image.new("RGB", size, second), Image.new("RGB", size, first), _shaded(background, size))
    return Image.blend(ground, patches, 0.35)


def _noise(mode: str, count: int, rng: random.Random) -> Image.Image:
    """An image of `count` x `count` random pixels."""
    return Image.frombytes(mode, (count, count), rng.randbytes(count * count * len(mode)))


_TEXTURES = {
    "plain": _plain,
    "shaded": _shaded,
    "striped": _striped,
    "diagonal": _diagonal,
    "checkered": _checkered,
    "dotted": _dotted,
    "cloudy": _cloudy,
    "grainy": _grainy,
}
