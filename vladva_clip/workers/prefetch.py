"""How many processes read pictures, and how far ahead: what the CPUs and the memory allow."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image

from vladva_clip.workers import shared_memory
from vladva_clip.workers.signals import cpus


def picture_prefetch(preprocess: Callable, batch_size: int, num_workers: int) -> shared_memory.Prefetch:
    """Return how many processes read batches of pictures, and how far ahead: at most one per CPU, and what fits.

    Raises:
        ValueError: too little shared memory for even one worker.
    """
    if not num_workers:
        return shared_memory.Prefetch(0)
    return shared_memory.fit(min(num_workers, cpus()), batch_size * picture_bytes(preprocess))


def picture_bytes(preprocess: Callable[[Image.Image], torch.Tensor]) -> int:
    """Return the size in bytes of a picture after a transform, leaving the random generators unchanged."""
    with seeded(0):
        return preprocess(Image.new("RGB", (32, 32))).nbytes


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed every generator that a transform may use, and restore them afterwards."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed % 2**63)  # torch.manual_seed would seed the GPUs too
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(pytorch)
