"""All figures of one model on drawn scenes it has never seen: retrieval, foils, triples, Winoground, classes, captions.

    vladva-benchmark scene-figures --output figures.json
    vladva-benchmark scene-figures --model local-dir:runs/tiny/adapter --count 200

The figures are those of the miniature's rows (`vladva_benchmarks.drawn.scene_evaluation`). `vladva card` puts the file
on a model card.
"""

import argparse
from collections.abc import Sequence

import vladva_clip
from vladva_benchmarks import files
from vladva_benchmarks.drawn.caption_quality import Captioner, caption_quality
from vladva_benchmarks.drawn.scene_evaluation import Figures, evaluate_scenes
from vladva_benchmarks.gauges import versions
from vladva_benchmarks.suites import models
from vladva_benchmarks.suites.models import Encoder
from vladva_clip.interface import devices
from vladva_clip.interface.arguments import user_path

SPLITS = ("test", "heldout")
PACKAGES = ("torch", "transformers", "peft")


def load(model_name: str, tag: str | None = None, device: str = "cpu") -> tuple[Encoder, Captioner]:
    """Load one of our models in float32, as an encoder and as a captioner.

    Args:
        model_name: a name of `vladva_clip.list_models()`, `local-dir:PATH` or `hf-hub:ORG/REPO`.
        tag: the name's tag, None for its default.
        device: where the model goes (see `vladva_clip.interface.devices`).

    Raises:
        ValueError: an unknown model, a device that isn't here.
    """
    model, preprocess = vladva_clip.create_model(model_name, tag, precision="fp32", device=device)
    tokenizer = vladva_clip.get_tokenizer(model_name)
    return models.in_hand(model, preprocess, tokenizer), Captioner(model, preprocess, tokenizer)


def measure(
    encoder: Encoder, captioner: Captioner | None, count: int, foil_count: int, caption_count: int
) -> dict[str, Figures]:
    """Measure a model on both splits.

    Args:
        encoder: what embeds.
        captioner: what writes captions; None for a model that can't.
        count: images in each split's gallery.
        foil_count: the first `foil_count` of them are asked about foils and triples.
        caption_count: the first `caption_count` of them are described.

    Returns:
        For each split the groups of `evaluate_scenes`, and `captions` (`caption_quality`) if there is a captioner.

    Raises:
        ValueError: as `scene_tasks`.
    """
    figures = {split: evaluate_scenes(encoder, split, count, foil_count) for split in SPLITS}
    for split in SPLITS if captioner else ():
        figures[split]["captions"] = caption_quality(captioner, split, caption_count)
    return figures


def table(figures: dict[str, Figures]) -> str:
    """Return one line for each figure, with a column for each split."""
    first = next(iter(figures.values()))
    lines = [f"{'':<40}" + "".join(f"{split:>10}" for split in figures)]
    for group, names in first.items():
        for name in names:
            values = "".join(f"{one[group][name]:>10.3f}" for one in figures.values())
            lines.append(f"{f'{group} {name}':<40}{values}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "vladva-benchmark scene-figures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vladva-tiny", help="default: %(default)s")
    parser.add_argument("--pretrained", metavar="TAG", help="the model's tag (default: its own default)")
    parser.add_argument("--count", type=int, default=1000, help="images in each gallery (default: %(default)s)")
    parser.add_argument("--foil-count", type=int, default=500, help="images asked about foils (default: %(default)s)")
    parser.add_argument("--caption-count", type=int, default=200, help="images described (default: %(default)s)")
    devices.add_option(parser)
    parser.add_argument("--output", type=user_path, help="JSON file for the figures; else they are only printed")
    options = parser.parse_args(arguments)
    counts = {"count": options.count, "foil_count": options.foil_count, "caption_count": options.caption_count}
    files.check_file(options.output)
    figures = measure(*load(options.model, options.pretrained, options.device), **counts)
    print(table(figures))
    if options.output:
        asked = {"model": options.model, "pretrained": options.pretrained, **counts}
        files.write_json(options.output, asked | {"figures": figures, "versions": versions(*PACKAGES)})
        print(f"figures: {options.output}")
    return 0
