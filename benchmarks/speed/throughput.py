"""Texts/s and images/s of a model, compared with a plain transformers forward of the same sequences and weights.

    vladva-benchmark throughput --model vladva-tiny --captions captions.txt

With --random-weights, a built-in LVLM of its published size is measured without a download; captions then consist of
vladva-tiny's words. The figures are only printed; `> FILE` keeps them.
Both run alternately, batch by batch, in one process, so that a machine whose speed drifts favors neither; quote the
ratio. The plain forward does what a research script does: captions in the given order, padded with a mask, the head
applied to every position, all layers' hidden states kept, the last one taken at the last token.
"""

import argparse
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import vladva_clip
from vladva_benchmarks.gauges import seconds, use
from vladva_benchmarks.speed import random_base
from vladva_benchmarks.speed.plain_forward import plain_image, plain_text
from vladva_benchmarks.suites.annotations import column, read_json
from vladva_clip.interface import devices, precision_words
from vladva_clip.interface.arguments import user_path
from vladva_clip.scenes import scenes, short_captions
from vladva_clip.sources import registry
from vladva_clip.storage.plain_files import read_text


@dataclass(frozen=True)
class Comparison:
    """Items per second of both, and the median over batches of plain time / our time."""

    ours: float
    plain: float
    ratio: float


def compare(ours: Callable, plain: Callable, batches: list, repeats: int) -> Comparison:
    """Time two functions alternately over the same batches; each goes first equally often.

    Raises:
        ValueError: a component of their normalized features differs by more than 1e-4, so speeds can't be compared.
    """
    check_equal(ours(batches[0]), plain(batches[0]))
    pairs = []
    for turn in range(repeats):
        for batch in batches:
            first, second = (ours, plain) if turn % 2 == 0 else (plain, ours)
            times = {first: seconds(partial(first, batch)), second: seconds(partial(second, batch))}
            pairs.append((times[ours], times[plain]))
    items = repeats * sum(map(len, batches))
    ratio = statistics.median(slow / fast for fast, slow in pairs)
    return Comparison(items / sum(fast for fast, _ in pairs), items / sum(slow for _, slow in pairs), ratio)


def check_equal(ours: torch.Tensor, plain: torch.Tensor) -> None:
    """Raise ValueError unless both features `(B, D)`, normalized, agree to 1e-4."""
    ours, plain = (torch.nn.functional.normalize(features.float(), dim=-1) for features in (ours, plain))
    if (difference := (ours - plain).abs().max().item()) > 1e-4:
        raise ValueError(f"the two encoders differ by {difference:.1e} in a normalized feature, expected at most 1e-4")


def read_captions(paths: list[Path] | None, count: int) -> list[str]:
    """Take captions evenly from text files (one per line) or SugarCrepe's JSON files; without files, from scenes."""
    if not paths:
        return [caption for scene in scenes("test", 0, -(-count // 5)) for caption in short_captions(scene)][:count]
    captions = [caption for path in paths for caption in _captions_of(path)]
    if len(captions) < count:
        raise ValueError(f"--captions hold {len(captions)}, expected {count}: name more files, or lower --batches")
    return captions[:: max(1, len(captions) // count)][:count]


def _captions_of(path: Path) -> list[str]:
    if path.suffix == ".json":
        return column(list(read_json(path, dict).values()), "caption", path)
    return [line for line in read_text(path).split("\n") if line.strip()]


def _load(name: str, precision: str | None, device: torch.device | str, random_weights: bool) -> tuple:
    """Return model, transform and tokenizer."""
    if not random_weights:
        model, preprocess = vladva_clip.create_model(name, precision=precision, device=device)
        return model, preprocess, vladva_clip.get_tokenizer(name)
    torch.manual_seed(0)
    with TemporaryDirectory(prefix="vladva-random-") as place:
        source = f"local-dir:{random_base.write(Path(place), name)}"
        profile = {"profile": name} if registry.MODELS[name].profile else {}
        settings = {"precision": precision, "device": device, "load_weights": False}
        model, preprocess = vladva_clip.create_model(source, **settings, **profile)
        return model, preprocess, vladva_clip.get_tokenizer(source, **profile)


def main(arguments: list[str] | None = None) -> None:
    """The command line: prints one line per modality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vladva-tiny")
    devices.add_option(parser)
    precision_words.add_option(parser, "the model's own")
    parser.add_argument(
        "--random-weights", action="store_true", help="of a built-in LVLM's published size, without a download"
    )
    parser.add_argument("--captions", type=user_path, nargs="*", help="text files or SugarCrepe's JSON files")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args(arguments)
    device = use(options.device)
    captions = read_captions(options.captions, options.batch_size * options.batches)
    model, preprocess, tokenizer = _load(options.model, options.precision, device, options.random_weights)
    tokens = tokenizer(captions)
    images = torch.stack([preprocess(scene.draw()) for scene in scenes("test", 0, options.batch_size * 2)])
    hardware = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    print(f"{options.model} on {hardware}, {precision_words.of_dtype(str(model.visual.backbone.dtype))}")
    for name, ours, plain, data in (
        ("texts", model.encode_text, plain_text, tokens),
        ("images", model.encode_image, plain_image, images),
    ):
        batches = list(data.split(options.batch_size))
        found = compare(torch.no_grad()(ours), partial(plain, model), batches, options.repeats)
        print(f"{name}/s: {found.ours:.3g}, plain {found.plain:.3g}: {found.ratio:.2f} times as fast (median)")


if __name__ == "__main__":
    main()
