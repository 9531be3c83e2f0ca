"""`vladva embed`: an index of pictures and texts, for `vladva search` and other programs."""

import os
from pathlib import Path

import click

from vladva_clip import __version__
from vladva_clip.commands import options, output, pictures
from vladva_clip.commands.model import Asked, Loaded

EXAMPLES = """\b
Examples:
  vladva embed holiday/ --out holiday.npz --model qwen3-vl-embedding-2b
  vladva embed "photos/**/*.jpg" more/ --texts captions.txt --out all.npz

The file is NumPy's. With index = np.load("holiday.npz"), index["features"] is (N, D) float32, each row
of length 1; index["kinds"] says "image" or "text"; json.loads(bytes(index["names"])) is the list of names.
"""


@click.command(epilog=EXAMPLES, short_help="Embed pictures, texts or both into an index file.")
@click.argument("images", metavar="[PATH...]", nargs=-1)
@options.texts
@click.option("--out", metavar="FILE", type=options.PATH, required=True, help="The index to write, FILE.npz.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
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
    batch_size: int,
    as_json: bool,
) -> int:
    """Embed pictures, texts or both into an index.

    PATH is a file, a folder (all pictures below it) or a glob. `vladva search` finds by text or picture in what this
    writes.
    """
    if not (images or given_texts or texts_file):
        raise click.UsageError("there is nothing to embed: give pictures (a file, folder or glob), --text or --texts")
    from vladva_clip.index import store

    store.require_suffix(out)
    options.new_file(out, overwrite)
    texts = [*given_texts, *options.lines_of(texts_file)]
    paths, failures = pictures.find(images)
    total = len(paths) + len(texts) + len(failures)
    index = _built(asked, asked.load(), paths, texts, batch_size, failures)
    store.save(index, out)
    _report(out, len(index.names), index.features.shape[1], as_json)
    return output.finish(failures, total, "items")


def _built(asked: Asked, loaded: Loaded, paths: list[Path], texts: list[str], batch_size: int, failures: list):
    import numpy as np

    from vladva_clip.index.embed import count_cut, embed_pictures, embed_texts, probes
    from vladva_clip.index.store import Index

    with output.progress(len(paths) + len(texts), "item") as bar:
        seen, names = embed_pictures(loaded.model, loaded.preprocess, paths, batch_size, failures, bar.update)
        read = embed_texts(loaded.model, loaded.tokenizer, texts, batch_size, bar.update)
    if cut := count_cut(loaded.tokenizer, texts):
        output.note(f"note: {cut} of {len(texts)} texts are longer than the model reads; their ends were cut off")
    if not names and not texts:
        raise ValueError("nothing could be read: " + "; ".join(f"{one.name}: {one.reason}" for one in failures))
    made_by = {"model": asked.name, "pretrained": asked.pretrained, "profile": asked.profile}
    made_by |= {"precision": asked.precision, "version": __version__, "directory": os.getcwd()}
    made_by |= probes(loaded.model, loaded.preprocess, loaded.tokenizer)
    kinds = ["image"] * len(names) + ["text"] * len(texts)
    return Index(np.concatenate([seen, read]), kinds, [*names, *texts], made_by)


def _report(out: Path, count: int, width: int, as_json: bool) -> None:
    if as_json:
        output.record(index=str(out), rows=count, dimensions=width)
    else:
        output.line(f"{out}: {count} row{'s' * (count != 1)} of {width} dimensions")
