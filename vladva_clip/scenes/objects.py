"""What a scene is made of: objects with their exact position and look, and a background."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SceneObject:
    """One drawn object.

    Attributes:
        shape, color, size, place: words of the vocabulary.
        x, y: center, as a share of the image's width and height, y pointing down.
        radius: as a share of the image's width.
        rotation: degrees, clockwise.
        shade: brightness factor on the color.
        rgb: the color itself, where it is not the vocabulary's under `shade`.
    """

    shape: str
    color: str
    size: str
    place: str
    x: float
    y: float
    radius: float
    rotation: float
    shade: float
    rgb: tuple[int, int, int] | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """The (color, shape) pair, unique in a scene."""
        return self.color, self.shape


@dataclass(frozen=True)
class Background:
    """A textured background: its kind (of `BACKGROUNDS`), two RGB colors and the texture's layout.

    `texture` is how it is drawn where that is not the usual way for its kind.
    """

    kind: str
    colors: tuple[tuple[int, int, int], tuple[int, int, int]]
    count: int
    turned: bool
    seed: int
    texture: str | None = None
