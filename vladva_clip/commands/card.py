"""`vladva card`: a model card."""

from pathlib import Path

import click

from vladva_clip.commands import options, output
from vladva_clip.interface.arguments import user_path

EXAMPLES = """\b
Examples:
  vladva card runs/7b/adapter
  vladva card runs/7b/adapter --results results/a.json --results results/b.json
  vladva card vladva-tiny --output CARD.md
"""


@click.command(epilog=EXAMPLES, short_help="Write a model card.")
@click.argument("model", metavar="DIR")
@click.option("--output", "place", metavar="FILE", type=options.PATH, help="The file.  [default: README.md in DIR]")
@click.option(
    *("--results", "results"), metavar="JSON", type=options.PATH, multiple=True,
    help="A result file; may be repeated.  [default: DIR/results/*.json]",
)  # fmt: skip
@click.option("--license", metavar="NAME", help="A license of the Hub's list.  [default: the base's own, if known]")
@click.option("--overwrite", is_flag=True, help="Replace a card that this command did not write.")
def card(model: str, place: Path | None, results: tuple[Path, ...], license: str | None, overwrite: bool) -> int:
    """Write a model card from the config, the training record and result files.

    DIR is an adapter's directory, or the name of a packaged model.
    """
    from vladva_clip.hub import card as cards

    given = {"results": list(results) or None, "license": license, "overwrite": overwrite}
    if user_path(model).is_dir():
        output.line(str(cards.write_card(model, place, **given)))
        return output.OK
    if place is None:
        raise ValueError(f"{model} is not a directory; for the card of a packaged model, give --output FILE")
    output.line(str(cards.write_named_card(model, place, **given)))
    return output.OK
