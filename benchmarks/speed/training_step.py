"""Time and memory of one training step, compared with how similar projects compute the same gradients.

    vladva-benchmark training-step                            # a LLaVA sized for a CPU, 4 minutes on 2 cores
    vladva-benchmark training-step --shape 7b --device cuda   # LLaVA-1.5-7B with random weights

`peer_step` is the other scheme. Both schemes get the same model and the same batch, and their gradients must be equal
before anything is timed. They run alternately in one process, so that a machine whose speed drifts favors neither;
quote the ratios. On a CPU memory is measured in a separate process for each scheme.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import peft
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from vladva_benchmarks import files
from vladva_benchmarks.gauges import elapsed, hardware, matmul_peak, peak_bytes, seconds, spread, use
from vladva_benchmarks.speed.peer_step import PeerStep
from vladva_benchmarks.speed.step_shapes import SHAPES, Shape, load, random_batch
from vladva_clip import VladvaCLIP
from vladva_clip.interface import devices, precision_words
from vladva_clip.interface.arguments import user_path
from vladva_training.config import BatchSection, DataSection, LossSection, ModelSection, Recipe
from vladva_training.step.batches import Batch
from vladva_training.step.fused import FusedForward
from vladva_training.step.grad_cache import GlobalStep

Step = Callable[[Batch], object]
SCHEMES = ("ours", "peers")
# makes glibc return freed tensors to the system at once, so that the resident set counts live ones, as on CUDA
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "131072"}
TOLERANCE = {"fp32": 1e-4, "bf16": 0.2}  # of a parameter's gradient, relative to its norm


def our_step(model: VladvaCLIP, shape: Shape) -> Step:
    """Return the recipe's step."""
    recipe = Recipe(
        name="training_step",
        model=ModelSection(name="random"),
        data=DataSection(train=("random",)),
        loss=LossSection(ntp_chunk=shape.ntp_chunk),
        batch=BatchSection(size=shape.batch_size, micro_size=shape.micro_size, autocast=shape.autocast),
    )
    return GlobalStep(FusedForward(model, recipe.loss, recipe.batch), recipe)


@dataclass(frozen=True)
class Bench:
    """A model in train mode, a batch for it, and the two schemes' steps, which add to its gradients."""

    shape: Shape
    device: torch.device
    model: VladvaCLIP
    batch: Batch
    steps: dict[str, Step]

    @classmethod
    def build(cls, shape: Shape, device: torch.device | str = "cpu") -> "Bench":
        """Build all of it from a shape."""
        device = devices.resolve(device)
        model = load(shape, device)
        batch = random_batch(shape, shape.batch_size, model.visual.prompts.eot_token_id)
        peers = PeerStep(model, shape.micro_size, shape.autocast)
        return cls(shape, device, model, batch, {"ours": our_step(model, shape), "peers": peers})

    def run(self, scheme: str) -> None:
        """Compute one step's gradients."""
        self.model.zero_grad(set_to_none=True)
        self.steps[scheme](self.batch)

    def gradients(self, scheme: str) -> tuple[dict[str, torch.Tensor], int]:
        """Run one step; return a copy of each gradient, and the operations of matrix products and attention."""
        with FlopCounterMode(display=False) as counter:
            self.run(scheme)
        copies = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        return copies, counter.get_total_flops()

    def time_in_turn(self, repeats: int) -> dict[str, list[tuple[float, float]]]:
        """Time both steps alternately, each first equally often: scheme -> `gauges.elapsed` of each repetition."""
        found: dict[str, list[tuple[float, float]]] = {scheme: [] for scheme in SCHEMES}
        for turn in range(repeats):
            for scheme in SCHEMES if turn % 2 == 0 else reversed(SCHEMES):
                found[scheme].append(elapsed(partial(self.run, scheme)))
        return found

    def peak(self, scheme: str) -> int:
        """Return the bytes that a step needs beyond the model and the batch, including its gradients."""
        self.model.zero_grad(set_to_none=True)
        return peak_bytes(partial(self.run, scheme), self.device)

    def of_size(self, batch_size: int) -> "Bench":
        """Return a bench with the same model and another batch size."""
        shape = replace(self.shape, batch_size=batch_size)
        return replace(self, shape=shape, batch=random_batch(shape, shape.batch_size, self.batch.long[0][-1].item()))


