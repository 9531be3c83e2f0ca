"""Nucleus sampling in which each caption has its own random numbers.

`generate(do_sample=True)` of transformers draws all rows of a batch from torch's global generator, so a row's token
depends on the rows beside it, and on everything that was drawn before. Here a row's numbers come from its own seed.
"""

import random
from collections.abc import Sequence

import torch


class OwnDraws:
    """A logits processor that draws each row's next token by itself and leaves only that token possible.

    A token is drawn from the nucleus (Holtzman et al., 2020): the most likely tokens whose probabilities add up to
    `top_p`. It is the first token, in the vocabulary's order, at which the cumulative probability exceeds a uniform
    number: an exact sample. That order doesn't change when rounding swaps two tokens of nearly equal probability. The
    numbers are drawn on the CPU, so they are the same on every device.

    Args:
        seeds: one text per row of the batch.
        temperature: the logits are divided by it.
        top_p: the probability of the nucleus, above 0 and at most 1.
    """

    def __init__(self, seeds: Sequence[str], temperature: float, top_p: float) -> None:
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        self._numbers = [random.Random(seed) for seed in seeds]  # the same in every version of Python
        self._warpers = (TemperatureLogitsWarper(float(temperature)), TopPLogitsWarper(float(top_p)))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores `(B, V)` that are 0 for the token drawn and minus infinity for all others."""
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        drawn = self._draw(scores).to(scores.device)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)

    def _draw(self, scores: torch.Tensor) -> torch.Tensor:
        """One token of each row, `(B, 1)` int64."""
        if scores.device.type == "mps":  # which has no float64
            scores = scores.cpu()
        cumulative = scores.double().softmax(-1).cumsum(-1)
        uniform = torch.tensor([[numbers.random()] for numbers in self._numbers], dtype=torch.float64)
        # never the last value itself: a float64 below 1 times a float64 rounds to less than it
        return torch.searchsorted(cumulative, uniform.to(scores.device) * cumulative[:, -1:], right=True)
