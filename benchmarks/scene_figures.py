"""All figures of one model on drawn scenes it has never seen: retrieval, foils, triples, Winoground, classes, captions.

    vladva-benchmark scene_figures --output figures.json
    vladva-benchmark scene_figures --model local-dir:runs/tiny/adapter --count 200

The figures are those of the miniature's rows (`vladva_training.scene_evaluation`); `vladva card` puts the file on a
card.
"""

import argparse
import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import vladva_clip
from vladva_training.scene_evaluation import Captioner, Figures, caption_quality, clip_encoder, evaluate_scenes

SPLITS = ("test", "heldout")


def measure(model_name: str, tag: str | None, count: int, foil_count: int, caption_count: int) -> dict[str, Figures]:
    """Measure a model of ours, in float32.

    Args:
        model_name: a name of `vladva_clip.list_models()`, `local-dir:PATH` or `hf-hub:ORG/REPO`.
        tag: the name's tag, None for its default.
        count: images of each split's gallery.
        foil_count: so many of them are asked about foils and triples.
        caption_count: so many of them are described.

    Returns:
        For each split the groups of `evaluate_scenes`, and `captions` (`caption_quality`).

    Raises:
        ValueError: an unknown model, a gallery with part of a family.
    """
    model, preprocess = vladva_clip.create_model(model_name, tag, precision="fp32")
    tokenizer = vladva_clip.get_tokenizer(model_name)
    encoder, captioner = clip_encoder(model, preprocess, tokenizer), Captioner(model, preprocess, tokenizer)
    return {
        split: evaluate_scenes(encoder, split, count, foil_count)
        | {"captions": caption_quality(captioner, split, caption_count)}
        for split in SPLITS
    }


def table(figures: dict[str, Figures]) -> str:
    """Return one line for each figure, with a column for each split."""
    first = next(iter(figures.values()))
    lines = [f"{'':<32}" + "".join(f"{split:>10}" for split in figures)]
    for group, names in first.items():
        for name in names:
            values = "".join(f"{one[group][name]:>10.3f}" for one in figures.values())
            lines.append(f"{f'{group} {name}':<32}{values}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "vladva-benchmark scene_figures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vladva-tiny", help="default: %(default)s")
    parser.add_argument("--pretrained", metavar="TAG", help="the model's tag; its default one if not given")
    parser.add_argument("--count", type=int, default=1000, help="images of each gallery (default: %(default)s)")
    parser.add_argument("--foil-count", type=int, default=500, help="images asked about foils (default: %(default)s)")
    parser.add_argument("--caption-count", type=int, default=200, help="images described (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    figures = measure(options.model, options.pretrained, options.count, options.foil_count, options.caption_count)
    print(table(figures))
    if options.output:
        _write(options.output, {"model": options.model, "pretrained": options.pretrained, "figures": figures})
    return 0


def _write(path: Path, data: dict) -> None:
    data["versions"] = {name: version(name) for name in ("torch", "transformers", "peft")}
    scratch = path.with_suffix(f".{os.getpid()}.new")
    scratch.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(scratch, path)
