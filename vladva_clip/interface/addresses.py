"""Object representations without their memory address, which differs from run to run and helps nobody."""

import re

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]*(?=$|[>,)\]}'\"\s])")


def without_addresses(text: str) -> str:
    """Return a text with the addresses removed from `<PIL.Image.Image image mode=RGB size=8x8 at 0x7F2C>` and the like.

    An address that is cut off in the middle is removed too; names and paths that contain 0x are left alone.

    Example:
        >>> without_addresses("cannot identify image file <_io.BytesIO object at 0x7f3c5a2b1d00>")
        'cannot identify image file <_io.BytesIO object>'
    """
    return _ADDRESS.sub("", text)
