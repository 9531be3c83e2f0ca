"""The wordings of sayings: how people may put what a picture shows."""

from .vocabulary import MORE_RELATION_PHRASES, NUMBERS

RELATION_WORDINGS = (
    "{first} {relation} {second}",
    "there is {first} {relation} {second}",
    "{first} is {relation} {second}",
    "a picture of {first} {relation} {second}",
    "{first} sits {relation} {second}",
    "{first} stands {relation} {second}",
    "{first} is placed {relation} {second}",
    "{first} can be seen {relation} {second}",
    "you can see {first} {relation} {second}",
    "we see {first} {relation} {second}",
    "this shows {first} {relation} {second}",
    "a photo of {first} {relation} {second}",
    "an image of {first} {relation} {second}",
    "a drawing with {first} {relation} {second}",
    "{relation} {second} is {first}",
    "{relation} {second} sits {first}",
    "{relation} {second} there is {first}",
    "{first} with {second} {side}",
    "{first} has {second} {side}",
    "{first} and {side} {second}",
    "here {first} has {second} {side}",
)
"""Who is where relative to whom; `{side}` is where the second is, seen from the first."""

SIDE_PHRASES = {
    "left of": ("to its left", "on its left"),
    "right of": ("to its right", "on its right"),
    "above": ("above it", "over it"),
    "below": ("below it", "under it", "beneath it"),
}

OTHERS_WORDINGS = (
    "{said}, with {others}",
    "{said}, plus {others}",
    "with {others}, {said}",
    "besides {others}, {said}",
)

EXISTS_WORDINGS = (
    "{objects}",
    "there is {objects}",
    "a picture of {objects}",
    "a photo of {objects}",
    "an image with {objects}",
    "you can see {objects}",
    "we see {objects}",
    "here is {objects}",
    "this shows {objects}",
    "a drawing of {objects}",
)

PLACE_WORDINGS = (
    "{object} {place}",
    "there is {object} {place}",
    "{object} is {place}",
    "{object} sits {place}",
    "{place} is {object}",
    "{place} there is {object}",
    "{place} you can see {object}",
    "a picture with {object} {place}",
)
"""One object and its place; longer lists join the first form."""

MORE_PLACE_PHRASES = {
    "top left": ("in the top left", "at the top left", "in the top left corner"),
    "top": ("at the top", "at the top center"),
    "top right": ("in the top right", "at the top right", "in the top right corner"),
    "left": ("on the left", "on the left side"),
    "center": ("in the center", "in the middle"),
    "right": ("on the right", "on the right side"),
    "bottom left": ("in the bottom left", "at the bottom left", "in the bottom left corner"),
    "bottom": ("at the bottom", "at the bottom center"),
    "bottom right": ("in the bottom right", "at the bottom right", "in the bottom right corner"),
}

COUNT_WORDINGS = (
    "{count} objects",
    "{count} shapes",
    "a picture of {count} objects",
    "there are {count} shapes",
    "there are exactly {count} objects",
    "you can see {count} shapes",
)

COUNT_LIST_WORDINGS = (
    "{count} objects: {objects}",
    "{count} shapes, {objects}",
    "a picture of {count} objects: {objects}",
    "there are {count} shapes: {objects}",
)

COUNT_ONE_OF_WORDINGS = ("{count} objects, one of them {object}", "one of the {count} shapes is {object}")

ONLY_WORDINGS = ("only {object}", "nothing but {object}", "just {object}", "a single object, {object}")

BACKGROUND_WORDINGS = (
    "{said} on a {kind} background",
    "{said} against a {kind} background",
    "a {kind} background with {said}",
    "a {kind} background, {said}",
)

COLOR_NAMES = ("something {color}", "{a} {color} shape", "{a} {color} object")


def all_wordings() -> list[str]:
    """Every wording and phrase of sayings, without the scene's words: what a tokenizer should meet besides those."""
    groups = (
        *(RELATION_WORDINGS, OTHERS_WORDINGS, EXISTS_WORDINGS, PLACE_WORDINGS, COUNT_WORDINGS, COUNT_LIST_WORDINGS),
        *(COUNT_ONE_OF_WORDINGS, ONLY_WORDINGS, BACKGROUND_WORDINGS, COLOR_NAMES),
        *SIDE_PHRASES.values(),
        *MORE_PLACE_PHRASES.values(),
        *MORE_RELATION_PHRASES.values(),
        tuple(NUMBERS.values()),
    )
    return sorted({_without_fields(wording) for group in groups for wording in group} - {""})


def _without_fields(wording: str) -> str:
    return " ".join(word for word in wording.replace(",", " ").replace(":", " ").split() if not word.startswith("{"))
