"""Class names and templates -> texts, with checks, so that a wrong type isn't read as something else."""

import string
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

Template = str | Callable[[str], str]
CLIP_BENCHMARKS_HOLE = "c"  # "a photo of a {c}."


def renderers(classnames: Sequence[str], templates: Sequence[Template], hole: str = "") -> list[Callable[[str], str]]:
    """Check class names and templates, and return the templates as functions of a name.

    Args:
        classnames: names of the classes.
        templates: strings with a hole, or functions of a name.
        hole: the name in the hole's braces: "" (`{}`, or `{0}` as in open_clip), or "c" as in clip_benchmark.

    Raises:
        ValueError: an empty list, or not a sequence (one string, bytes); names that are not strings, all empty or all
            equal; templates that are neither strings nor functions, that don't have exactly their hole without a
            format, or that give the same text for all classes.
    """
    _check_sequence("classnames", classnames)
    _check_sequence("templates", templates)
    for place, name in enumerate(classnames):
        if not isinstance(name, str):
            raise ValueError(f"class name {place} is {type(name).__name__} ({name!r:.60}), expected a string")
    found = [_renderer(place, template, hole) for place, template in enumerate(templates)]
    _check_difference(list(dict.fromkeys(classnames)), len(classnames), found)
    return found


def warn_of_alike(classnames: Sequence[str], stacklevel: int) -> None:
    """Warn about duplicate or empty class names; published lists have some, so they are not errors."""
    twice = [name for name, count in Counter(name.strip() for name in classnames).items() if count > 1]
    if twice:
        shown = ", ".join(f"{name!r:.40}" for name in twice[:3])
        text = f"{len(twice)} class names occur more than once ({shown}): such classes can't be told apart"
        warnings.warn(text, stacklevel=stacklevel + 1)
    if "" in (name.strip() for name in classnames):
        warnings.warn("a class name is empty: its texts consist of the templates only", stacklevel=stacklevel + 1)


def texts(classnames: Sequence[str], found: Sequence[Callable[[str], str]]) -> list[str]:
    """Render all texts, ordered by class.

    Raises:
        ValueError: a function returns something other than a string.
    """
    rendered = [render(name) for name in classnames for render in found]
    for place, text in enumerate(rendered):
        if not isinstance(text, str):
            raise ValueError(
                f"template {place % len(found)} returns {type(text).__name__} ({text!r:.60}) for "
                f"{classnames[place // len(found)]!r:.60}, expected a string"
            )
    return rendered


def _check_sequence(what: str, values: Any) -> None:
    if isinstance(values, str | bytes | bytearray) or not isinstance(values, Sequence):
        raise ValueError(f"{what} is {type(values).__name__} ({values!r:.60}), expected a list")
    if not values:
        raise ValueError(f"{what} is empty, expected at least one")


def _renderer(place: int, template: Any, hole: str) -> Callable[[str], str]:
    spelled = f"{{{hole}}}"
    if not isinstance(template, str):
        if not callable(template):
            raise ValueError(
                f"template {place} is {type(template).__name__} ({template!r:.60}), expected a string with a hole "
                f"{spelled} or a function of a class name"
            )
        return template
    if not _has_hole(template, hole):
        raise ValueError(
            f"template {place} is {template!r:.80}, expected one hole {spelled} for the class name, such as "
            f"'a photo of a {spelled}.', and no other braces (write a literal brace twice)"
        )
    return partial(_fill, template, hole)


def _has_hole(template: str, hole: str) -> bool:
    """Whether a template has only its hole, without a format (which could cut the name) or an attribute path."""
    try:
        fields = [(name, spec, cast) for _, name, spec, cast in string.Formatter().parse(template) if name is not None]
    except ValueError:  # a single brace
        return False
    holes = [name for name, _, _ in fields]
    plain = all(not spec and cast is None for _, spec, cast in fields)
    if hole:
        return plain and set(holes) == {hole}
    return plain and (holes == [""] or set(holes) == {"0"})


def _fill(template: str, hole: str, name: str) -> str:
    return template.format(**{hole: name}) if hole else template.format(name)


def _check_difference(names: list[str], classes: int, found: list[Callable[[str], str]]) -> None:
    """Refuse names that are all empty or all equal, and functions that ignore the name."""
    if not any(name.strip() for name in names):
        raise ValueError(f"all {classes} class names are empty, expected text")
    if len(names) < min(classes, 2):
        raise ValueError(f"all {classes} class names are {names[0]!r:.60}, expected a different name for each class")
    for place, render in enumerate(found) if len(names) > 1 else ():
        first = render(names[0])
        if all(render(name) == first for name in names[1:]):
            raise ValueError(
                f"template {place} gives the same text ({first!r:.80}) for all classes, such as {names[0]!r:.60} and "
                f"{names[1]!r:.60}: expected the class name in it"
            )
