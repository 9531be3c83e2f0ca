"""Class names and templates -> texts: checked, so that no wrong type is read as something else."""

import string
from collections.abc import Callable, Sequence
from typing import Any

Template = str | Callable[[str], str]


def renderers(classnames: Sequence[str], templates: Sequence[Template]) -> list[Callable[[str], str]]:
    """Check class names and templates, and return the templates as functions of a name.

    Raises:
        ValueError: none of them, another type than a sequence (one string, bytes), names that are not strings,
            templates that are neither strings nor functions, that have no hole `{}` or others, or that give the same
            texts for all classes.
    """
    _check_sequence("classnames", classnames)
    _check_sequence("templates", templates)
    for place, name in enumerate(classnames):
        if not isinstance(name, str):
            raise ValueError(f"class name {place} is {type(name).__name__} ({name!r:.60}), expected a string")
    found = [_renderer(place, template) for place, template in enumerate(templates)]
    _check_difference(list(dict.fromkeys(classnames)), found)
    return found


def _check_sequence(what: str, values: Any) -> None:
    if isinstance(values, str | bytes | bytearray) or not isinstance(values, Sequence):
        raise ValueError(f"{what} is {type(values).__name__} ({values!r:.60}), expected a list of them")
    if not values:
        raise ValueError(f"{what} is empty, expected at least one")


def _renderer(place: int, template: Any) -> Callable[[str], str]:
    if not isinstance(template, str):
        if not callable(template):
            raise ValueError(
                f"template {place} is {type(template).__name__} ({template!r:.60}), expected a string with a hole {{}} "
                "or a function of a class name"
            )
        return template
    try:
        holes = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        template.format("a name")
    except (ValueError, LookupError, AttributeError):  # a single brace, a hole within a hole, a format of numbers
        holes = []
    if not holes or set(holes) - {"", "0"} or holes.count("") > 1:
        raise ValueError(f"template {place} is {template!r:.80}, expected one hole {{}} for the class name")
    return template.format


def texts(classnames: Sequence[str], found: Sequence[Callable[[str], str]]) -> list[str]:
    """Render all texts, class after class.

    Raises:
        ValueError: a function that returns something else than a string.
    """
    rendered = [render(name) for name in classnames for render in found]
    for place, text in enumerate(rendered):
        if not isinstance(text, str):
            raise ValueError(
                f"template {place % len(found)} makes {type(text).__name__} ({text!r:.60}) of "
                f"{classnames[place // len(found)]!r:.60}, expected a string"
            )
    return rendered


def _check_difference(names: list[str], found: list[Callable[[str], str]]) -> None:
    """Refuse functions that ignore the name, as all classes would be one; a few names tell."""
    if len(names) > 1 and all(render(name) == render(names[0]) for render in found for name in names[1:8]):
        raise ValueError(
            f"the templates give the same texts for {names[0]!r:.60} and {names[1]!r:.60}, expected the class name in "
            "them"
        )
