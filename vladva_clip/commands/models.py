"""`vladva models`: the names that can be loaded, and what each needs."""

import click

from vladva_clip.commands import options, output

EXAMPLES = """\b
Examples:
  vladva models
  vladva models --fit --device cuda
  vladva models --json
"""


@click.command(epilog=EXAMPLES, short_help="List the model names; --fit says what each needs.")
@click.option("--fit", is_flag=True, help="Print what each needs instead: download, memory, and whether it fits.")
@options.device
@options.as_json
def models(fit: bool, device: str, as_json: bool) -> int:
    """List the model names with tags, size, width D of the features, license, and whether the weights are here.

    Nothing is downloaded.
    """
    if fit:
        return _fit(device, as_json)
    from vladva_clip.sources import listing

    for row in listing.json_rows() if as_json else ():
        output.record(**row)
    if not as_json:
        output.line("\n".join(listing.lines()))
    return output.OK


def _fit(device: str, as_json: bool) -> int:
    from vladva_clip.sources import fit_table
    from vladva_clip.sources.room import Room

    room = Room.here(device)
    for row in fit_table.fit_rows(room) if as_json else ():
        output.record(**row)
    if not as_json:
        output.line("\n".join(fit_table.fit_lines(room)))
    return output.OK
