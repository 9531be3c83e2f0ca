"""Reads damaged adapters in a process of its own, under limits of memory and time.

The command is `python -m tests.support.fuzz FIRST COUNT DIR`.

Prints a JSON report: how many were read and how many refused, what went wrong, the most memory and the longest time.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import torch

from tests.support.mutations import damage
from vladva_clip.storage import adapter_files
from vladva_clip.storage.config import BaseConfig, ImageConfig, PromptConfig, VladvaConfig

WIDTH, TOKENS, RANK = 1024, 16, 16
SECONDS = 30.0  # of one directory, on a machine that others use too; milliseconds are usual
NATIVE_SLACK = 24 << 20  # bytes of address space that malloc may take in advance, a piece at a time
# what reading never does: run code, start programs, talk to anyone
FORBIDDEN = (
    "exec",
    "compile",
    "import",
    "pickle.",
    "os.system",
    "os.exec",
    "os.spawn",
    "subprocess.",
    "socket.",
    "ctypes.",
)


class Hang(BaseException):
    """Past the time of one directory."""


def honest(directory: Path) -> int:
    """Write an undamaged adapter, of no base that exists; returns the bytes of its files."""
    mean = (0.5, 0.5, 0.5)
    prompt = PromptConfig(
        "USER: {visual}\nin one word:",
        "USER: {caption}\nin one word:",
        num_image_soft_tokens=TOKENS,
        num_text_soft_tokens=TOKENS,
    )
    config = VladvaConfig(BaseConfig("org/base", "llava", "a" * 40), prompt, ImageConfig(56, mean, mean), WIDTH)
    generator = torch.Generator().manual_seed(0)
    soft_prompt = {side: torch.randn(TOKENS, WIDTH, generator=generator) for side in ("image", "text")}
    name = "base_model.model.model.language_model.layers.{}.self_attn.{}_proj.lora_{}.weight"
    shapes = {"A": (RANK, WIDTH), "B": (WIDTH, RANK)}
    lora = {
        name.format(layer, module, side): torch.randn(shape, generator=generator)
        for layer in range(8)
        for module in "qv"
        for side, shape in shapes.items()
    }
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    settings |= {"rank_pattern": {}, "bias": "none", "base_model_name_or_path": "org/base"}
    adapter_files.write(directory, adapter_files.StoredAdapter(config, soft_prompt, settings, lora), {})
    return sum(path.stat().st_size for path in directory.iterdir())


class Reader:
    """Reads one directory at a time and keeps the book."""

    def __init__(self, work: Path) -> None:
        self.work, self.case, self.outside = work.resolve(), work / "case", work / "outside"
        self.outside.mkdir(parents=True)
        (self.outside / "secret.json").write_text('{"secret": 1}')
        self.num_bytes = honest(work / "honest")
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        self.memory, self.seconds, self.watching = 0, 0.0, False
        self.events: list[str] = []

    def prepare(self, number: int) -> list[str]:
        """Lay out case `number`; returns what is wrong with it."""
        shutil.rmtree(self.case, ignore_errors=True)
        shutil.copytree(self.work / "honest", self.case, copy_function=os.link)
        return damage(self.case, self.outside, random.Random(f"adapter {number}"))

    def read(self, number: int) -> None:
        """Read case `number`."""
        done = self.prepare(number)
        outcome = self._watched()
        problems = [*self.events, *(["a trap sprung"] if (self.outside / "sprung").exists() else [])]
        if outcome not in ("read", "refused"):
            problems.append(outcome)
        if problems:
            self.failures.append(f"case {number} ({', '.join(done)}): {'; '.join(problems)}")
        self.outcomes[outcome] += 1

    def _watched(self) -> str:
        self.events, self.watching, started = [], True, time.perf_counter()
        tracemalloc.reset_peak()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            adapter_files.read(self.case)
            return "read"
        except ValueError:
            return "refused"
        except (Exception, Hang) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.watching = False
            self.memory = max(self.memory, tracemalloc.get_traced_memory()[1])
            self.seconds = max(self.seconds, time.perf_counter() - started)

    def audit(self, event: str, arguments: tuple) -> None:
        """Note what reading must not do (an audit hook, which sees all that Python does)."""
        if not self.watching:
            return
        if event.startswith(FORBIDDEN):
            self.events.append(f"{event} {arguments!r:.80}")
        if event == "open" and not os.path.realpath(arguments[0]).startswith(f"{self.work}/case/"):
            self.events.append(f"opened {arguments[0]!r}")


def main() -> None:
    """The command line."""
    first, count, work = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])

    def hang(*_):
        raise Hang(f"more than {SECONDS} s")

    reader = Reader(work)
    for _ in range(3):  # what is imported lazily, is so by now
        adapter_files.read(work / "honest")
    signal.signal(signal.SIGALRM, hang)
    sys.addaudithook(reader.audit)
    tracemalloc.start()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 2 * reader.num_bytes + NATIVE_SLACK
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    for number in range(first, first + count):
        reader.read(number)
    resource.setrlimit(resource.RLIMIT_AS, before)  # the end of a process needs memory too
    report = {"honest_bytes": reader.num_bytes, "memory": reader.memory, "seconds": reader.seconds}
    print(json.dumps(report | {"outcomes": reader.outcomes, "failures": reader.failures}))


if __name__ == "__main__":
    main()
