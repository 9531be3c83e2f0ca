"""`vladva-benchmark run`: the paper's evaluations, or some of them, of one model.

    vladva-benchmark run flickr30k coco --model vladva-7b --data-root data
    vladva-benchmark run scenes --model vladva-tiny --data-root /tmp/data
    vladva-benchmark run scenes_varied scenes_unseen --model vladva-tiny --data-root /tmp/data
    torchrun --nproc-per-node 8 -m vladva_benchmarks.cli run paper --model vladva-7b --data-root data

docs/benchmarks.md explains where the data sets go, what the figures mean, and what a result file holds.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vladva_benchmarks.suites import runner
from vladva_benchmarks.suites.catalog import PAPER, SUITES
from vladva_benchmarks.suites.runner import Settings
from vladva_clip.interface import devices, precision_words
from vladva_clip.interface.arguments import user_path
from vladva_clip.storage import places


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status.

    Raises:
        ValueError: everything that is missing or wrong, and what to do about it.
        KeyboardInterrupt: Ctrl-C; its text says what is kept.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    settings = parse(arguments)
    places.check_folder(settings.output, "--output")  # before any data is drawn or read
    places.check_folder(_features(settings), "--features")
    try:
        runner.run(settings)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f": finished features are in {_features(settings)}, finished results in {settings.output}; run the same "
            "command again to continue"
        ) from interrupt
    return 0


def parse(arguments: list[str]) -> Settings:
    """Turn a command line into settings; a wrong option ends the process with status 2."""
    parser = argparse.ArgumentParser(
        "vladva-benchmark run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="+", metavar="SUITE", help=_suites())
    parser.add_argument("--model", required=True, help="one of our names or open_clip's, local-dir:PATH, hf-hub:REPO")
    parser.add_argument("--pretrained", help="the model's tag, or a path; our models have a default tag")
    parser.add_argument(
        "--data-root", type=user_path, required=True, help="the folder that holds a folder for each suite"
    )
    parser.add_argument(
        "--output",
        type=user_path,
        default=Path("results"),
        help="where the result files go, one for each data set (results)",
    )
    parser.add_argument("--features", type=user_path, help="where features are stored (OUTPUT/features)")
    parser.add_argument("--batch-size", type=_positive, default=64, help="pictures or texts at a time (64)")
    parser.add_argument("--num-workers", type=_not_negative, default=4, help="processes that decode pictures (4)")
    devices.add_option(parser, default=None, what="CUDA if available, else the CPU")
    precision_words.add_option(parser, "the checkpoint's own, for open_clip's models fp32")
    parser.add_argument("--cache-dir", help="where downloaded models are stored")
    parser.add_argument("--subset", action="store_true", help="accept data sets of other sizes than the published ones")
    parser.add_argument(
        "--scene-pictures",
        type=_positive,
        default=runner.drawn_scenes.COUNT,
        help=f"pictures in each data set of {', '.join(runner.drawn_scenes.FOLDERS.values())} "
        f"({runner.drawn_scenes.COUNT})",
    )
    options = parser.parse_args(arguments)
    return Settings(**vars(options), command=["vladva-benchmark", "run", *arguments])


def _features(settings: Settings) -> Path:
    return settings.features or settings.output / "features"


def _suites() -> str:
    others = [suite.name for suite in SUITES.values() if not suite.in_paper]
    return f"{', '.join(SUITES)}; {PAPER}: all but {', '.join(others)}"


def _positive(text: str) -> int:
    return _at_least(1, text)


def _not_negative(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least {least}")
    return int(text)
