"""Pictures: image files in the usual formats -> upright RGB images, and checks of the values that a model takes."""

from vladva_clip.pictures.files import open_file, read_picture

__all__ = ["open_file", "read_picture"]
