"""Which files a data set needs below the data root, how to get them, and how many items there must be."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vladva_benchmarks.suites.tasks import Retrieval, Task

Counts = Mapping[str, Mapping[str, int | tuple[int, ...]]]  # data set -> what -> how many (any of several)


def caption_counts(images: int, each: int) -> dict[str, int]:
    """Return the counts of pictures with equally many captions each."""
    per_image = {"captions_per_image_min": each, "captions_per_image_max": each}
    return {"images": images, "captions": images * each, **per_image}


@dataclass(frozen=True)
class Needed:
    """A file or folder.

    names: any of them will do. how: the commands that fetch it, with `{root}` for the suite's folder.
    """

    names: tuple[str, ...]
    how: str


def require(root: Path, folder: str, needed: Sequence[Needed]) -> Path:
    """Return a suite's folder, which must hold all needed files.

    Args:
        root: the data root.
        folder: the suite's folder in it.
        needed: the files and folders in it.

    Raises:
        ValueError: lists everything that is missing, each with how to get it.
    """
    if not root.is_dir():
        found = "is not a folder:" if root.exists() else "is not there: make it, or"
        raise ValueError(f"the data root {root} {found} name another with --data-root")
    place = root / folder
    missing = [item for item in needed if not any((place / name).exists() for name in item.names)]
    if missing:
        lines = [f"  {place / ' or '.join(item.names)}\n    {instructions(item.how, place)}" for item in missing]
        raise ValueError("\n".join([f"{folder}: files are missing; how to get them:", *lines]))
    return place


def instructions(how: str, place: Path) -> str:
    """Return the commands that fetch something into a suite's folder, ready for a shell."""
    return how.format(root=shlex.quote(str(place)))


def check_counts(tasks: Sequence[Task], published: Counts) -> None:
    """Compare what was read with the published counts.

    Raises:
        ValueError: lists every data set with other counts, found and expected.
    """
    wrong = [line for task in tasks for line in unpublished_counts(task, published)]
    if wrong:
        raise ValueError(
            "\n".join(["other counts than the published ones:", *wrong])
            + "\nget the data set again, or evaluate what is there with --subset; the results will say so"
        )


def unpublished_counts(task: Task, published: Counts) -> list[str]:
    """Return a line for each count of a data set that differs from the published one."""
    found, wrong = task.counts(), []
    for what, count in published.get(task.name, {}).items():
        allowed = count if isinstance(count, tuple) else (count,)
        if found[what] not in allowed:
            wrong.append(f"  {task.name}: {what} {found[what]}, expected {' or '.join(map(str, allowed))}")
    return wrong


def check_scorable(tasks: Sequence[Task]) -> None:
    """Refuse data sets that can't be scored at any size: empty, pictures without captions, a gallery with duplicates.

    Raises:
        ValueError: lists every such data set.
    """
    wrong = [f"  {task.name}: {what} 0" for task in tasks for what, count in task.counts().items() if not count]
    for task in tasks:
        twice = [picture for picture, count in Counter(task.pictures).items() if count > 1]
        if twice and isinstance(task, Retrieval):
            wrong.append(f"  {task.name}: {len(twice)} pictures appear twice, the first is {twice[0].path}")
    if wrong:
        raise ValueError("\n".join(["the annotations can't be scored:", *wrong, "get the data set again"]))
