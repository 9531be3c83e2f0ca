"""Result files as `vladva-benchmark run` and clip_benchmark write them, and the report's tables read back."""

import json
from pathlib import Path

from vladva_benchmarks.report import command

BASE = "llava-hf/llava-1.5-7b-hf"
OURS = "**LLaVA-1.5-7B, training-free (vladva-7b training_free)**"
RETRIEVAL = {"image_retrieval_recall@1": 0.594, "image_retrieval_recall@5": 0.8, "image_retrieval_recall@10": 0.893}


def put(folder: Path, dataset="flickr30k", metrics=RETRIEVAL, model="vladva-7b", pretrained="training_free", **ours):
    """Write a result as `vladva-benchmark run` does; with details=None as clip_benchmark does. `more` is put beside."""
    details = {"format": 1, "suite": "flickr30k", "command": ["vladva-benchmark", "run", "flickr30k"], "seconds": 12.5}
    details |= {"versions": {"torch": "2.14.0"}, "hardware": "a CPU", "images": 1000, "images_per_second": 80.0}
    details |= {"training_free": True, "base": BASE, "weights": "sha256:0123456789abcdef", "counts": {"images": 1000}}
    more, name = ours.pop("more", {}), ours.pop("name", f"{dataset}_{model}_{pretrained}")
    result = {"dataset": dataset, "model": model, "pretrained": pretrained, "task": "zeroshot_retrieval"}
    result |= {"metrics": metrics, "language": "en", "vladva": {**details, **ours}, **more}
    if "details" in ours:
        del result["vladva"]
    path = folder / f"{name.replace('/', '_')}.json"
    folder.mkdir(exist_ok=True)
    path.write_text(json.dumps(result))
    return path


def made(folder: Path, *options: str, out: str = "report.md") -> str:
    """The report of a folder, without plots."""
    path = folder.parent / out
    command.main([str(folder), "--out", str(path), "--no-plots", *options])
    return path.read_text(encoding="utf-8")


def cells(text: str, name: str, title: str) -> dict[str, str]:
    """A row of one of the report's tables, by column."""
    lines = text.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    head = next(line for line in lines if line.startswith("|"))
    row = next(line for line in lines if line.startswith(f"| {name}"))
    columns, values = ([cell.strip() for cell in line.split("|")[2:-1]] for line in (head, row))
    return dict(zip(columns, values, strict=True))
