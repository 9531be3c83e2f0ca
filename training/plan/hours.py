"""Hours and cost of a whole run on common GPUs, from its operations and an assumed share of their peak."""

import math
from dataclasses import dataclass, replace

from vladva_clip.interface.machine import in_words
from vladva_training.config import Recipe
from vladva_training.plan.fit import Fit, Room
from vladva_training.plan.gpus import Gpu, all_gpus, find_gpu
from vladva_training.plan.memory import Memory

# shares of the bf16 peak; assumed, not measured. 4-bit weights are unpacked before each product, which is not counted
UTILIZATION = {"lora": 0.4, "qlora": 0.3, "full": 0.4, "none": 0.4}
SMALLEST = 10**9  # parameters; smaller models spend their time on other things than products
MILLION = 10**6


@dataclass(frozen=True)
class Assumed:
    """What a dry run assumes about the machine that will train.

    Attributes:
        gpu: in place of the device here; None for this machine, with hours on all known GPUs.
        utilization: the share of the peak that a step reaches; None for `UTILIZATION`.
        price: of a GPU for an hour, in any currency; None for no cost.
    """

    gpu: Gpu | None = None
    utilization: float | None = None
    price: float | None = None

    def __post_init__(self) -> None:
        if self.utilization is not None and not 0 < self.utilization <= 1:
            raise ValueError(
                f"--utilization is {self.utilization:g}, expected a share above 0 and up to 1, such as 0.4"
            )
        if self.price is None:
            return
        if not (math.isfinite(self.price) and self.price >= 0):
            raise ValueError(f"--price is {self.price:g}, expected what a GPU costs for an hour, such as 2.5")
        if self.gpu is None:
            raise ValueError("--price is what a GPU costs for an hour: say which GPU with --on, such as --on h100")

    @classmethod
    def of_words(cls, gpu: str | None, utilization: float | None, price: float | None) -> "Assumed":
        """Read it from the options of the command line.

        Raises:
            ValueError: an unknown GPU, a share or a price out of range, a price without a GPU.
        """
        return cls(find_gpu(gpu) if gpu is not None else None, utilization, price)

    def share_of_peak(self, recipe: Recipe) -> float:
        """Return the share of the peak that a step is assumed to reach."""
        return UTILIZATION[recipe.model.train] if self.utilization is None else self.utilization


def lines(fit: Fit, flops: float, memory: Memory, steps: int | None, assumed: Assumed) -> list[str]:
    """Describe the hours of a run: a row for each GPU.

    Args:
        fit: of the run, on any device.
        flops: of a step, per process.
        memory: of a step, per process.
        steps: of the run; None if they are unknown.
        assumed: about the GPUs.
    """
    if reason := _no_hours(fit, assumed):
        return ["", f"Hours: not predicted, {reason}"]
    share, recipe = assumed.share_of_peak(fit.recipe), fit.recipe
    spans = {"a million pairs": MILLION / recipe.batch.size}
    spans |= {f"this run: {steps * recipe.batch.size:,} pairs": steps} if steps else {}
    rows = [["GPU", "memory", "bf16 peak", *spans, "a step"]]
    for gpu in [assumed.gpu] if assumed.gpu else all_gpus().values():
        hours = [_span(gpu.hours(flops * number, share), fit.world_size, assumed.price) for number in spans.values()]
        answer = replace(fit, room=Room.of_gpu(gpu)).answer(memory)
        rows.append([gpu.key, in_words(gpu.size), f"{gpu.bf16_tflops:,.0f} TFLOP/s", *hours, answer])
    return [
        "",
        f"Hours, predicted: {_pace(fit, share, assumed)}",
        *_table(rows),
        "  (computing alone: waiting for data, evaluations and checkpoints come on top)",
    ]


def _pace(fit: Fit, share: float, assumed: Assumed) -> str:
    gpus = f"{fit.world_size} GPUs" if fit.world_size > 1 else "1 GPU"
    origin = f"assumed for model.train={fit.recipe.model.train}" if assumed.utilization is None else "given"
    return f"{gpus} at {share:.0%} of the peak ({origin}; change it with --utilization)"


def _no_hours(fit: Fit, assumed: Assumed) -> str:
    if fit.recipe.batch.autocast != "bf16":
        return f"as the peaks are those of bf16 and batch.autocast is {fit.recipe.batch.autocast}"
    size = sum(parameter.numel() for parameter in fit.base.backbone.parameters())
    if size < SMALLEST and assumed.utilization is None:
        return f"as {size / MILLION:,.0f} million parameters don't keep a GPU busy; --utilization assumes a share"
    return ""


def _span(hours: float, gpus: int, price: float | None) -> str:
    cost = "" if price is None else f", cost {hours * gpus * price:,.0f}"
    return f"{hours:,.1f} h{cost}"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "   ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
