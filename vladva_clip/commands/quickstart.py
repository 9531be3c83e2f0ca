"""`vladva quickstart`: the packaged model on scenes that it draws."""

from pathlib import Path

import click

from vladva_clip.commands import options, output

EXAMPLES = """\b
Examples:
  vladva quickstart
  vladva quickstart --output-dir scenes/ --device cpu
"""


@click.command(epilog=EXAMPLES, short_help="Draw 32 scenes and test the packaged model on them.")
@click.option(
    *("--output-dir", "output_dir"), metavar="DIR", type=options.PATH, default="vladva-quickstart", show_default=True,
    help="The folder for the pictures.",
)  # fmt: skip
@options.device
def quickstart(output_dir: Path, device: str) -> int:
    """Draw 32 scenes and test the packaged model on them. Needs neither a network nor a GPU."""
    from vladva_clip.quickstart.tour import run

    output.line(run(output_dir, device=device, say=output.step))
    return output.OK
