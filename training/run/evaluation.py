"""Evaluation while training: recall, foils and next-token loss on a source, without effects on the run.

The modes of the model's modules and the states of all random generators are restored.
"""

import contextlib
import itertools
import random
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from vladva_clip.encoder.rows import caption_predictions
from vladva_clip.metrics import foil_accuracy, recall_at_k
from vladva_clip.model import VladvaCLIP
from vladva_clip.records.records import Source
from vladva_training.data.captions import CaptionSplitter
from vladva_training.losses.next_token import next_token_loss
from vladva_training.run.evaluation_records import Captions, Ids, by_picture, no_record, prepared, usable

AT = (1, 5, 10)
RECALLS = tuple(f"{way}_R@{k}" for way in ("text_to_image", "image_to_text") for k in AT)
"""The names of a run's recalls."""

T = TypeVar("T")


def never() -> bool:
    """Return False: never stop."""
    return False


def here(work: Callable[[], T]) -> T:
    """Return what `work` returns: this process does it."""
    return work()


def evaluate(
    model: VladvaCLIP,
    source: Source | None,
    splitter: CaptionSplitter,
    preprocess: Callable[[Image.Image], torch.Tensor],
    count: int,
    stop: Callable[[], bool] = never,
    from_main: Callable[[Callable[[], T]], T] = here,
) -> dict[str, float] | None:
    """Measure a model on the first usable records of a source, deterministically.

    Args:
        model: LoRA merged or not, in any mode, which it keeps.
        source: the records; None in a process that gets them by `from_main`.
        splitter: separates short captions from long ones.
        preprocess: the model's transform.
        count: maximum number of records; bad ones are skipped, and a warning counts them.
        stop: returns whether to give up; called before every 32 images.
        from_main: `Processes.from_main` if all processes evaluate together, as the layers of a sharded model need.

    Returns:
        `text_to_image_R@1`, `..._R@5`, `..._R@10`, `image_to_text_R@1`, `..._R@5`, `..._R@10`: recall between the
        images and all their short captions; records of one picture (a table with a row per caption) are one image with
        the captions of all of them. A caption is right for every image that has it, and, where the records know facts,
        for every image of which it is true by them. R@5 and R@10 are absent if there are no more candidates than that,
        where every model reaches 1. `foils`: share of pairs of an image's short caption and its hard negative in which
        the caption scores strictly higher; hard negatives that are captions of the image, or true of it by the facts,
        are skipped. `ntp_loss`: nats per token of each record's first long caption, where next-token prediction has it.
        `records`: how many were used. Figures that the records lack captions for are absent. None if `stop` returned
        True.

    Raises:
        ValueError: no usable record.
    """
    records, features, nats, tokens = [], [], 0.0, 0
    with evaluating(model):
        chunks = prepared(source, splitter, preprocess, count)
        while chunk := from_main(lambda: _unless_stopped(next(chunks, ()), stop)):
            images = torch.stack([pixels for pixels, _ in chunk])
            features.append(model.encode_image(images, normalize=True).cpu())
            long = [(row, torch.tensor(captions.long)) for row, (_, captions) in enumerate(chunk) if captions.long]
            loss = long_caption_loss(model, images[[row for row, _ in long]], [caption for _, caption in long])
            nats, tokens = nats + loss[0], tokens + loss[1]
            records += [captions for _, captions in chunk]
        if chunk is None:
            return None
        figures = _contrastive_figures(model, torch.cat(features), records)
    return figures | ({"ntp_loss": nats / tokens} if tokens else {}) | {"records": float(len(records))}


