"""Captions and pictures on which two ways to embed must agree."""

import random

import numpy as np
from PIL import Image

CAPTIONS = {
    "period": "a dog.",
    "quotes": 'He said "hi"! &amp; left',
    "two_spaces": "two  spaces",
    "trailing_space": "tail ",
    "leading_newline": "\nleading",
    "blank_lines": "  \n x",
    "empty": "",
    "inner_newline": "new\nline",
    "cjk": "一只狗在草地上。",
    "emoji": "😀 a smiling cat 🐈\u200d⬛",
    "nfd": "cafe\u0301 in Malmo\u0308",
    "long": " ".join(["A wide street with", "two red buses, parked;", "and 17 people"] * 30) + ".",
}
assert len(CAPTIONS["long"].split()) >= 300

_PIECES = [  # what tokenizers treat in ways of their own
    *("a", "dog", " x", "Dog", "user", "assistant", "Summary", "\nSummarize", "123", "4", "ffi", "\ufb01", "\u2163"),
    *(" ", "  ", "\n", "\n\n", "\r", "\r\n", "\t", "\v", "\f", "\u00a0", "\u2028", "\u3000", "\u0085", "\ufeff"),
    *(".", "!", ":", ">", "<", "(", '"', "'", "'s", "'S", "...", "--", "_", "\\", "/", "{}", "%", "|", "im_end"),
    *("\u3002", "\uff0c", "狗", "한", "\u1100", "\u1161", "e\u0301", "\u0301", "é", "😀", "\u200d"),
]


def strange_captions(count: int) -> list[str]:
    """Return different captions of up to seven such pieces, the same for the same count."""
    choose = random.Random(0)
    found = dict.fromkeys(["", *_PIECES])
    while len(found) < count:
        found["".join(choose.choices(_PIECES, k=choose.randint(2, 7)))] = None
    return list(found)


def picture(size: int, seed: int = 0) -> Image.Image:
    """Return a square picture: smooth areas, edges and noise, the same for the same arguments."""
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    waves = [np.sin(2 * np.pi * (random.uniform(1, 5) * x + random.uniform(1, 5) * y)) for _ in range(3)]
    pixels = 127 + 90 * np.stack(waves, -1) + random.normal(0, 15, (size, size, 3))
    pixels[size // 4 : size // 2, size // 3 : size // 2] = random.integers(0, 255, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
