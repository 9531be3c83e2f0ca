"""Which cases there are: drawn by number, hand-made by name, and every model type in every place."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.strangers import damage
from tests.support.strangers.attacks import ATTACKS
from tests.support.strangers.cases import FAMILIES, Attack, Case
from tests.support.strangers.entries import WAYS
from tests.support.strangers.types import CLASSES, TYPES

KINDS = {"attacks": ATTACKS, "types": TYPES, "classes": CLASSES}
BY_NAME = {attack.name: attack for attacks in KINDS.values() for attack in attacks}


@dataclass(frozen=True)
class Plan:
    """What happens to whose files before which entry reads them. silent: nothing may be logged before a refusal."""

    name: str
    family: str
    entry: str
    changes: tuple[Callable[[Case], Any], ...]
    expect: str = "any"
    silent: bool = False


def plans(words: list[str]) -> Iterator[Plan]:
    """The plans of a command line."""
    for word in words:
        kind, *numbers = word.split(":")
        if kind == "cases" and numbers:
            yield from map(case, range(int(numbers[0]), int(numbers[0]) + int(numbers[1])))
        elif kind in KINDS and numbers:
            yield from map(named, KINDS[kind][int(numbers[0]) :: int(numbers[1])])
        elif word.startswith("case "):
            yield case(int(word.removeprefix("case ")))
        else:
            yield named(BY_NAME[word])


def named(attack: Attack) -> Plan:
    """A hand-made attack, through its own entry or one drawn by its name."""
    rng = random.Random(f"stranger {attack.name}")
    ways = WAYS[attack.side]
    entry = attack.entry or (ways[0] if rng.random() < 0.5 else rng.choice(ways))
    return _plan(attack, rng.choice(attack.families), entry, attack.name)


def case(number: int) -> Plan:
    """Case `number`: random damage; every third one is a hand-made attack, by whatever entry."""
    rng = random.Random(f"stranger {number}")
    if number % 3 == 0:
        attack = rng.choice(ATTACKS)
        entry = attack.entry or rng.choice(WAYS[attack.side])
        return _plan(attack, rng.choice(attack.families), entry, f"case {number}")
    side = rng.choice(("base", "base", "adapter"))
    change = damage.damaging(side, rng)
    return Plan(f"case {number}", rng.choice(FAMILIES), rng.choice(WAYS[side]), (change,))


def _plan(attack: Attack, family: str, entry: str, name: str) -> Plan:
    def change(case: Case) -> str:
        attack.apply(case)
        return attack.name

    silent = name.startswith(("type ", "class "))
    return Plan(name, family, entry, (change,), attack.expect, silent)
