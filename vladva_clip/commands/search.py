"""`vladva search`: what in an index is nearest to a text or a picture."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vladva_clip.commands import options, output
from vladva_clip.commands.model import Asked, Loaded
from vladva_clip.storage import places

if TYPE_CHECKING:
    import numpy as np

    from vladva_clip.index.search import Hit
    from vladva_clip.index.store import Index

EXAMPLES = """\b
Examples:
  vladva search holiday.npz "two children on a beach"
  vladva search holiday.npz --image query.jpg --top 20 --sheet found.png
  vladva search all.npz "a red car" --kind text --json
"""


@click.command(epilog=EXAMPLES, short_help="Find the pictures of an index that are nearest to a text or a picture.")
@click.argument("index_file", metavar="INDEX", type=options.PATH)
@click.argument("query", metavar="QUERY", type=options.TEXT)
@click.option("--image", "is_image", is_flag=True, help="QUERY is the path of a picture, not a text.")
@click.option("--top", type=options.COUNT, default=10, show_default=True, metavar="N", help="Rows to print.")
@click.option(
    "--kind", type=click.Choice(["image", "text", "any"]), help="Rows to look at.  [default: image, if there are any]"
)
@click.option(
    *("--sheet", "sheet"), metavar="FILE", type=options.PATH, default="vladva-search.png", show_default=True,
    help="The PNG with the pictures found; replaces an earlier sheet only.",
)  # fmt: skip
@click.option("--no-sheet", is_flag=True, help="Draw no PNG.")
@options.model(default=None)
@options.as_json
def search(
    asked: Asked,
    index_file: Path,
    query: str,
    is_image: bool,
    top: int,
    kind: str | None,
    sheet: Path,
    no_sheet: bool,
    as_json: bool,
) -> int:
    """Rank the rows of an index by their cosine with QUERY, and draw the pictures found as a contact sheet.

    INDEX is a file that `vladva embed` wrote. QUERY is a text, or with --image the path of a picture. The model is the
    one that made the index.
    """
    from vladva_clip.index import search as ranking
    from vladva_clip.index import store

    index = store.load(index_file)
    rows = _kind(kind, index)
    if not no_sheet:
        _check_sheet(sheet)
    if is_image and not os.path.isfile(query):
        raise ValueError(f"{query} is not a file; expected a picture, or a text without --image")
    if not is_image and os.path.isfile(query):
        output.note(f"note: QUERY is taken as a text; to search by the picture in {query}, add --image")
    feature = _feature(query, is_image, index, _model_of(asked, index))
    hits = ranking.ranked(index, feature, top, rows)
    for hit in hits:
        _print(hit, as_json)
    return _draw(Path(query) if is_image else query, hits, index, None if no_sheet else sheet, as_json)


def _check_sheet(sheet: Path) -> None:
    """Check before any work that the sheet can be written, and that it replaces nothing but an earlier sheet."""
    from vladva_clip.index.sheet import is_sheet

    places.check_file(sheet, "--sheet")
    if sheet.suffix.lower() != ".png":
        raise ValueError(f"--sheet {sheet} has the suffix {sheet.suffix!r}, expected .png")
    if sheet.exists() and not is_sheet(sheet):
        raise ValueError(f"--sheet {sheet} exists and is not a contact sheet of vladva search: give another name")


def _model_of(asked: Asked, index: "Index") -> Loaded:
    """Load the model that made the index, or the one that was named, if it gives the same features."""
    from vladva_clip.index.embed import require_same_model

    stored = index.made_by
    if asked.name is None:
        if not stored.get("model"):
            raise ValueError("the index doesn't name the model that made it: give --model")
        kept = {name: getattr(asked, name) or stored.get(name) for name in ("pretrained", "profile", "precision")}
        asked = replace(asked, name=stored["model"], is_default=False, **kept)
    asked = replace(asked, truncate_dim=stored.get("truncate_dim"))
    loaded = asked.load()
    require_same_model(index, *loaded, name=f"{asked.name}:{asked.pretrained}" if asked.pretrained else asked.name)
    return loaded


def _feature(query: str, is_image: bool, index: "Index", loaded: Loaded) -> "np.ndarray":
    from vladva_clip.index.embed import embed_pictures, embed_texts

    if not is_image:
        return embed_texts(loaded.model, loaded.tokenizer, [query], 1, lambda count: None)[0]
    failures: list = []
    features, _ = embed_pictures(loaded.model, loaded.preprocess, [Path(query)], 1, failures, lambda count: None)
    if failures:
        raise ValueError(f"{failures[0].name}: {failures[0].reason}")
    return features[0]


def _kind(asked: str | None, index: "Index") -> str | None:
    """Return the kind of row to rank; None for all."""
    if not index.kinds:
        raise ValueError("the index has no rows: embed some pictures or texts")
    asked = asked or ("image" if "image" in index.kinds else "text")
    if asked != "any" and asked not in index.kinds:
        raise ValueError(f"the index has no {asked} rows; it has {len(index.kinds)} rows of kind {index.kinds[0]}")
    return None if asked == "any" else asked


def _print(hit: "Hit", as_json: bool) -> None:
    if as_json:
        output.record(rank=hit.rank, score=round(hit.score, 6), kind=hit.kind, name=hit.name)
    else:
        output.line(f"{hit.rank:3d}  {hit.score:+.4f}  {output.plain(hit.name)}")


def _draw(query: str | Path, hits: "list[Hit]", index: "Index", sheet: Path | None, as_json: bool) -> int:
    found = [_placed(hit, index) for hit in hits if hit.kind == "image"]
    if sheet is None or not found:
        return output.OK
    from vladva_clip.index.sheet import draw_sheet

    failures = draw_sheet(query, found, sheet)
    say = output.note if as_json else output.line
    say(f"contact sheet: {sheet}")
    return output.finish(failures, len(found))


def _placed(hit: "Hit", index: "Index") -> "Hit":
    """A hit whose relative path is looked up where the index was made, if it isn't here."""
    place = os.path.join(index.made_by.get("directory", ""), hit.name)
    return hit if os.path.exists(hit.name) or not os.path.exists(place) else hit._replace(name=place)
