"""Speed and memory of `vladva embed` on folders of different sizes.

    vladva-benchmark bulk --counts 1000 10000        # drawn pictures, two folders

Each folder holds that many names of 500 drawn JPEGs (hard links), embedded by the command in a process of its own.
Memory that grows with the number of files shows in the last column. Not on Windows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import vladva_clip
from vladva_benchmarks import files
from vladva_benchmarks.gauges import hardware, seconds
from vladva_clip.interface import devices
from vladva_clip.interface.arguments import user_path
from vladva_clip.scenes import scene
from vladva_clip.storage import json_files

DIFFERENT = 500
SIDE = 192
"""Of the drawn pictures, in pixels."""
TO_MIB = 1 / 1024 if sys.platform != "darwin" else 1 / (1 << 20)
"""`ru_maxrss` is in KiB, on macOS in bytes."""


def pictures(folder: Path, count: int) -> Path:
    """A new folder with `count` names of drawn JPEGs, a thousand to a subfolder."""
    originals = folder / "originals"
    originals.mkdir(exist_ok=True)
    for number in range(len(list(originals.iterdir())), min(count, DIFFERENT)):
        scene("test", number, "varied").draw(SIDE).save(originals / f"{number}.jpg")
    place = folder / str(count)
    for number in range(count):
        link = place / f"{number // 1000:04}" / f"{number:08}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.hardlink_to(originals / f"{number % DIFFERENT}.jpg")
    return place


def embed(place: Path, options: Sequence[str]) -> dict[str, float]:
    """Embed a folder by the command; returns files, seconds, files_per_second, busy (after loading), peak_mib.

    Raises:
        ValueError: the command failed, with its last words.
    """
    out = place.with_suffix(".npz")
    words = [sys.executable, "-m", "vladva_clip.cli", "embed", str(place), "--out", str(out), "--json", *options]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(words, stdout=said, stderr=subprocess.PIPE) as process:
        complaints = process.stderr.read().decode(errors="replace")  # until its end
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        taken = time.perf_counter() - start
        said.seek(0)
        lines = said.read().splitlines()
    if process.returncode:
        raise ValueError(f"vladva embed ended with status {process.returncode}: {complaints[-500:].strip()}")
    done = json_files.parse(lines[-1])
    return {
        "files": done["rows"],
        "seconds": taken,
        "files_per_second": done["rows"] / taken,
        "busy": done["busy"],
        "peak_mib": used.ru_maxrss * TO_MIB,
    }


@torch.no_grad()
def features_per_second(name: str, batch_size: int, repeats: int = 8) -> float:
    """How many decoded and resized pictures a second the model embeds, with nothing around it."""
    model, preprocess = vladva_clip.create_model(name, device="auto")
    batch = torch.stack([preprocess(scene("test", number, "varied").draw(SIDE)) for number in range(batch_size)])
    batch = batch.to(model.visual.backbone.device)
    times = [seconds(lambda: model.encode_image(batch, normalize=True)) for _ in range(repeats + 1)]
    return batch_size / statistics.median(times[1:])


def table(rows: Sequence[dict[str, float]]) -> Iterator[str]:
    """The rows as a Markdown table."""
    yield "| files | seconds | files/s | model busy | peak memory, MiB |"
    yield "|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row['files']:,} | {row['seconds']:.1f} | {row['files_per_second']:.1f} | "
            f"{row['busy']:.0%} | {row['peak_mib']:.0f} |"
        )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "vladva-benchmark bulk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vladva-tiny")
    parser.add_argument("--counts", nargs="+", type=int, default=[1000, 10_000], help="files in each folder")
    parser.add_argument("--workers", type=int, default=1, help="processes that decode")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=user_path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    if min(options.counts) < 1:
        parser.error(f"found --counts {min(options.counts)}, expected 1 or more files")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: prints a table."""
    options = _parse(arguments)
    files.check_file(options.json)
    words = ["--model", options.model, "--workers", str(options.workers), "--batch-size", str(options.batch_size)]
    with tempfile.TemporaryDirectory() as folder:
        rows = [embed(pictures(Path(folder), count), words) for count in options.counts]
    alone = features_per_second(options.model, options.batch_size)
    print(f"{options.model} on {hardware(devices.resolve('auto'))}; features alone: {alone:.1f}/s")
    print(*table(rows), sep="\n")
    if options.json:
        report = {"model": options.model, "features_per_second": alone, "folders": rows}
        files.write(options.json, (json.dumps(report, indent=1) + "\n").encode())
        print(f"figures: {options.json}")


if __name__ == "__main__":
    main(sys.argv[1:])