def largest_difference(ours: dict, peers: dict, tolerance: float) -> float:
    """Return the largest difference between a parameter's two gradients, relative to their norm.

    Raises:
        ValueError: a parameter has a gradient from only one scheme, or gradients that differ by more than the
            tolerance, so that times can't be compared.
    """
    if set(ours) != set(peers):
        raise ValueError(f"only one scheme gives gradients to {sorted(set(ours) ^ set(peers))[:4]}, expected both")
    found = {name: ((ours[name] - peers[name]).norm() / peers[name].norm()).item() for name in ours}
    worst = max(found, key=found.get)
    if not found[worst] <= tolerance:
        raise ValueError(f"the gradients of {worst} differ by {found[worst]:.1e}, expected at most {tolerance:.0e}")
    return found[worst]


def measure(bench: Bench, repeats: int, peaks: dict[str, list[int]]) -> dict:
    """Check that the gradients are equal, then time both schemes.

    Args:
        bench: the model, batch and schemes to measure.
        repeats: number of timed steps of each scheme.
        peaks: peak bytes of each scheme's steps, one per repetition; empty lists if not measured.

    Returns:
        The figures, all JSON. `speed_ratio` and `processor_ratio` are theirs / ours, `memory_ratio` is ours / theirs.
    """
    (ours, our_flops), (peers, peer_flops) = (bench.gradients(scheme) for scheme in SCHEMES)
    difference = largest_difference(ours, peers, TOLERANCE[bench.shape.autocast])
    del ours, peers
    both_clocks = bench.time_in_turn(repeats)
    times, processor = ({name: [t[i] for t in both_clocks[name]] for name in SCHEMES} for i in (0, 1))
    found = {"gradient_difference": difference, "flops": {"ours": our_flops, "peers": peer_flops}, "seconds": times}
    found["samples_per_second"] = {name: len(bench.batch) / spread(times[name])["median"] for name in SCHEMES}
    found["speed_ratio"] = _ratios(times["peers"], times["ours"])
    found |= {"processor_seconds": processor, "processor_ratio": _ratios(processor["peers"], processor["ours"])}
    peak = matmul_peak(bench.device, precision_words.DTYPES[bench.shape.autocast])
    shares = {name: found["flops"][name] / spread(times[name])["median"] / peak for name in SCHEMES}
    found |= {"matmul_peak": peak, "share_of_peak": shares}
    if all(peaks.values()):
        found |= {"peak_bytes": peaks, "memory_ratio": _ratios(peaks["ours"], peaks["peers"])}
    return found


def measure_alone(bench: Bench, found: dict) -> dict:
    """Run our step once with the larger batch: seconds, peak bytes (on CUDA), share of the matrix-product peak.

    The number of operations is scaled from the smaller batch, whose captions have the same lengths on average.
    """
    times: list[float] = []
    bench.model.zero_grad(set_to_none=True)
    run = partial(bench.run, "ours")
    # on a CPU, growth means nothing here: the process reuses memory from its earlier steps
    peak = None if bench.device.type != "cuda" else peak_bytes(lambda: times.append(seconds(run)), bench.device)
    times = times or [seconds(run)]
    flops = found["flops"]["ours"] * len(bench.batch) / found["batch_size"]
    share = flops / times[0] / found["matmul_peak"]
    return {"batch_size": len(bench.batch), "seconds": times[0], "peak_bytes": peak, "share_of_peak": share}


def measure_peaks(bench: Bench, repeats: int, arguments: list[str]) -> dict[str, list[int]]:
    """Measure both schemes' memory: scheme -> bytes of each repetition. On a CPU each runs in a fresh process.

    Args:
        bench: the bench to measure on CUDA.
        repeats: number of repetitions.
        arguments: the command line, from which a fresh process builds the same bench.
    """
    if bench.device.type != "cpu":
        return {scheme: [bench.peak(scheme) for _ in range(repeats)] for scheme in SCHEMES}
    return {scheme: [_peak_of_a_process(scheme, arguments) for _ in range(repeats)] for scheme in SCHEMES}


def _peak_of_a_process(scheme: str, arguments: list[str]) -> int:
    command = [sys.executable, "-m", "vladva_benchmarks.speed.training_step", *arguments, "--memory-of", scheme]
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | RETURN_FREED_MEMORY
    )
    return int(output.stdout.split()[-1])


def _ratios(above: list[float], below: list[float]) -> dict[str, float]:
    return spread([a / b for a, b in zip(above, below, strict=True)])