def figure_names(source: Source, splitter: CaptionSplitter, count: int) -> set[str]:
    """Return the names of the figures that `evaluate` would return, without a model.

    Raises:
        ValueError: no usable record.
    """
    records = [captions for _, captions in usable(source, splitter, count)]
    if not records:
        raise ValueError(no_record(source))
    merged = by_picture(records)[1]
    names = {"records"} | (set(RECALLS) if any(record.short for record in merged) else set())
    names |= {"foils"} if any(record.short and record.foils for record in merged) else set()
    return names | ({"ntp_loss"} if any(record.long for record in records) else set())


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a block in eval mode, without gradients, from fixed seeds; then restore modes and random states."""
    modes = {module: module.training for module in model.modules()}
    devices = {parameter.device.index for parameter in model.parameters() if parameter.is_cuda}
    states = random.getstate(), np.random.get_state()
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(sorted(devices)):
            random.seed(0)
            np.random.seed(0)
            torch.default_generator.manual_seed(0)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for module, mode in modes.items():
            module.training = mode


def matches(queries: Sequence[Hashable], captions: Sequence[Sequence[Hashable]]) -> torch.Tensor:
    """Return `(T, N)` bool: whether query t equals one of the captions of image n."""
    owners: dict[Hashable, list[int]] = {}
    for image, texts in enumerate(captions):
        for text in texts:
            owners.setdefault(text, []).append(image)
    found = torch.zeros(len(queries), len(captions), dtype=torch.bool)
    for row, query in zip(found, queries, strict=True):
        row[owners.get(query, [])] = True
    return found


def true_images(claims: Sequence[Collection[str]], facts: Sequence[Collection[str]]) -> list[list[int]]:
    """Return for each text the numbers of the images of which it is true by the facts.

    Args:
        claims: of each text; one that claims nothing is true of no image.
        facts: of each image, all that are true of it.
    """
    holders: dict[str, set[int]] = {}
    for image, own in enumerate(facts):
        for fact in own:
            holders.setdefault(fact, set()).add(image)
    held = [[holders.get(claim, set()) for claim in own] for own in claims]
    return [sorted(set.intersection(*sets)) if sets else [] for sets in held]


def retrieval_scores(similarity: torch.Tensor, positives: torch.Tensor) -> dict[str, float]:
    """Compute recall at 1 and 5, both ways.

    Args:
        similarity: `(T, N)`, text by image.
        positives: `(T, N)` bool.
    """
    ways = _both_ways(similarity, positives)
    return {f"{name}_R@{k}": recall_at_k(*pair, k) for name, pair in ways.items() for k in (1, 5)}


def telling_recalls(similarity: torch.Tensor, positives: torch.Tensor) -> dict[str, float]:
    """Compute recall at 1, 5 and 10, both ways, except at a 5 or 10 that every model would reach.

    Args:
        similarity: `(T, N)`, text by image; recall at 5 or 10 needs more than 5 or 10 candidates.
        positives: `(T, N)` bool.
    """
    ways = _both_ways(similarity, positives)
    asked = [(name, k) for name, (scores, _) in ways.items() for k in AT if k == 1 or k < scores.shape[1]]
    return {f"{name}_R@{k}": recall_at_k(*ways[name], k) for name, k in asked}


def _both_ways(similarity: torch.Tensor, positives: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {"text_to_image": (similarity, positives), "image_to_text": (similarity.T, positives.T)}


def long_caption_loss(
    model: VladvaCLIP, images: torch.Tensor, captions: Sequence[torch.Tensor], chunk: int = 2048
) -> tuple[float, int]:
    """Score long captions behind their images, as the recipe's next-token prediction does.

    Args:
        model: in any mode; wrap the call in `evaluating`.
        images: `(B, 3, H, W)` from `preprocess`.
        captions: B 1-D int64 tensors of ids, without the end of text, which is added and scored too.
        chunk: number of positions whose logits exist at a time.

    Returns:
        The summed loss in nats, and the number of tokens in the sum.

    Raises:
        ValueError: the numbers of images and captions differ.
    """
    if len(images) != len(captions):
        raise ValueError(f"{len(images)} images for {len(captions)} long captions, expected one for each")
    sums = [_rows_loss(model, *rows, chunk) for rows in _micro_batches(model, images, captions)]
    return sum(sums), sum(len(caption) + 1 for caption in captions)


def _contrastive_figures(model: VladvaCLIP, image_features: torch.Tensor, records: list[Captions]) -> dict[str, float]:
    """Compute recall over all short captions, and foils if there are any; image_features is `(N, D)`."""
    rows, records = by_picture(records)
    image_features = image_features[rows]
    captions = [record.short for record in records]
    queries = [ids for short in captions for ids in short]
    if not queries:
        return {}
    texts = list(dict.fromkeys(ids for record in records for ids in (*record.short, *record.foils)))
    row = {ids: number for number, ids in enumerate(texts)}
    similarity = _text_features(model, texts) @ image_features.T  # (T, N)
    with_text = [image for image, short in enumerate(captions) if short]
    asked = similarity[[row[ids] for ids in queries]][:, with_text]
    figures = telling_recalls(asked, _answers([records[image] for image in with_text]))
    return figures | _foil_figures(similarity, row, records)


def _answers(records: list[Captions]) -> torch.Tensor:
    """Return `(T, N)` bool: whether image n has the short caption t, or makes it true by the facts."""
    queries = [(ids, record.claims.get(ids, ())) for record in records for ids in record.short]
    found = matches([ids for ids, _ in queries], [record.short for record in records])
    images = true_images([claims for _, claims in queries], [record.facts for record in records])
    for row, true in zip(found, images, strict=True):
        row[true] = True
    return found


def _foil_figures(similarity: torch.Tensor, row: dict[Ids, int], records: list[Captions]) -> dict[str, float]:
    """Compute the share of foils below a true caption, if any; similarity is `(T, N)`, `row` maps texts to its rows."""
    pairs = [
        (image, row[caption], row[foil])
        for image, record in enumerate(records)
        for caption, foil in itertools.product(record.short, record.foils)
    ]
    if not pairs:
        return {}
    images, true, false = map(list, zip(*pairs, strict=True))
    return {"foils": foil_accuracy(similarity[true, images], similarity[false, images])}


def _text_features(model: VladvaCLIP, captions: list[Ids]) -> torch.Tensor:
    """Return the normalized features `(T, D)` of captions given as ids."""
    eot = model.text.prompts.eot_token_id
    rows = [torch.tensor([*ids, eot]) for ids in captions]
    return model.encode_text(nn.utils.rnn.pad_sequence(rows, batch_first=True), normalize=True).cpu()


def _unless_stopped(chunk: Sequence, stop: Callable[[], bool]) -> Sequence | None:
    """Return a chunk, or None if there is one but `stop` returns True."""
    return None if chunk and stop() else chunk


def _rows_loss(model: VladvaCLIP, images: torch.Tensor, captions: list[torch.Tensor], chunk: int) -> float:
    visual, backbone = model.visual, model.visual.backbone
    eot = torch.tensor([visual.prompts.eot_token_id])
    ended = [torch.cat([caption.cpu(), eot]) for caption in captions]
    rows = visual.continued_rows(backbone.visual_tokens(visual.ready(images)), ended)
    states, labels = caption_predictions(rows.hidden_states(), ended, visual.answer_index)
    return float(next_token_loss(states, labels, backbone.head, chunk))


def _micro_batches(
    model: VladvaCLIP, images: torch.Tensor, captions: Sequence[torch.Tensor]
) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
    longest = max((len(caption) for caption in captions), default=0)
    rows = max(1, model.visual.micro_batch_tokens // (model.visual.row_length + longest + 1))
    for start in range(0, len(images), rows):
        yield images[start : start + rows], list(captions[start : start + rows])
