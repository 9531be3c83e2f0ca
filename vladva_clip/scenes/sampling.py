"""Random choices that are the same on every machine: only `random.Random.random`, whose sequence Python guarantees."""

import hashlib
import random
from collections.abc import Sequence


def stable_seed(*key: object) -> int:
    """A 64-bit seed from any key of strings and numbers, the same in every process (unlike `hash`)."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")


def pick(rng: random.Random, items: Sequence):
    """One item, drawn with `Random.random` alone."""
    return items[int(rng.random() * len(items))]


def sample(rng: random.Random, items: Sequence, count: int) -> list:
    """`count` different items in random order."""
    left = list(items)
    return [left.pop(int(rng.random() * len(left))) for _ in range(count)]


def shuffled(rng: random.Random, items: Sequence) -> list:
    """All items in random order."""
    return sample(rng, items, len(items))


def weighted(rng: random.Random, items: Sequence, weights: Sequence[float]):
    """One item, with a chance in proportion to its weight."""
    left = rng.random() * sum(weights)
    for item, weight in zip(items, weights, strict=True):
        left -= weight
        if left < 0:
            return item
    return items[-1]
