"""`vladva models`: the names that can be loaded."""

import click

from vladva_clip.commands import options, output


@click.command(short_help="List the model names; --fit says what each needs.")
@click.option("--fit", is_flag=True, help="Add what each needs: download, disk and memory, and whether it fits here.")
@options.as_json
def models(fit: bool, as_json: bool) -> int:
    """List the model names and tags, with license, size and origin."""
    from vladva_clip.sources.listing import lines

    output.line("\n".join(lines()))
    return output.OK