def describe(bench: Bench) -> dict:
    """Return the device, hardware, versions and sizes of a measurement."""
    versions = {module.__name__: module.__version__ for module in (torch, transformers, peft)}
    sizes = {"batch_size": len(bench.batch), "tokens": _tokens(bench)}
    sizes["model_bytes"] = sum(p.numel() * p.itemsize for p in bench.model.parameters())
    return {
        "device": str(bench.device),
        "hardware": hardware(bench.device),
        "versions": versions,
        **sizes,
        "shape": asdict(bench.shape),
    }


def _tokens(bench: Bench) -> dict[str, float]:
    """Return the mean number of tokens in an image row up to its summary token, what follows it, and a text row."""
    visual, text, size = bench.model.visual, bench.model.text, len(bench.batch)
    short = sum(text.prompts.text_length(len(caption)) for caption in bench.batch.short)
    image = len(visual.prompts.image_row(visual.num_visual_tokens))
    turns = sum(caption is not None for caption in bench.batch.long) * len(visual.prompts.second_turn)
    return {"image": image, "long": (bench.batch.labeled_tokens + turns) / size, "text": short / size}


def table(report: dict) -> str:
    """Return the figures as a table in Markdown."""
    rows = [("samples/s", report["samples_per_second"], report["speed_ratio"], 1, 2)]
    if report["device"] == "cpu":
        used = {scheme: spread(values)["median"] for scheme, values in report["processor_seconds"].items()}
        rows.append(("processor seconds per step", used, report["processor_ratio"], 1, 1))
    if "peak_bytes" in report:
        peaks = {scheme: spread(values)["median"] for scheme, values in report["peak_bytes"].items()}
        rows.append(("peak memory beyond the model, MB", peaks, report["memory_ratio"], 1e6, 0))
    lines = ["| | ours | GradCache + checkpointing | ratio: median (least to most) |", "|---|---|---|---|"]
    for name, values, ratio, unit, digits in rows:
        lines.append(
            f"| {name} | {values['ours'] / unit:.{digits}f} | {values['peers'] / unit:.{digits}f} | "
            f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}) |"
        )
    ours, peers = report["flops"]["ours"], report["flops"]["peers"]
    lines.append(f"| TFLOP | {ours / 1e12:.2f} | {peers / 1e12:.2f} | {peers / ours:.2f} |")
    shares = report["share_of_peak"]
    lines.append(f"| share of the matrix-product peak | {shares['ours']:.0%} | {shares['peers']:.0%} | |")
    if alone := report.get("alone"):
        memory = f", {alone['peak_bytes'] / 1e9:.1f} GB beyond the model" if alone["peak_bytes"] else ""
        share = f"{alone['share_of_peak']:.0%} of the matrix-product peak"
        lines.append(f"\nours alone, batch {alone['batch_size']}: {alone['seconds']:.1f} s{memory}, {share}")
    return "\n".join(lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    devices.add_option(parser)
    parser.add_argument("--batch-size", type=int, help="the shape's own by default")
    parser.add_argument("--micro-size", type=int, help="images whose activations exist at a time, in both schemes")
    parser.add_argument("--ntp-chunk", type=int, help="labeled tokens whose logits exist at a time in our step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-repeats", type=int, default=2)
    parser.add_argument("--json", type=user_path, help="JSON file for all figures; else a table is only printed")
    parser.add_argument("--memory-of", choices=SCHEMES, help="only print one scheme's peak memory in bytes")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """The command line: prints a table."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    files.check_file(options.json)
    device = use(options.device)
    sizes = {key: getattr(options, key) for key in ("batch_size", "micro_size", "ntp_chunk")}
    shape = replace(SHAPES[options.shape], **{key: value for key, value in sizes.items() if value})
    bench = Bench.build(shape, device)
    if options.memory_of:
        bench.of_size(2).run(options.memory_of)  # a warm-up: libraries that load in the first step don't count
        print(bench.peak(options.memory_of))
        return
    peaks = measure_peaks(bench, options.memory_repeats, arguments)
    report = describe(bench) | measure(bench, options.repeats, peaks)
    if shape.alone:
        report["alone"] = measure_alone(bench.of_size(shape.alone), report)
    print(table(report))
    if options.json:
        files.write(options.json, (json.dumps(report, indent=1) + "\n").encode())
        print(f"figures: {options.json}")


if __name__ == "__main__":
    main()
