"""Speed of building a zero-shot classifier, compared with open_clip's builder and with a plain loop.

    vladva-benchmark zero-shot --model vladva-tiny                               # 1000 classes x 80 templates
    vladva-benchmark zero-shot --model vladva-tiny --classes 250 --templates 4   # a part of them, taken evenly

Five ways with the same weights, tokenizer and texts: ours; open_clip's builder over our own `encode_text`; and
open_clip's builder over a plain encoder (transformers' full forward with a padding mask, the head at every position,
all layers' hidden states kept) whose rows are padded to the longest of 80 (padded), run one at a time (single), or are
as wide as the tokenizer makes them, like CLIP's (naive).
The resulting weights must be equal before any figure is printed. All ways run in turn in one process, so that a machine
whose speed drifts favors none. Quote the ratios, and those of processor time if other programs use the machine.
Finally ours is built once into an empty cache and then from it.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial

import open_clip
import torch
import torch.nn.functional as F
import transformers

import vladva_clip
from vladva_benchmarks import files
from vladva_benchmarks.gauges import elapsed, hardware, spread, use
from vladva_benchmarks.speed.plain_forward import plain_text
from vladva_clip.interface import devices, precision_words
from vladva_clip.interface.arguments import user_path
from vladva_clip.zero_shot.builder import Template, build_zero_shot_classifier

Build = Callable[[], torch.Tensor]
WAYS = ("ours", "open_clip", "padded", "single", "naive")
CLOCKS = ("seconds", "processor_seconds")
LEAST_COSINE = 0.99999
ROWS = len(open_clip.OPENAI_IMAGENET_TEMPLATES)  # of a plain forward: the texts of a class


class PlainEncoder:
    """An encoder for open_clip's builder that runs transformers' full forward: mask, head, all hidden states kept.

    Args:
        model: one of ours, whose weights it uses.
        rows: number of rows that run at a time.
        whole_rows: run rows as wide as the tokens, as CLIP's own encoder does, not as wide as the longest of `rows`.
    """

    def __init__(self, model: vladva_clip.VladvaCLIP, rows: int = ROWS, whole_rows: bool = False) -> None:
        self.model, self.rows, self.whole_rows = model, rows, whole_rows

    def encode_text(self, tokens: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Embed `(N, L)` tokens in the given order: `(N, D)` float32."""
        width = self.model.text.prompts.text_length(tokens.shape[1] - 1) if self.whole_rows else 0
        features = torch.cat([plain_text(self.model, some, width) for some in tokens.split(self.rows)]).float()
        return F.normalize(features, dim=-1) if normalize else features


