"""The words of the drawn world: colors, shapes, sizes, places, relations and the held-out pairs."""

COLORS = {
    "red": (214, 36, 40),
    "green": (36, 158, 58),
    "blue": (36, 72, 214),
    "yellow": (246, 224, 44),
    "purple": (138, 44, 168),
    "orange": (246, 134, 24),
    "cyan": (52, 206, 222),
    "white": (248, 248, 248),
}
"""Color name -> RGB, 0 to 255, before the shade of an object is applied."""

CLASS_TEMPLATES = ("{}", "a picture of {}", "there is {}")
"""Prompts of a zero-shot class, such as "a red circle"."""

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")

SIZES = {"small": (0.085, 0.095), "large": (0.125, 0.140)}
"""Size name -> smallest and largest radius, as a share of the image's width."""

GRID = (0.17, 0.5, 0.83)
"""Centers of the three columns (or rows), as a share of the image's width (or height)."""

PLACES = {
    "top left": (0, 0),
    "top": (1, 0),
    "top right": (2, 0),
    "left": (0, 1),
    "center": (1, 1),
    "right": (2, 1),
    "bottom left": (0, 2),
    "bottom": (1, 2),
    "bottom right": (2, 2),
}
"""Place name -> (column, row) of the 3 x 3 grid."""

PLACE_PHRASES = {
    "top left": "in the top left",
    "top": "at the top",
    "top right": "in the top right",
    "left": "on the left",
    "center": "in the center",
    "right": "on the right",
    "bottom left": "in the bottom left",
    "bottom": "at the bottom",
    "bottom right": "in the bottom right",
}

RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
"""Relation -> its opposite, which is also its inverse (A left of B = B right of A)."""

RELATION_PHRASES = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}

MORE_RELATION_PHRASES = {
    "left of": (*RELATION_PHRASES["left of"], "further left than"),
    "right of": (*RELATION_PHRASES["right of"], "further right than"),
    "above": (*RELATION_PHRASES["above"], "higher than"),
    "below": (*RELATION_PHRASES["below"], "beneath", "lower than"),
}
"""How captions of other styles than the classic one say it as well."""

COUNTS = {2: "two", 3: "three", 4: "four"}
"""Number of objects in a scene -> its word."""

NUMBERS = {1: "one", **COUNTS}
"""The same, with the scenes of one object that only other styles than the classic one have."""

CLASSIC_BACKGROUNDS = ("plain", "shaded", "striped", "checkered", "dotted", "cloudy")

BACKGROUNDS = (*CLASSIC_BACKGROUNDS, "grainy", "photographic")

HELD_OUT_PAIRS = frozenset(
    {
        ("red", "star"),
        ("green", "circle"),
        ("blue", "triangle"),
        ("yellow", "cross"),
        ("purple", "square"),
        ("orange", "diamond"),
    }
)
"""(color, shape) pairs that appear in no training scene and no training caption."""
