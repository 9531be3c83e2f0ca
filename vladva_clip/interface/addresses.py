"""Python's printed objects without the place in memory, which differs from run to run and tells nobody anything."""

import re

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]*(?=$|[>,)\]}'\"\s])")


def without_addresses(text: str) -> str:
    """Return a text in which `<PIL.Image.Image image mode=RGB size=8x8 at 0x7F2C>` and the like say no address.

    One that is cut in the middle of its address is covered too; names and paths that hold 0x stay as they are.

    Example:
        >>> without_addresses("cannot identify image file <_io.BytesIO object at 0x7f3c5a2b1d00>")
        'cannot identify image file <_io.BytesIO object>'
    """
    return _ADDRESS.sub("", text)