def ways(model, tokenizer, names: Sequence[str], templates: Sequence[Template]) -> dict[str, Build]:
    """Return the ways by name, each as a function without arguments.

    With fewer than 80 templates open_clip's builder gets more classes at a time, so that its calls keep their size.
    """
    texts = (tokenizer, names, templates)
    options = {"num_classes_per_batch": 10 * max(1, ROWS // len(templates)), "device": model.visual.backbone.device}
    build = open_clip.build_zero_shot_classifier
    return {
        "ours": partial(build_zero_shot_classifier, model, *texts, cache=False),
        "open_clip": partial(build, model, *texts, **options),
        "padded": partial(build, PlainEncoder(model), *texts, **options),
        "single": partial(build, PlainEncoder(model, rows=1), *texts, **options),
        "naive": partial(build, PlainEncoder(model, whole_rows=True), *texts, **options),
    }


def compare(builds: dict[str, Build], repeats: int) -> dict:
    """Run the ways in turn, each turn in another order.

    Returns:
        seconds and processor_seconds of each way, the ratios of each way to ours, turn by turn, and the smallest
        cosine between a column of ours and the same column of another way.

    Raises:
        ValueError: the ways give different weights, so that times can't be compared.
    """
    times: dict[str, dict[str, list[float]]] = {clock: {way: [] for way in builds} for clock in CLOCKS}
    cosines = []
    for turn in range(repeats):
        order = list(builds)[turn % len(builds) :] + list(builds)[: turn % len(builds)]
        found = {}
        for way in order:
            found[way], *both = _timed(builds[way])
            print(f"{way}: {both[0]:.1f} s", file=sys.stderr, flush=True)  # one way can take an hour
            for clock, value in zip(CLOCKS, both, strict=True):
                times[clock][way].append(value)
        cosines += [_least_cosine(found["ours"], found[way]) for way in builds]
    ratios = {clock: {way: _ratios(times[clock][way], times[clock]["ours"]) for way in builds} for clock in CLOCKS}
    return {**times, "ratios": ratios, "least_cosine": min(cosines)}


def _timed(build: Build) -> tuple[torch.Tensor, float, float]:
    """Run a way; return what it built, and the seconds of both clocks."""
    built: list[torch.Tensor] = []
    clocks = elapsed(lambda: built.append(build()))
    return built[0], *clocks


def _least_cosine(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    least = F.cosine_similarity(ours.double(), theirs.double(), dim=0).min().item()
    if not least > LEAST_COSINE:
        raise ValueError(f"the smallest cosine of the weights is {least:.6f}, expected above {LEAST_COSINE}")
    return least


def _ratios(theirs: list[float], ours: list[float]) -> dict[str, float]:
    return spread([a / b for a, b in zip(theirs, ours, strict=True)])


def measure_cache(model, tokenizer, names: Sequence[str], templates: Sequence[Template], repeats: int) -> dict:
    """Build into an empty cache, then from it: seconds and processor_seconds of both, including computing the key.

    Raises:
        ValueError: the classifier from the cache differs from the one that was stored.
    """
    with tempfile.TemporaryDirectory() as directory:
        build = partial(build_zero_shot_classifier, model, tokenizer, names, templates, cache_dir=directory)
        built, *first = _timed(build)
        kept, *again = zip(*(_timed(build) for _ in range(repeats)), strict=True)
    if not all(torch.equal(built, one) for one in kept):
        raise ValueError("the classifier from the cache differs from the one that was built")
    found = {}
    for clock, before, after in zip(CLOCKS, first, again, strict=True):
        found[clock] = {"first": before, "again": list(after), "ratio": spread([before / one for one in after])}
    return found


def evenly(values: Sequence, count: int | None) -> list:
    """Return `count` evenly spaced values, or all of them for None.

    Raises:
        ValueError: `count` is not between 1 and the number of values.
    """
    count = len(values) if count is None else count
    if not 0 < count <= len(values):
        raise ValueError(f"{count} were requested, expected 1 to {len(values)}")
    return [values[index * len(values) // count] for index in range(count)]


def table(report: dict) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| | seconds | ratio to ours | processor seconds | ratio to ours: median (least to most) |",
        "|---|---|---|---|---|",
    ]
    for way in (way for way in WAYS if way in report["seconds"]):
        wall, processor = (spread(report[clock][way])["median"] for clock in CLOCKS)
        ratio, most = (report["ratios"][clock][way] for clock in CLOCKS)
        spreads = f"{most['median']:.2f} ({most['min']:.2f} to {most['max']:.2f})"
        lines.append(f"| {way} | {wall:.1f} | {ratio['median']:.2f} | {processor:.1f} | {spreads} |")
    wall, processor = (report["cache"][clock] for clock in CLOCKS)
    figures = [spread(clock["again"])["median"] for clock in (wall, processor)]
    lines.append(
        f"| from the cache | {figures[0]:.3f} | {wall['ratio']['median']:.0f} times as fast | {figures[1]:.3f} "
        f"| {processor['ratio']['median']:.0f} times as fast |"
    )
    return "\n".join(lines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "vladva-benchmark zero-shot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vladva-tiny")
    parser.add_argument("--pretrained", help="a tag (default: the model's default tag)")
    devices.add_option(parser)
    precision_words.add_option(parser, "the model's own")
    parser.add_argument("--classes", type=int, help="of ImageNet's 1000 names, taken evenly; all by default")
    parser.add_argument("--templates", type=int, help="of OpenAI's 80 templates, taken evenly; all by default")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="ours always runs")
    parser.add_argument("--json", type=user_path, help="JSON file for all figures; else a table is only printed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: prints a table."""
    options = _parse(arguments)
    files.check_file(options.json)
    device = use(options.device)
    names = evenly(open_clip.IMAGENET_CLASSNAMES, options.classes)
    templates = evenly(open_clip.OPENAI_IMAGENET_TEMPLATES, options.templates)
    model, _ = vladva_clip.create_model(options.model, options.pretrained, precision=options.precision, device=device)
    tokenizer = vladva_clip.get_tokenizer(options.model)
    build_zero_shot_classifier(model, tokenizer, names[:2], templates[:2], cache=False)  # a warm-up
    builds = {
        way: build for way, build in ways(model, tokenizer, names, templates).items() if way in {"ours", *options.ways}
    }
    report = {
        "model": options.model,
        "classes": len(names),
        "templates": len(templates),
        "hardware": hardware(device),
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, open_clip)},
        **compare(builds, options.repeats),
        "cache": measure_cache(model, tokenizer, names, templates, 3),
    }
    print(
        f"{options.model} on {report['hardware']}, {len(names)} classes x {len(templates)} templates; "
        f"smallest cosine of the weights {report['least_cosine']:.8f}"
    )
    print(table(report))
    if options.json:
        files.write(options.json, (json.dumps(report, indent=1) + "\n").encode())
        print(f"figures: {options.json}")


if __name__ == "__main__":
    main(sys.argv[1:])
