"""`vladva export`: a merged model for other programs."""

from pathlib import Path
from typing import Any

import click

from vladva_clip.commands import options, output

EXAMPLES = """\b
Examples:
  vladva export runs/7b/adapter merged/
  vladva export qwen3-vl-embedding-2b merged/ --pretrained retrieval
"""


@click.command(epilog=EXAMPLES, short_help="Write a merged model for other programs.")
@click.argument("model", metavar="DIR")
@click.argument("out", metavar="OUT", type=options.PATH)
@options.precision("the adapter's own")
@click.option("--max-shard-size", default="2GB", show_default=True, metavar="SIZE", help="Limit of a weight file.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export in OUT.")
@click.option("--pretrained", metavar="TAG", help="A tag of the model, such as retrieval.  [default: its own]")
@click.option("--profile", metavar="PROFILE", help="Read DIR as this published embedder: a name, or a JSON file.")
@click.option("--untrusted-texts", is_flag=True, help="In sentence-transformers a string is never a picture's path.")
def export(model: str, out: Path, precision: str | None, **given: Any) -> int:
    """Write a merged model that needs only transformers, sentence-transformers or vLLM.

    DIR is the directory of an adapter or LVLM, or a model name. OUT is the directory to write.
    """
    from vladva_clip.export.run import export_model

    output.line(str(export_model(model, out, precision, **given)))
    return output.OK
