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

    from vladva_clip.bulk.embedding import Done
    from vladva_clip.bulk.extending import Overlap
    from vladva_clip.index.store import Index

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
@click.option("--extend", is_flag=True, help="Add to FILE.npz what it lacks; changed pictures are embedded again.")
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
    extend: bool,
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

    outputs.require_suffix(out)
    index = _extended(out) if extend else options.new_file(out, overwrite)
    texts = [*given_texts, *options.lines_of(texts_file)]
    with_workers = {"batch_size": batch_size, "num_workers": _workers(workers)}
    return _run(asked, list(images), texts, out, index, with_workers, as_json)


def _workers(given: int | None) -> int:
    from vladva_clip.bulk.filling import default_workers

    return default_workers() if given is None else given


def _extended(out: Path) -> "Index":
    from vladva_clip.index import store

    index = store.load(out)
    if (made := index.made_by.get("directory")) != os.getcwd():
        raise ValueError(f"{out} was made in {made}, where its names start: run --extend there")
    return index


def _run(
    asked: Asked,
    words: list[str],
    texts: list[str],
    out: Path,
    index: "Index | None",
    with_workers: dict[str, int],
    as_json: bool,
) -> int:
    from vladva_clip.bulk import embedding, extending, request
    from vladva_clip.bulk.filling import Model
    from vladva_clip.bulk.job import opened

    known = {name for name, kind in zip(index.names, index.kinds, strict=True) if kind == "text"} if index else ()
    new = [text for text in texts if text not in known]
    wanted = request.Request(words, new, os.getcwd(), _state(out) if index else "")
    listing = output.progress(None, "file")
    with embedding.working_folder(out, wanted, listing.update) as folder:
        listing.close()
        overlap = extending.overlap_of(folder, index) if index else None
        collections, missed = request.collections(folder), request.missed(folder)
        total = sum(map(len, collections))
        if not total and not index:
            raise ValueError("there is nothing to read: " + "; ".join(f"{one.name}: {one.reason}" for one in missed))
        loaded = asked.load()
        _require_same(index, asked, loaded)
        model = Model(*loaded, **with_workers)
        job = opened(folder, [len(one) for one in collections], _made_by(asked, loaded, wanted.directory))
        busy = _fill(job, collections, model, total)
        before = extending.parts_of(index, overlap.kept) if index else ()
        done = embedding.finish(out, job, collections, model, before)
    _note_cut(loaded, new)
    _note_vanished(overlap)
    _report(out, done, busy, as_json)
    return output.finish([*missed, *done.first], total + len(missed), "items", done.failed + len(missed))


def _state(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _require_same(index: "Index | None", asked: Asked, loaded: Loaded) -> None:
    from vladva_clip.index.embed import require_same_model

    if index:
        require_same_model(index, *loaded, asked.name)


def _note_vanished(overlap: "Overlap | None") -> None:
    if overlap and overlap.vanished:
        shown = ", ".join(map(output.plain, overlap.first[:3])) + (", ..." if overlap.vanished > 3 else "")
        output.note(f"note: {overlap.vanished} pictures of the index are not there any more; their rows stay: {shown}")


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
