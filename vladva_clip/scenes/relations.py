"""Which relations hold between two drawn objects."""

from .objects import SceneObject
from .vocabulary import PLACES

RELATION_MARGIN = 0.2
"""Minimum distance, as a share of the image's width, for one object to count as left of or above another."""


def holds(relation: str, first: SceneObject, second: SceneObject) -> bool:
    """Whether `first` is left of, right of, above or below `second`, by their centers and a clear margin."""
    right, down = second.x - first.x, second.y - first.y
    distance = {"left of": right, "right of": -right, "above": down, "below": -down}[relation]
    return distance > RELATION_MARGIN


def main_relation(first: SceneObject, second: SceneObject) -> str:
    """The relation of `first` to `second` along the axis on which their places are further apart."""
    return relation_of_places(first.place, second.place)


def relation_of_places(first: str, second: str) -> str:
    """The relation of what stands in the first place to what stands in the second one, as `main_relation`."""
    right, down = steps(first, second)
    if abs(right) >= abs(down):
        return "left of" if right > 0 else "right of"
    return "above" if down > 0 else "below"


def steps(first: str, second: str) -> tuple[int, int]:
    """Columns to the right and rows down from one place to another."""
    (column, row), (column2, row2) = PLACES[first], PLACES[second]
    return column2 - column, row2 - row
