"""`vladva embed`: an index of pictures and texts, for `vladva search` and other programs."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vladva_clip import __version__
from vladva_clip.commands import options, output
from vladva_clip.commands.model import Asked, Loaded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vladva_clip.bulk.embedding import Done, Request

EXAMPLES = """\b
Examples:
  vladva embed holiday/ --out holiday.npz --model qwen3-vl-embedding-2b
  vladva embed "photos/**/*.jpg" more/ --texts captions.txt --out all.npz
  vladva embed "shards/{00000..00331}.tar" --out shards.parquet --workers 8

The file is NumPy's. With index = np.load("holiday.npz"), index["features"] is (N, D) float32, each row
of length 1; index["kinds"] says "image" or "text"; json.loads(bytes(index["names"])) is the list of names.
After an interruption, the same command continues from the last complete part in FILE.parts.
"""


@click.command(epilog=EXAMPLES, short_help="Embed pictures, texts or both into an index file.")
@click.argument("images", metavar="[PATH...]", nargs=-1)
@options.texts
@click.option("--out", metavar="FILE", type=options.PATH, required=True, help="FILE.npz, .parquet or .safetensors.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@options.workers
@options.model()
@options.batch_size
@options.as_json
def embed(
    asked: Asked,
    images: tuple[str, ...],
    given_texts: tuple[str, ...],
    texts_file: Path | None,
    out: Path,
    overwrite: bool,
    workers: int | None,
    batch_size: int,
    as_json: bool,
) -> int:
    """Embed pictures, texts or both into an index.

    PATH is a file, a folder (all pictures below it), a glob, or shards and tables: .tar (WebDataset), .parquet, .jsonl,
    .csv. `vladva search` finds by text or picture in what this writes.
    """
    if not (images or given_texts or texts_file):
        raise click.UsageError("there is nothing to embed: give pictures (a file, folder or glob), --text or --texts")
    from vladva_clip.bulk import outputs
    from vladva_clip.bulk.embedding import Request

    outputs.require_suffix(out)
    options.new_file(out, overwrite)
    request = Request(images, [*given_texts, *options.lines_of(texts_file)], os.getcwd())
    return _run(asked, request, out, workers, batch_size, as_json)


def _run(asked: Asked, request: "Request", out: Path, workers: int | None, batch_size: int, as_json: bool) -> int:
    from vladva_clip.bulk import embedding
    from vladva_clip.bulk.filling import Model, default_workers

    with embedding.listed(out, request, output.counter("files found")) as collections:
        missed, total = embedding.missed(out), sum(map(len, collections))
        if not total:
            raise ValueError("there is nothing to read: " + "; ".join(f"{one.name}: {one.reason}" for one in missed))
        loaded = asked.load()
        model = Model(*loaded, batch_size, default_workers() if workers is None else workers)
        job = embedding.opened(out, request, collections, _made_by(asked, loaded, request.directory))
        busy = _fill(job, collections, model, total)
        done = embedding.finish(out, job, collections, model)
    _note_cut(loaded, request.texts)
    _report(out, done, busy, as_json)
    return output.finish([*missed, *done.first], total + len(missed), "items", done.failed + len(missed))


def _fill(job: Any, collections: list, model: Any, total: int) -> float:
    """Compute what is missing; returns the share of the time that the model was busy."""
    from vladva_clip.bulk.filling import fill

    missing = job.missing()
    left = sum(len(place.items) for place in missing)
    if left < total:
        output.note(f"note: {total - left} of {total} items were embedded before, in {job.folder}")
    start = time.perf_counter()
    with output.progress(total, "item", done=total - left) as bar:
        seconds = fill(job, collections, model, missing, bar.update)
    return seconds / (time.perf_counter() - start)


def _made_by(asked: Asked, loaded: Loaded, directory: str) -> dict[str, Any]:
    from vladva_clip.index.embed import probes

    made_by = {"model": asked.name, "pretrained": asked.pretrained, "profile": asked.profile}
    made_by |= {"precision": asked.precision, "version": __version__, "directory": directory}
    return made_by | probes(loaded.model, loaded.preprocess, loaded.tokenizer)


def _note_cut(loaded: Loaded, texts: "Sequence[str]") -> None:
    from vladva_clip.index.embed import count_cut

    if cut := count_cut(loaded.tokenizer, texts):
        output.note(f"note: {cut} of {len(texts)} texts are longer than the model reads; their ends were cut off")


def _report(out: Path, done: "Done", busy: float, as_json: bool) -> None:
    if as_json:
        output.record(index=str(out), rows=done.rows, dimensions=done.width, failed=done.failed, busy=round(busy, 3))
    else:
        output.line(f"{out}: {done.rows} row{'s' * (done.rows != 1)} of {done.width} dimensions")
