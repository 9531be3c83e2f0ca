"""`vladva-benchmark`: runs a benchmark by name."""

import importlib
import sys
from collections.abc import Sequence

from vladva_clip.interface import interrupts  # the rest is imported in `main`, where Ctrl-C is a line

COMMANDS = {
    "run": ("suites.command", "the paper's evaluations: retrieval, compositionality, ImageNet, and drawn scenes"),
    "scene-figures": ("drawn.scene_figures", "all figures of a model on drawn scenes"),
    "miniature": ("drawn.miniature", "the recipe's parts on the drawn world, beside an open_clip CLIP of equal size"),
    "training-step": ("speed.training_step", "speed and memory of a training step, beside the usual scheme"),
    "world-sheet": ("drawn.world_sheet", "a picture of the drawn world, style by style"),
    "vectors": ("drawn.vectors", "recall of features stored with fewer dimensions or bits"),
    "throughput": ("speed.throughput", "speed of embedding, beside a plain transformers forward"),
    "bulk": ("speed.bulk", "speed and memory of `vladva embed` on folders of different sizes"),
    "zero-shot": ("speed.zero_shot", "speed of building a zero-shot classifier, beside open_clip's builder"),
    "report": ("report.command", "the paper's tables with your rows in them, from result files"),
}
"""Command -> its module, and what it measures."""
INTERRUPTED = "vladva-benchmark: interrupted"
EXTRAS = {
    **dict.fromkeys(["scene-figures", "miniature", "training-step"], "train,benchmarks"),
    "vectors": "train,benchmarks,vectors",
}
"""The extras of commands that need more than `benchmarks`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark; returns the exit status: 2 for an error of usage, 130 after Ctrl-C, with a line on stderr."""
    try:
        with interrupts.kept(INTERRUPTED):
            return _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt as interrupt:
        print(f"{INTERRUPTED}{''.join(map(str, interrupt.args))}", file=sys.stderr)
        return interrupts.STATUS


def _run(arguments: list[str]) -> int:
    from vladva_clip.interface import extras
    from vladva_clip.interface.addresses import without_addresses
    from vladva_clip.interface.terminal import take_any_text
    from vladva_clip.storage.config import nearest

    take_any_text()
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:<14} {what}" for name, (_, what) in COMMANDS.items()]
        print("usage: vladva-benchmark COMMAND [options]\n\ncommands (COMMAND -h for more):", *lines, sep="\n")
        return 0
    command, rest = arguments[0].replace("_", "-"), arguments[1:]  # earlier releases named them with underscores
    try:
        if command not in COMMANDS:
            raise ValueError(f"unknown command {arguments[0]!r}; {nearest(command, COMMANDS)}")
        with extras.named(command, EXTRAS.get(command, "benchmarks")):
            return importlib.import_module(f"vladva_benchmarks.{COMMANDS[command][0]}").main(rest) or 0
    except (ValueError, OSError) as error:
        print(without_addresses(f"error: {error}"), file=sys.stderr)
        return 2


if __name__ == "__main__":  # for torchrun
    sys.exit(main())
