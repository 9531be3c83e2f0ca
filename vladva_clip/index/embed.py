"""Pictures and texts -> features of length 1, and the check that a query is embedded by the model of its index."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vladva_clip.index.store import PROBES, Index
from vladva_clip.interface.arguments import whole_number
from vladva_clip.pictures.batches import batches
from vladva_clip.pictures.failures import Failure

SAME = 0.99  # cosine of two models' probes: above, they are one model in two precisions or on two devices
SENTENCE = "A red circle to the left of a blue square on a bright background."


@torch.no_grad()
def embed_pictures(
    model: Any,
    preprocess: Callable[[Image.Image], torch.Tensor],
    paths: Sequence[Path],
    batch_size: int,
    failures: list[Failure],
    advance: Callable[[int], Any],
) -> tuple[np.ndarray, list[str]]:
    """Embed picture files on the model's device.

    Args:
        model: a VladvaCLIP.
        preprocess: its transform.
        paths: M picture files.
        batch_size: pictures read at a time.
        failures: gets the pictures that can't be read; they are left out.
        advance: called with the number of pictures done since the last call, M in all, failures included.

    Returns:
        `(N, D)` float32, rows of length 1, and N names: the paths as text.

    Raises:
        ValueError: an invalid batch_size.
    """
    features, names = np.empty((len(paths), model.embed_dim), np.float32), []
    failed, done = len(failures), 0
    for some, pixels in batches(paths, preprocess, batch_size, failures):
        features[len(names) : len(names) + len(some)] = model.encode_image(pixels, normalize=True).cpu().numpy()
        names += map(str, some)
        advance(len(names) + len(failures) - failed - done)
        done = len(names) + len(failures) - failed
    if done < len(paths):
        advance(len(paths) - done)
    return features[: len(names)], names


@torch.no_grad()
def embed_texts(
    model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int, advance: Callable[[int], Any]
) -> np.ndarray:
    """Embed texts on the model's device; texts beyond the context length are cut (see `count_cut`).

    Args:
        model: a VladvaCLIP.
        tokenizer: its tokenizer.
        texts: N texts.
        batch_size: texts tokenized at a time.
        advance: called with the number of texts done since the last call.

    Returns:
        `(N, D)` float32, rows of length 1.

    Raises:
        ValueError: an invalid batch_size, or texts that are not strings.
    """
    batch_size = whole_number("batch_size", batch_size, 1)
    features = np.empty((len(texts), model.embed_dim), np.float32)
    for start in range(0, len(texts), batch_size):
        some = list(texts[start : start + batch_size])
        encoded = model.encode_text(tokenizer(some), normalize=True)
        features[start : start + len(some)] = encoded.cpu().numpy()
        advance(len(some))
    return features


def count_cut(tokenizer: Any, texts: Sequence[str]) -> int:
    """Return how many texts have more tokens than the context length, so that their end is not embedded."""
    return sum(len(ids) > tokenizer.context_length - 1 for text in texts for ids in tokenizer.ids(text))


def probes(model: Any, preprocess: Callable[[Image.Image], torch.Tensor], tokenizer: Any) -> dict[str, list[float]]:
    """Return the features of one drawn picture and one sentence, by which a model is recognized.

    Other weights, tags, prompts, pooling or preprocessing change them; a device or a precision hardly does.

    Returns:
        `image_probe` and `text_probe`, D numbers each, for an index's `made_by`.
    """
    with torch.no_grad():
        image = model.encode_image(preprocess(probe_picture())[None], normalize=True)
        text = model.encode_text(tokenizer([SENTENCE]), normalize=True)
    return {name: found[0].cpu().tolist() for name, found in zip(PROBES, (image, text), strict=True)}


def require_same_model(
    index: Index, model: Any, preprocess: Callable[[Image.Image], torch.Tensor], tokenizer: Any, name: str | None = None
) -> None:
    """Refuse a model that is not the one of the index, at the price of one picture and one text.

    Args:
        index: what is to be searched.
        model, preprocess, tokenizer: what is to embed the query.
        name: the model's, for the message; the id of its base for None.

    Raises:
        ValueError: the widths differ, or a probe's cosine is at most `SAME`; both models are named.
    """
    found = probes(model, preprocess, tokenizer)
    if difference := different(index.made_by, found):
        raise ValueError(
            f"the index was made by {named(index.made_by)}, whose features differ from those of "
            f"{name or model.config.base.id} ({difference}): search with the model that made it, or embed again"
        )


def different(known: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Return in which probe two models differ, and how; None if they are one model (`SAME`)."""
    differences = ((probe, _difference(known[probe], found[probe])) for probe in PROBES)
    return next((f"{probe}: {difference}" for probe, difference in differences if difference), None)


def named(made_by: Mapping[str, Any]) -> str:
    """Return a model's name and tag, as the `made_by` of an index states them."""
    name, tag = made_by.get("model", "an unnamed model"), made_by.get("pretrained")
    return f"{name}:{tag}" if tag else str(name)


def _difference(known: list[float], found: list[float]) -> str | None:
    """Return how two features differ; None if they are of one model."""
    if len(known) != len(found):
        return f"{len(known)} and {len(found)} dimensions"
    a, b = np.array(known, np.float64), np.array(found, np.float64)
    cosine = a @ b / np.sqrt((a @ a) * (b @ b))
    return None if cosine > SAME else f"cosine {cosine:.3f}"


def probe_picture() -> Image.Image:
    """Draw the probe's picture, by arithmetic alone, so that it is the same with every Pillow.

    Returns:
        256 x 256 RGB: a red circle and a blue square on a gradient.
    """
    y, x = np.mgrid[0:256, 0:256]
    pixels = np.stack([200 + x // 8, 220 - y // 8, 190 + (x + y) // 16], axis=-1).astype(np.uint8)
    pixels[(x - 80) ** 2 + (y - 120) ** 2 < 48**2] = (210, 30, 40)
    pixels[(abs(x - 184) < 40) & (abs(y - 136) < 40)] = (30, 60, 200)
    return Image.fromarray(pixels)
