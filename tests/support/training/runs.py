"""Small runs in processes of their own, which can be killed: forked from a server that has imported everything once."""

import contextlib
import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from PIL import Image

from vladva_training.config import (
    BatchSection,
    DataSection,
    LossSection,
    ModelSection,
    OptimSection,
    Recipe,
    RunSection,
)

STEPS, CHECKPOINT_EVERY = 12, 3
COLORS = ("red", "green", "blue")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["vladva_training.train", "vladva_training.cli", "torch.utils.tensorboard"])


def write_pairs(path: Path, count: int = 20) -> Path:
    """Write a JSONL source: small images of one color each, two short captions and a long one."""
    rows = []
    for number in range(count):
        color, shape, side = COLORS[number % 3], ("circle", "square")[number % 2], ("left", "right")[number // 6 % 2]
        image = path.parent / f"{number}.png"
        Image.new("RGB", (8, 8), (90 * (number % 3), 12 * number, 50)).save(image)
        captions = [f"a {color} {shape}", f"a {shape} on the {side}", f"{number} " + f"a {color} {shape} " * 6]
        rows.append({"image_path": image.name, "captions": captions})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def small_recipe(base: Path, output_dir: Path, **changes: dict) -> Recipe:
    """A run of a second on a tiny random base, through GradCache and with dropout.

    Args:
        base: a directory of `tiny_bases`, with pairs.jsonl beside it.
        output_dir: of the run.
        changes: section -> changed fields; other keys are the recipe's own.
    """
    recipe = Recipe(
        name="small",
        model=ModelSection(name=f"local-dir:{base}", precision="fp32", lora_rank=2, lora_alpha=2, lora_dropout=0.1),
        data=DataSection(
            train=(f"jsonl:{base.parent / 'pairs.jsonl'}",), short_max_tokens=16, evaluation_count=8, num_workers=0
        ),
        loss=LossSection(),
        optim=OptimSection(learning_rate=5e-3),
        batch=BatchSection(size=4, micro_size=2, autocast="fp32"),
        run=RunSection(steps=STEPS, checkpoint_every=CHECKPOINT_EVERY, evaluate_every=4, log_every=1),
        output_dir=str(output_dir),
    )
    sections = {
        key: replace(getattr(recipe, key), **value) for key, value in changes.items() if isinstance(value, dict)
    }
    return replace(recipe, **{**changes, **sections})


def start(recipe: Recipe, *, before: Callable[[], None] | None = None, **environment: str) -> BaseProcess:
    """Start a run in a process of its own; what it prints goes to OUTPUT_DIR.log.

    Args:
        before: called in the process first; picklable.
        environment: variables of the process.
    """
    process = _context.Process(target=_run, args=(recipe, before, environment))
    process.start()
    return process


def finish(recipe: Recipe, **options: object) -> tuple[int, str]:
    """Run to the end; return the exit status, and what this process printed."""
    process = start(recipe, **options)
    process.join(120)
    return process.exitcode, log(recipe)


def log(recipe: Recipe) -> str:
    """What the last process of a run has printed."""
    return Path(f"{recipe.output_dir}.log").read_text()


def adapter(recipe: Recipe) -> dict[str, bytes]:
    """The files of a run's final adapter."""
    return files(Path(recipe.output_dir) / "adapter")


def files(directory: Path) -> dict[str, bytes]:
    """The content of all files below a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


def metrics(recipe: Recipe, event: str = "train") -> list[dict]:
    """The lines of a run's metrics.jsonl of one event."""
    lines = (Path(recipe.output_dir) / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


def has_reached(recipe: Recipe, step: int) -> bool:
    """Whether a step, or an evaluation behind it, stands in a run's metrics.jsonl."""
    path = Path(recipe.output_dir) / "metrics.jsonl"
    return path.exists() and f'"step": {step},' in path.read_text()


def wait_for(condition: Callable[[], object], process: BaseProcess) -> None:
    """Return when something holds, or the process has ended; polls without pause."""
    deadline = time.monotonic() + 120
    while not condition() and process.is_alive():
        assert time.monotonic() < deadline, "a minute is enough for a small run"


def start_group(recipe: Recipe, world_size: int, before: Callable[[], None] | None = None) -> list[BaseProcess]:
    """Start a run of several processes, with the environment that torchrun gives them; each has a log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world_size)]
    return [start(recipe, before=before, WORLD_SIZE=str(world_size), **address, **rank) for rank in ranks]


def _run(recipe: Recipe, before: Callable[[], None] | None, environment: dict[str, str]) -> None:
    from vladva_training.train import train

    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # as in a program of its own; for the loader's workers
    with _redirected(Path(f"{recipe.output_dir}.log{environment.get('RANK', '').strip('0')}")):
        if before is not None:
            before()
        try:
            status = train(recipe)
        except (ValueError, RuntimeError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            status = 1
    sys.exit(status)


@contextlib.contextmanager
def _redirected(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file, contextlib.redirect_stderr(file), contextlib.redirect_stdout(file):
        yield
