"""Compute the parts of a job: pictures decoded by workers, texts tokenized, each part written when it is complete."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from vladva_clip.bulk.collections import Texts
from vladva_clip.bulk.decoding import Pictures
from vladva_clip.bulk.encoding import NormalizedEncoder, cut, picture_parts
from vladva_clip.bulk.job import Job, Place
from vladva_clip.bulk.parts import Part
from vladva_clip.workers.prefetch import picture_prefetch

Advance = Callable[[int], Any]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A model with its preprocessing and tokenizer, the batch size, and the number of processes that decode."""

    model: Any
    preprocess: Callable
    tokenizer: Callable
    batch_size: int = 64
    num_workers: int = 0


def fill(
    job: Job, collections: Sequence[Pictures | Texts], model: Model, places: Sequence[Place], advance: Advance
) -> float:
    """Compute and write parts.

    Args:
        job: whose parts.
        collections: the job's.
        model: what embeds.
        places: which parts; those of a collection are neighbors.
        advance: called with the number of items done since the last call.

    Returns:
        The seconds spent in the model.

    Raises:
        ValueError: a worker died, hangs, or there is too little shared memory.
        OSError: a part can't be written.
    """
    seconds = 0.0
    for number, collection in enumerate(collections):
        mine = [place.items for place in places if place.collection == number]
        encoder, computed = _parts(collection, mine, model)
        for items, part in computed:
            job.write(Place(number, items), _with_width(part, model.model.embed_dim))
            advance(len(items))
        seconds += encoder.seconds
    return seconds


def _with_width(part: Part, width: int) -> Part:
    """A part without a readable picture doesn't know the width."""
    return part if part.features.shape[1] else replace(part, features=torch.zeros(len(part.rows), width))


def _parts(collection: Pictures | Texts, mine: list[range], model: Model) -> tuple[NormalizedEncoder, Iterator]:
    device = next(model.model.parameters()).device
    if isinstance(collection, Texts):
        encoder = NormalizedEncoder(model.model.encode_text, device)
        return encoder, _text_parts(encoder, collection, mine, model)
    encoder = NormalizedEncoder(model.model.encode_image, device)
    prefetch = picture_prefetch(model.preprocess, model.batch_size, model.num_workers)
    if prefetch.note:
        logger.warning("%s", prefetch.note)
    work = (encoder, collection, mine, model.preprocess, model.batch_size, prefetch)
    return encoder, picture_parts(*work)


def _text_parts(
    encoder: NormalizedEncoder, texts: Texts, mine: list[range], model: Model
) -> Iterator[tuple[range, Part]]:
    """Parts without rows: a text may be long, and the job's folder has it already."""
    for items in mine:
        batches = (texts.texts[batch.start : batch.stop] for batch in cut(items, model.batch_size))
        yield items, Part(torch.cat([encoder(model.tokenizer(batch)) for batch in batches]))


def default_workers() -> int:
    """Return how many processes decode unless a number is given: all CPUs but one, eight at most."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, available - 1)
