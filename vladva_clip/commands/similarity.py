"""`vladva similarity`: cosines of pictures with texts, or among themselves."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vladva_clip.commands import options, output, pictures
from vladva_clip.commands.model import Asked, Loaded

if TYPE_CHECKING:
    import numpy as np

    from vladva_clip.pictures.failures import Failure

EXAMPLES = """\b
Examples:
  vladva similarity photo.jpg --text "a dog bites a man" --text "a man bites a dog"
  vladva similarity one.jpg two.jpg three.jpg
  vladva similarity --texts sentences.txt --json
"""


@click.command(epilog=EXAMPLES, short_help="Print cosines of pictures with texts, or among themselves.")
@click.argument("images", metavar="[IMAGE...]", nargs=-1)
@options.texts
@options.model()
@options.batch_size
@options.failures
@options.as_json
def similarity(
    asked: Asked,
    images: tuple[str, ...],
    given_texts: tuple[str, ...],
    texts_file: Path | None,
    batch_size: int,
    failures_file: Path | None,
    as_json: bool,
) -> int:
    """Print the cosine of each picture with each text; without texts, of each pair of pictures; without pictures, of
    each pair of texts.

    IMAGE is a file, a folder (all pictures below it) or a glob.
    """
    wrong: list[Failure] = []
    texts = [*given_texts, *options.lines_of(texts_file, wrong)]
    if not images and len(texts) < 2:
        found = "one text and nothing to compare it with" if texts else "nothing to compare"
        raise click.UsageError(f"there is {found}: give pictures, at least two texts, or both")
    paths, failures = pictures.find(images)
    failures += wrong
    if not texts and len(paths) < 2:
        raise click.UsageError("there is one picture and nothing to compare it with: give --text, or more pictures")
    total = len(paths) + len(texts) + len(failures)
    for left, right, cosine in _pairs(paths, texts, asked.load(), batch_size, failures):
        if as_json:
            output.record(a=left, b=right, cosine=round(cosine, 6))
        else:
            output.line(f"{cosine:+.4f}  {output.heading(left)}  {output.plain(right)}")
    return output.finish(failures, total, "items", file=failures_file)


def _pairs(
    paths: list[Path], texts: list[str], loaded: Loaded, batch_size: int, failures: "list[Failure]"
) -> Iterator[tuple[str, str, float]]:
    from vladva_clip.index.embed import embed_pictures, embed_texts

    with output.progress(len(paths) + len(texts), "item") as bar:
        seen, names = embed_pictures(loaded.model, loaded.preprocess, paths, batch_size, failures, bar.update)
        read = embed_texts(loaded.model, loaded.tokenizer, texts, batch_size, bar.update)
    if names and texts:
        yield from _crossed(names, seen, texts, read)
    else:
        yield from _among(*((names, seen) if paths else (texts, read)))


def _crossed(
    names: list[str], seen: "np.ndarray", texts: list[str], read: "np.ndarray"
) -> Iterator[tuple[str, str, float]]:
    for name, feature in zip(names, seen, strict=True):
        yield from ((name, text, cosine) for text, cosine in zip(texts, (read @ feature).tolist(), strict=True))


def _among(names: list[str], features: "np.ndarray") -> Iterator[tuple[str, str, float]]:
    for (left, one), (right, other) in itertools.combinations(zip(names, features, strict=True), 2):
        yield left, right, float(one @ other)
