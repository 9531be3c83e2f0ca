"""Recall on drawn scenes when features are stored with fewer dimensions or bits.

vladva-benchmark vectors                              # the default tag of vladva-tiny, printed
vladva-benchmark vectors --document docs/vectors.md   # and written into its table there
"""

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

import vladva_clip
from vladva_benchmarks.drawn.pictures import DrawnPicture
from vladva_benchmarks.drawn.scene_evaluation import embed
from vladva_benchmarks.report import marked_text
from vladva_benchmarks.suites import models
from vladva_benchmarks.suites.tasks import Retrieval
from vladva_clip.compact import dequantize, quantize, truncate
from vladva_clip.interface import devices, extras
from vladva_clip.interface.arguments import user_path
from vladva_clip.scenes import scenes, short_captions
from vladva_clip.sources.registry import find
from vladva_training.run.evaluation import matches, retrieval_scores

START, END = "<!-- table: written by vladva-benchmark vectors -->", "<!-- end of the table -->"
SCORES = ("text_to_image_R@1", "text_to_image_R@5", "image_to_text_R@1", "image_to_text_R@5")

Similarity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (T, D) texts, (N, D) images -> (T, N)


def full(texts: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Cosines of the features themselves."""
    return texts @ images.T


def truncated(dim: int) -> Similarity:
    """Cosines of the first `dim` dimensions."""
    return lambda texts, images: truncate(texts, dim) @ truncate(images, dim).T


def int8(texts: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Cosines of decoded int8 codes, calibrated on both sides."""
    calibration = torch.cat([texts, images])
    decoded = [torch.from_numpy(dequantize(quantize(x, "int8", calibration), calibration)) for x in (texts, images)]
    return full(*(torch.nn.functional.normalize(x, dim=-1) for x in decoded))


def int8_codes(texts: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Dot products of the int8 codes as they are."""
    calibration = torch.cat([texts, images])
    return full(*(torch.from_numpy(quantize(x, "int8", calibration)).float() for x in (texts, images)))


def binary(texts: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The number of equal signs minus that of unequal ones: Hamming distance as a similarity."""
    return full(*(_signs(x) for x in (texts, images)))


def binary_images(texts: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Products of float texts with the images' signs: the gallery becomes small, and queries lose nothing."""
    return texts @ _signs(images).T


def _signs(features: torch.Tensor) -> torch.Tensor:
    bits = np.unpackbits(quantize(features, "ubinary"), axis=1, count=features.shape[1])
    return torch.from_numpy(bits.astype(np.float32) * 2 - 1)


def forms(width: int) -> Iterator[tuple[str, float, Similarity]]:
    """The rows of the table: what is stored, bytes per vector, and how the two sides are compared."""
    yield f"float32, all {width} dimensions", 4 * width, full
    for dim in (width // 2, width // 4, width // 8, width // 16):
        yield f"float32, the first {dim}", 4 * dim, truncated(dim)
    yield "int8, decoded", width, int8
    yield "int8, codes multiplied as they are", width, int8_codes
    yield "binary", width // 8, binary
    yield "binary images, float32 texts", width // 8, binary_images


def measure(
    model_name: str, tag: str | None, count: int, device: str | torch.device = "cpu"
) -> tuple[int, dict[str, tuple[float, dict[str, float]]]]:
    """Embed the first `count` scenes of "test" and the first short caption of each, and score every form.

    Returns:
        The features' width, and form -> (bytes of a vector, score -> fraction).
    """
    model, preprocess = vladva_clip.create_model(model_name, tag, device=device)
    gallery = scenes("test", 0, count)
    encoder = models.in_hand(model, preprocess, vladva_clip.get_tokenizer(model_name))
    captions = [short_captions(one) for one in gallery]
    queries = [five[0] for five in captions]
    task = Retrieval("vectors", [DrawnPicture(one) for one in gallery], [[query] for query in queries])
    image_lookup, text_lookup = embed(encoder, [task])
    images, texts = image_lookup(task.pictures), text_lookup(queries)
    positives = matches(queries, captions)
    width = images.shape[1]
    return width, {
        name: (size, retrieval_scores(similarity(texts, images), positives)) for name, size, similarity in forms(width)
    }


def table(rows: dict[str, tuple[float, dict[str, float]]], title: str) -> str:
    """Return the scores as Markdown, in percent."""
    lines = [title, "", "| stored | bytes | t2i R@1 | t2i R@5 | i2t R@1 | i2t R@5 |", "|---|---|---|---|---|---|"]
    for name, (size, scores) in rows.items():
        lines.append(f"| {name} | {size:g} | " + " | ".join(f"{scores[score]:.1%}" for score in SCORES) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        "vladva-benchmark vectors", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vladva-tiny")
    parser.add_argument("--tag", help="the model's tag, or an adapter's directory (default: the model's default tag)")
    parser.add_argument("--scenes", type=int, default=1000, help="in the gallery (default: %(default)s)")
    devices.add_option(parser)
    parser.add_argument(
        "--document",
        type=user_path,
        help="write the table into this file, between its marks; else it is only printed",
    )
    options = parser.parse_args(arguments)
    device = devices.resolve(options.device)
    if options.document:
        marked_text.check(options.document, START, END)
    extras.require("sentence_transformers", purpose="vectors")  # for `quantize`: before the features are computed
    tag = options.tag or find(options.model).default_tag
    width, rows = measure(options.model, tag, options.scenes, device)
    text = table(
        rows, f"`{options.model}`, tag `{tag}`: {options.scenes} scenes of `test`, one caption each, D = {width}."
    )
    print(text)
    if options.document:
        marked_text.write(options.document, START, END, text)
        print(f"table: {options.document}")
