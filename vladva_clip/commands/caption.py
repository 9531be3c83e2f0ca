"""`vladva caption`: a text for each picture."""

from pathlib import Path

import click

from vladva_clip.commands import options, output, pictures
from vladva_clip.commands.model import Asked

EXAMPLES = """\b
Examples:
  vladva caption photo.jpg
  vladva caption holiday/ --model vladva-7b --json
  vladva caption photo.jpg --model qwen3-vl-2b --prompt "What is the weather like?"
"""


@click.command(epilog=EXAMPLES)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--prompt", metavar="TEXT", help="An instruction.  [default: ask for a long caption, as in training]")
@click.option(
    "--max-new-tokens", type=options.COUNT, default=128, show_default=True, metavar="N", help="Tokens to write."
)
@options.model()
@options.batch_size
@options.failures
@options.as_json
def caption(
    asked: Asked,
    images: tuple[str, ...],
    prompt: str | None,
    max_new_tokens: int,
    batch_size: int,
    failures_file: Path | None,
    as_json: bool,
) -> int:
    """Write a caption for each picture.

    IMAGE is a file, a folder (all pictures below it) or a glob. An LVLM or an adapter writes best; some
    published embedders have lost the head that writes, and are refused.
    """
    paths, failures = pictures.find(images)
    total = len(paths) + len(failures)
    loaded = asked.load()
    loaded.model.require_generation()
    from vladva_clip.pictures.batches import batches

    device = loaded.model.logit_scale.device
    with output.progress(len(paths), "picture", beside_results=True) as bar:
        for some, pixels in batches(paths, loaded.preprocess, batch_size, failures):
            texts = loaded.model.generate(pixels.to(device), prompt, max_new_tokens)
            for path, text in zip(some, texts, strict=True):
                if as_json:
                    output.record(file=str(path), caption=text)
                else:
                    output.line(f"{output.heading(path)}: {output.plain(text)}")
            bar.update(len(some))
    return output.finish(failures, total, file=failures_file)
