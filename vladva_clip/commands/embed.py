"""`vladva embed`: an index of pictures and texts, for `vladva search` and other programs."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from vladva_clip import __version__
from vladva_clip.commands import options, output
from vladva_clip.commands.model import Asked, Loaded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vladva_clip.bulk.embedding import Done
    from vladva_clip.bulk.extending import Overlap
    from vladva_clip.commands.engines import Engine
    from vladva_clip.index.store import Index
    from vladva_clip.pictures.failures import Failure

EXAMPLES = """\b
Examples:
  vladva embed holiday/ --out holiday.npz --model qwen3-vl-embedding-2b
  vladva embed "photos/**/*.jpg" more/ --texts captions.txt --out all.npz
  vladva embed "shards/{00000..00331}.tar" --out shards.parquet --workers 8

The file is NumPy's. With index = np.load("holiday.npz"), index["features"] is (N, D) float32, each row
of length 1; index["kinds"] says "image" or "text"; json.loads(bytes(index["names"])) is the list of names.
After an interruption, the same command continues from the last complete part in FILE.parts.
"""
ENGINE = "ray: the cluster at RAY_ADDRESS, whose machines share the folder of FILE, or one on this machine."
REPLICAS = "With --engine ray: how many models run at once.  [default: one per GPU, or 1]"


@click.command(epilog=EXAMPLES, short_help="Embed pictures, texts or both into an index file.")
@click.argument("images", metavar="[PATH...]", nargs=-1)
@options.texts
@click.option("--out", metavar="FILE", type=options.PATH, required=True, help="FILE.npz, .parquet or .safetensors.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@click.option("--extend", is_flag=True, help="Add to FILE what it lacks; changed pictures are embedded again.")
@click.option("--truncate-dim", metavar="N", type=options.COUNT, help="Keep the first N dimensions of each feature.")
@click.option("--quantize", type=click.Choice(["int8", "binary"]), help="Store 8 bits or 1 bit instead of 32.")
@options.workers
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help=ENGINE)
@click.option("--replicas", metavar="N", type=options.COUNT, help=REPLICAS)
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
    truncate_dim: int | None,
    quantize: str | None,
    as_json: bool,
    **computed_by: Any,
) -> int:
    """Embed pictures, texts or both into an index.

    PATH is a file, a folder (all pictures below it), a glob, or shards and tables: .tar (WebDataset), .parquet, .jsonl,
    .csv. `vladva search` finds by text or picture in what this writes.
    """
    if not (images or given_texts or texts_file):
        raise click.UsageError("there is nothing to embed: give pictures (a file, folder or glob), --text or --texts")
    from vladva_clip.commands.engines import Engine

    _check_output(out, quantize)
    index = _extended(out, truncate_dim, quantize) if extend else options.new_file(out, overwrite)
    width = index.made_by.get("truncate_dim") if index else truncate_dim
    engine = Engine(replace(asked, truncate_dim=width), **computed_by)
    wrong: list[Failure] = []
    texts = [*given_texts, *options.lines_of(texts_file, wrong)]
    return _run(engine, list(images), texts, wrong, Output(out, index, quantize, as_json))


class Output(NamedTuple):
    """Where the features go: the file, the index in it that is extended, how they are quantized; what is printed."""

    path: Path
    index: "Index | None"
    quantized: str | None
    as_json: bool


def _check_output(out: Path, quantize: str | None) -> None:
    from vladva_clip.bulk import outputs
    from vladva_clip.interface import extras

    outputs.require_suffix(out)
    if quantize:
        extras.require("sentence_transformers", purpose="--quantize")


def _extended(out: Path, truncate_dim: int | None, quantize: str | None) -> "Index":
    from vladva_clip.index import store

    if truncate_dim or quantize:
        raise click.UsageError("--extend keeps the index's own dimensions: leave out --truncate-dim and --quantize")
    index = store.load(out)
    if (made := index.made_by.get("directory")) != os.getcwd():
        raise ValueError(f"{out} was made in {made}, where its names start: run --extend there")
    return index


def _run(engine: "Engine", words: list[str], texts: list[str], wrong: "list[Failure]", out: Output) -> int:
    from vladva_clip.bulk import embedding, extending, request
    from vladva_clip.bulk.collections import expanded
    from vladva_clip.bulk.job import opened

    index = out.index
    known = {name for name, kind in zip(index.names, index.kinds, strict=True) if kind == "text"} if index else ()
    new = [text for text in dict.fromkeys(texts) if text not in known] if index else texts
    wanted = request.Request(expanded(words), new, os.getcwd(), _state(out.path) if index else "")
    listing = output.progress(None, "file")
    with embedding.working_folder(out.path, wanted, listing.update) as folder:
        listing.close()
        overlap = extending.overlap_of(folder, index) if index else None
        collections = request.collections(folder)
        missed = [*request.missed(folder), *request.damaged(collections), *wrong]
        total = sum(map(len, collections))
        if not total and not index:
            raise ValueError("there is nothing to read: " + "; ".join(f"{one.name}: {one.reason}" for one in missed))
        loaded = engine.load()
        _require_same(index, engine.asked, loaded)
        job = opened(folder, [len(one) for one in collections], _made_by(engine.asked, loaded, wanted.directory))
        busy = engine.fill(job, collections, total)
        before = extending.parts_of(index, overlap.kept) if index else ()
        done = embedding.finish(out.path, job, collections, engine.model, before, out.quantized, missed)
    _note_cut(loaded, new)
    _note_vanished(overlap)
    _report(out, done, busy)
    return output.finish(done.first, total + len(missed), "items", done.failed)


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


def _made_by(asked: Asked, loaded: Loaded, directory: str) -> dict[str, Any]:
    from vladva_clip.index.embed import probes

    made_by = {"model": asked.name, "pretrained": asked.pretrained, "profile": asked.profile}
    made_by |= {"precision": asked.precision, "truncate_dim": asked.truncate_dim}
    made_by |= {"version": __version__, "directory": directory}
    return made_by | probes(loaded.model, loaded.preprocess, loaded.tokenizer)


def _note_cut(loaded: Loaded, texts: "Sequence[str]") -> None:
    from vladva_clip.index.embed import count_cut

    if cut := count_cut(loaded.tokenizer, texts):
        output.note(f"note: {cut} of {len(texts)} texts are longer than the model reads; their ends were cut off")


def _report(out: Output, done: "Done", busy: float) -> None:
    if out.as_json:
        output.record(index=str(out.path), rows=done.rows, dimensions=done.width, failed=done.failed, busy=busy)
    else:
        output.line(f"{out.path}: {done.rows} row{'s' * (done.rows != 1)} of {done.width} dimensions")
