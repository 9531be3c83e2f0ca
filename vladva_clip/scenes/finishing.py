"""What a camera or a codec would add to a drawn scene: light, blur, grain, JPEG artefacts."""

import random
from io import BytesIO

from PIL import Image, ImageEnhance, ImageFilter
from PIL.JpegImagePlugin import JpegImageFile

from .looks import Look


def finish(image: Image.Image, look: Look) -> Image.Image:
    """Return the picture as the look's camera takes it and its codec keeps it; unchanged for a classic look.

    JPEG compression is Pillow's, whose last bits may differ between releases of its library.
    """
    for enhance, factor in zip(_LIGHT, look.light, strict=True):
        image = enhance(image).enhance(factor) if factor != 1 else image
    if look.blur:
        image = image.filter(ImageFilter.GaussianBlur(look.blur * min(image.size) / 64))
    if look.grain:
        noise = random.Random(look.seed).randbytes(3 * image.width * image.height)
        image = Image.blend(image, Image.frombytes("RGB", image.size, noise), look.grain)
    return image if look.quality is None else _compressed(image, look.quality)


_LIGHT = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    file.seek(0)
    return JpegImageFile(file).convert("RGB")
