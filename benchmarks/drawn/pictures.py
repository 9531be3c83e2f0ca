"""A drawn scene as the suites' tasks and encoders take pictures."""

import hashlib
from dataclasses import dataclass

from PIL import Image

from vladva_benchmarks.suites.drawn_scenes import IMAGE_SIZE
from vladva_clip.scenes import Scene


@dataclass(frozen=True)
class DrawnPicture:
    """A scene as the suites' tasks and encoders take pictures; equal scenes are one picture."""

    scene: Scene

    @property
    def name(self) -> str:
        return f"scene {self.scene.seed}"

    def open(self) -> Image.Image:
        """Draw it."""
        return self.scene.draw(IMAGE_SIZE)

    def sha256(self) -> str:
        """Return a hash of everything that decides what is drawn."""
        return hashlib.sha256(repr(self.scene).encode()).hexdigest()
