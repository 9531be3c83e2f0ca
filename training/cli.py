"""`vladva-train`: the command line of the recipe.

vladva-train RECIPE [key=value ...] [--device DEVICE] [--dry-run [--on GPU] [--utilization SHARE] [--price PRICE]]
vladva-train caption SOURCE ...
vladva-train pretrain-tiny-vision | pretrain-tiny | evaluate-tiny ...
"""

import argparse
import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING

from vladva_training.processes.errors import RunError  # the rest is imported in `main`, where Ctrl-C is a line
from vladva_training.processes.signals import INTERRUPTED, SIGINT_EXIT_CODE, EndedAtOnce, StopSignals

if TYPE_CHECKING:
    from vladva_training.recipes import Recipe

COMMANDS = {
    "caption": ("captioning.command", "fill missing captions of a source into new WebDataset shards"),
    "pretrain-tiny-vision": ("tiny.pretrain_vision", "pre-train the vision tower of vladva-tiny"),
    "pretrain-tiny": ("tiny.pretrain", "pre-train the base of vladva-tiny"),
    "evaluate-tiny": ("tiny.evaluate", "measure the base of vladva-tiny"),
}
"""Commands other than a recipe: module, and a summary."""
KEYS = {  # those that most runs change; `--dry-run` lists all
    "output_dir": "where everything is written; the final adapter is OUTPUT_DIR/adapter",
    "resume": "true continues from the last checkpoint in output_dir",
    "seed": "determines the order of the data and the LoRA's initialization",
    "model.name": "the LVLM: a name, local-dir:PATH or hf-hub:ORG/REPO",
    "model.pretrained": "its tag, or the directory of an adapter to train on",
    "data.train": "sources, separated by commas: wds:, jsonl:, csv:, parquet:, hf:, scenes:",
    "batch.size": "images in the global batch, over all processes",
    "batch.micro_size": "images in memory at a time per process; below its share of the batch, GradCache is used",
    "optim.learning_rate": "peak of the schedule",
    "run.steps": "optimizer steps; none for run.epochs",
}

PLANNED = ("on", "utilization", "price")  # options of a dry run


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: the command's own; 2 for an error that the user can fix and 1 for a run that can't continue
        (with one line on stderr); 130 after Ctrl-C; 143 after a SIGTERM before the recipe was read.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        with StopSignals():
            return _run(words)
    except (ValueError, RunError) as error:
        _say(f"error: {_one_line(error)}")
        return 1 if isinstance(error, RunError) else 2
    except KeyboardInterrupt:
        _say(INTERRUPTED)
        return SIGINT_EXIT_CODE
    except EndedAtOnce as end:
        os._exit(end.code)  # don't wait for threads and processes, which may hang
    except SystemExit as end:  # of a signal that came before anything could be lost
        if end.code == SIGINT_EXIT_CODE:
            _say(INTERRUPTED)
        raise
    finally:
        _let_go_of_closed_pipes()


def _run(words: list[str]) -> int:
    from vladva_clip.interface import extras
    from vladva_clip.interface.terminal import take_any_text

    take_any_text()
    with extras.named(" ".join(["vladva-train", *words[:1]])):
        return _command(*words) if words[:1] and words[0] in COMMANDS else _train(words)


def _train(words: list[str]) -> int:
    from vladva_clip.interface import devices
    from vladva_training import overrides, recipes

    options, settings = _parser().parse_known_args(words)
    if options.device is not None:
        devices.resolve(options.device)
    recipe = overrides.apply(recipes.get(options.recipe), settings)
    if options.dry_run:
        return _plan(recipe, options)
    if given := [name for name in PLANNED if getattr(options, name) is not None]:
        raise ValueError(f"--{given[0]} is for a plan: add --dry-run, or leave it out")
    from vladva_training.train import train

    return train(recipe, options.device)


def _plan(recipe: "Recipe", options: argparse.Namespace) -> int:
    from vladva_training.plan.dry_run import describe
    from vladva_training.plan.hours import Assumed
    from vladva_training.run import preflight  # torch is loaded only where it is needed

    text = describe(recipe, options.device, Assumed.of_words(options.on, options.utilization, options.price))
    if os.environ.get("RANK", "0") == "0":  # one of torchrun's processes prints it for all
        with contextlib.suppress(BrokenPipeError):
            print(text, flush=True)
    preflight.look_from_afar(recipe, elsewhere=options.on is not None)
    return 0


def _command(name: str, *words: str) -> int:
    module, _ = COMMANDS[name]
    return importlib.import_module(f"vladva_training.{module}").main(list(words)) or 0  # None: nothing went wrong


def _parser() -> argparse.ArgumentParser:
    from vladva_clip.interface import devices

    parser = argparse.ArgumentParser(
        prog="vladva-train",
        usage="vladva-train RECIPE [key=value ...] [--device DEVICE] [--dry-run [--on GPU] ...]\n"
        "       vladva-train COMMAND ...",
        description="Train an LVLM into a CLIP-like encoder: contrastive and next-token prediction in one pass.",
        epilog="\n\n".join(
            (
                _listing("recipes", _summaries()),
                _listing("commands (COMMAND -h for more)", {name: what for name, (_, what) in COMMANDS.items()}),
                _listing("keys (RECIPE --dry-run shows all)", KEYS),
            )
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="one of the recipes below")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and train nothing")
    parser.add_argument("--on", metavar="GPU", help="plan for this GPU instead of the device here: h100, rtx4090, ...")
    parser.add_argument(
        "--utilization", type=float, metavar="SHARE", help="share of the GPU's peak that the plan's hours assume"
    )
    parser.add_argument("--price", type=float, help="what the GPU of --on costs for an hour; the plan shows the cost")
    devices.add_option(parser, default=None, what="CUDA where there is one, else the CPU; under torchrun without N")
    return parser


def _summaries() -> dict[str, str]:
    from vladva_training.recipes import RECIPES

    return {name: (function.__doc__ or "").partition("\n")[0] for name, function in RECIPES.items()}


def _listing(title: str, lines: dict[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join([f"{title}:", *(f"  {name.ljust(width)}  {text}" for name, text in lines.items())])


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # stderr is closed
        print(text, file=sys.stderr)


def _let_go_of_closed_pipes() -> None:
    """Keep a closed pipe (`| head`) from changing the exit status when Python flushes its streams at exit."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if closed before the start
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _one_line(error: Exception) -> str:
    from vladva_clip.interface.addresses import without_addresses

    return without_addresses(" ".join(str(error).split()))


if __name__ == "__main__":
    sys.exit(main())
