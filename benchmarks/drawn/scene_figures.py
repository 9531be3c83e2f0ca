"""All figures of one model on drawn scenes it has never seen: retrieval, foils, triples, Winoground, classes, captions.

    vladva-benchmark scene-figures --output figures.json
    vladva-benchmark scene-figures --model local-dir:runs/tiny/adapter --styles varied --splits validation

Figures are measured for each split in each style (`vladva_clip.scenes`). Settings are chosen on "validation", and no
setting on "unseen", the style that no training draws. The groups of figures are those of
`vladva_benchmarks.drawn.scene_evaluation`. `vladva card` puts the file on a model card.
"""

import argparse
from collections.abc import Sequence

import vladva_clip
from vladva_benchmarks import files
from vladva_benchmarks.drawn.caption_quality import Captioner, caption_quality
from vladva_benchmarks.drawn.scene_evaluation import Figures, evaluate_worlds
from vladva_benchmarks.drawn.scene_tasks import World
from vladva_benchmarks.gauges import versions
from vladva_benchmarks.suites import models
from vladva_benchmarks.suites.models import Encoder
from vladva_clip.interface import devices
from vladva_clip.interface.arguments import user_path
from vladva_clip.scenes import SPLITS, STYLES

WORLDS = (World("test"), World("heldout"), World("test", "varied"), World("test", "unseen"))
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
    encoder: Encoder,
    captioner: Captioner | None,
    count: int,
    foil_count: int,
    caption_count: int,
    worlds: Sequence[World] = WORLDS,
) -> dict[str, Figures]:
    """Measure a model on some worlds.

    Args:
        encoder: what embeds.
        captioner: what writes captions; None for a model that can't.
        count: images in each gallery.
        foil_count: the first `foil_count` of them are asked about foils, triples, sizes and single objects.
        caption_count: the first `caption_count` of them are described; 0 for no captions.
        worlds: splits in a style.

    Returns:
        For each world, by its name, the groups of `evaluate_worlds`, and `captions` (`caption_quality`) if there is a
        captioner.

    Raises:
        ValueError: as `scene_tasks`.
    """
    figures = evaluate_worlds(encoder, worlds, count, foil_count)
    for world in worlds if captioner and caption_count else ():
        figures[world.name]["captions"] = caption_quality(captioner, world, caption_count)
    return figures


def worlds_of(styles: Sequence[str], splits: Sequence[str] | None = None) -> list[World]:
    """Return the splits in each of the styles; without splits those of `WORLDS`."""
    if splits:
        return [World(split, style) for style in dict.fromkeys(styles) for split in dict.fromkeys(splits)]
    return [world for world in WORLDS if world.style in styles]


def table(figures: dict[str, Figures]) -> str:
    """Return one line for each figure, with a column for each world; a dash where a world doesn't have it."""
    lines = [f"{'':<40}" + "".join(f"{world:>20}" for world in figures)]
    places = dict.fromkeys((group, name) for one in figures.values() for group, names in one.items() for name in names)
    for group, name in places:
        values = [one.get(group, {}).get(name) for one in figures.values()]
        cells = "".join(f"{'-':>20}" if value is None else f"{value:>20.3f}" for value in values)
        lines.append(f"{f'{group} {name}':<40}{cells}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "vladva-benchmark scene-figures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vladva-tiny", help="default: %(default)s")
    parser.add_argument("--pretrained", metavar="TAG", help="the model's tag (default: its own default)")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=STYLES, help="default: all")
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, help="of each style (default: test, and heldout of the classic style)"
    )
    parser.add_argument("--count", type=int, default=1000, help="images in each gallery (default: %(default)s)")
    parser.add_argument("--foil-count", type=int, default=500, help="images asked about foils (default: %(default)s)")
    parser.add_argument("--caption-count", type=int, default=200, help="images described, or 0 (default: %(default)s)")
    devices.add_option(parser)
    parser.add_argument("--output", type=user_path, help="JSON file for the figures; else they are only printed")
    options = parser.parse_args(arguments)
    counts = {"count": options.count, "foil_count": options.foil_count, "caption_count": options.caption_count}
    files.check_file(options.output)
    worlds = worlds_of(options.styles, options.splits)
    figures = measure(*load(options.model, options.pretrained, options.device), **counts, worlds=worlds)
    print(table(figures))
    if options.output:
        asked = {"model": options.model, "pretrained": options.pretrained, **counts}
        files.write_json(options.output, asked | {"figures": figures, "versions": versions(*PACKAGES)})
        print(f"figures: {options.output}")
    return 0
