"""Pictures, texts and classes -> features, through the cache.

Each text is embedded once however often a data set repeats it. Texts with equal tokens get bit-equal features, so they
tie. The items, their parts and the batch size alone decide what goes into a batch: features are bit-equal for any
number of workers and processes, and equal up to rounding for any batch size.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence

import torch
from PIL import Image

from vladva_benchmarks.suites.classifier import class_features
from vladva_benchmarks.suites.models import Encoder
from vladva_benchmarks.suites.pictures import Openable, stamps
from vladva_benchmarks.suites.tasks import Classification, Task
from vladva_clip.bulk import encoding as bulk
from vladva_clip.bulk.feature_cache import FeatureCache, Features, NoCache
from vladva_clip.bulk.parts import Part, Row
from vladva_clip.model import VladvaCLIP
from vladva_clip.workers.prefetch import picture_prefetch
from vladva_clip.zero_shot.builder import TEXTS_PER_CALL
from vladva_clip.zero_shot.rendering import CLIP_BENCHMARKS_HOLE, renderers


class Embedded:
    """Features of a list of items: call it with some of the items to get their rows `(N, D)`."""

    def __init__(self, items: Sequence, features: Features, rows: Sequence[int] | None = None) -> None:
        self.count, self.seconds, self._features = len(features.tensor), features.seconds, features.tensor
        self._rows = dict(zip(items, rows or range(len(items)), strict=True))

    def __call__(self, items: Sequence) -> torch.Tensor:
        return self._features[self.rows(items)]

    def rows(self, items: Sequence) -> list[int]:
        """Return the row number of each item; items with equal features may share one."""
        return [self._rows[item] for item in items]

    def share(self, items: Sequence) -> float:
        """Return the seconds spent on the features of these items, each counted once."""
        return self.seconds * len(set(self.rows(items))) / self.count


def embed_tasks(
    encoder: Encoder, cache: FeatureCache | NoCache, tasks: Sequence[Task], batch_size: int, num_workers: int
) -> tuple[Embedded, dict[str, Embedded]]:
    """Embed the pictures and texts of several data sets, each once.

    Args:
        encoder, cache, batch_size, num_workers: as for `embed_pictures`.
        tasks: the data sets.

    Returns:
        The pictures' features, and data set -> features of its texts: classes are embedded for each data set alone,
        all other texts together.

    Raises:
        ValueError: as `embed_pictures`.
    """
    pictures = [picture for task in tasks for picture in task.pictures]
    images = embed_pictures(encoder, cache, pictures, batch_size, num_workers)
    return images, _embed_texts(encoder, cache, tasks, batch_size)


def _embed_texts(
    encoder: Encoder, cache: FeatureCache | NoCache, tasks: Sequence[Task], batch_size: int
) -> dict[str, Embedded]:
    named = [task for task in tasks if isinstance(task, Classification)]
    found = {task.name: embed_classes(encoder, cache, task.classnames, task.templates) for task in named}
    others = [task for task in tasks if task.name not in found]
    if others:
        texts = embed_texts(encoder, cache, [text for task in others for text in task.texts], batch_size)
        found |= {task.name: texts for task in others}
    return found


def embed_pictures(
    encoder: Encoder, cache: FeatureCache | NoCache, pictures: Sequence[Openable], batch_size: int, num_workers: int
) -> Embedded:
    """Embed pictures, each once.

    Args:
        encoder: the model.
        cache: stores the features, or not (`NoCache`).
        pictures: in any order.
        batch_size: pictures at a time; a batch never crosses the border of a cache part.
        num_workers: processes that decode; 0 decodes in this one.

    Raises:
        UnreadableItems: some pictures can't be read; the cache keeps the features of all other parts.
        ValueError: a worker died or hangs, or there is too little shared memory for even one.
    """
    pictures = list(dict.fromkeys(pictures))

    def encode(parts: list[range]) -> Iterator[tuple[range, Part]]:
        prefetch = picture_prefetch(encoder.preprocess, batch_size, num_workers)
        if prefetch.note:
            print(f"warning: {prefetch.note}", file=sys.stderr)
        ours = bulk.NormalizedEncoder(encoder.model.encode_image, encoder.device, encoder.dtype)
        yield from bulk.picture_parts(ours, _Pictures(pictures), parts, encoder.preprocess, batch_size, prefetch)

    return Embedded(pictures, cache.get("images", (encoder.weights, encoder.preprocessing), stamps(pictures), encode))


def embed_texts(encoder: Encoder, cache: FeatureCache | NoCache, texts: Sequence[str], batch_size: int) -> Embedded:
    """Embed texts, shorter ones first; texts with equal tokens are embedded once."""
    texts = sorted(set(texts), key=lambda text: (len(text), text))
    every, width = _tokens(encoder, texts)
    tokens, rows = _distinct(every)
    digests = [_sha256(torch.nn.functional.pad(row, (0, width - len(row)))) for row in tokens]

    def encode(parts: list[range]) -> Iterator[tuple[range, Part]]:
        ours = bulk.NormalizedEncoder(encoder.model.encode_text, encoder.device)
        for part in parts:
            chunks = (tokens[batch.start : batch.stop] for batch in bulk.cut(part, batch_size))
            yield part, Part(torch.cat([ours(chunk) for chunk in chunks]))

    return Embedded(texts, cache.get("texts", (encoder.weights, width), digests, encode), rows)


def embed_classes(
    encoder: Encoder, cache: FeatureCache | NoCache, classnames: Sequence[str], templates: Sequence[str]
) -> Embedded:
    """Embed each class name once, as the mean of its prompts."""
    classnames = list(dict.fromkeys(classnames))
    render = renderers(classnames, templates, CLIP_BENCHMARKS_HOLE)
    probes = [*map(render[0], classnames), *(one(classnames[0]) for one in render)]
    identity = (encoder.weights, list(templates), _sha256(encoder.tokenizer(probes)))  # identifies the tokenizer

    def encode(parts: list[range]) -> Iterator[tuple[range, Part]]:
        for part in parts:
            yield part, Part(class_features(encoder, classnames[part.start : part.stop], templates))

    return Embedded(classnames, cache.get("classes", identity, classnames, encode))


class _Pictures:
    """A list of pictures, as bulk embedding reads them."""

    def __init__(self, pictures: list[Openable]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def row(self, number: int) -> Row:
        return Row(str(self.pictures[number]))

    def open(self, number: int) -> Image.Image:
        return self.pictures[number].open()


def _tokens(encoder: Encoder, texts: Sequence[str]) -> tuple[torch.Tensor, int]:
    """Tokenize texts, some at a time: a published embedder's rows are thousands of tokens wide, most of it padding.

    Returns:
        `(N, L)`, for our models without the columns that are padding in each row, which decide nothing; and the
        tokenizer's own width.
    """
    chunks, width, ours = [], 0, isinstance(encoder.model, VladvaCLIP)
    for start in range(0, max(1, len(texts)), TEXTS_PER_CALL):
        rows = encoder.tokenizer(texts[start : start + TEXTS_PER_CALL])
        width = rows.shape[1]
        used = int(rows.any(dim=0).nonzero().amax()) + 1 if ours and len(rows) else width
        chunks.append(rows[:, :used].clone())  # else the rest stays in memory
    longest = max(chunk.shape[1] for chunk in chunks)
    return torch.cat([torch.nn.functional.pad(chunk, (0, longest - chunk.shape[1])) for chunk in chunks]), width


def _distinct(tokens: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """The distinct rows in order of first appearance, and the index among them of each row."""
    places: dict[bytes, int] = {}
    rows = [places.setdefault(row.tobytes(), len(places)) for row in tokens.numpy()]
    first = {place: number for number, place in reversed(list(enumerate(rows)))}
    return tokens[[first[place] for place in range(len(places))]], rows


def _sha256(tokens: torch.Tensor) -> str:
    return hashlib.sha256(tokens.numpy()).hexdigest()
