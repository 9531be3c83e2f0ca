"""Pictures: files of any format and mode -> an upright RGB image, and the values that a model takes."""

from vladva_clip.pictures.files import open_file, read_picture

__all__ = ["open_file", "read_picture"]
