"""64-bit identities: equal where two pictures, two captions or two facts are the same."""

import hashlib

from PIL import Image

UNKNOWN = 0
"""The identity of something absent or not examined; it equals nothing, not even itself."""

_PIXELS_AT_A_TIME = 2**18  # so that a large picture is not copied as a whole


def identity(data: bytes) -> int:
    """Return the identity of some bytes, a signed 64-bit integer."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def picture_identity(image: Image.Image) -> int:
    """Return the identity of a decoded picture: of its mode, size and pixels.

    It uses pixels rather than paths or keys: they are what the model sees, and every source has them. So a picture is
    recognized under another path or key, as a copy, in another lossless format, or with other metadata. A picture that
    was re-encoded with loss, cropped or resized is a different one.
    """
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=8)
    rows = max(1, _PIXELS_AT_A_TIME // max(1, image.width))
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        digest.update(strip.tobytes())
    return int.from_bytes(digest.digest(), "big", signed=True)
