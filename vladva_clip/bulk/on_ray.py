"""Compute the parts of a job on the machines of a Ray cluster, which share its folder.

Each replica loads the model once, opens the job by its folder, and computes whole parts by the code that one machine
uses, so features are equal. A worker that dies loses at most the part in its hands, which is computed again.
"""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vladva_clip.bulk import filling, request
from vladva_clip.bulk.filling import Advance, Model
from vladva_clip.bulk.job import Job, Place, opened, resume
from vladva_clip.index.embed import probes
from vladva_clip.interface import extras


@dataclass(frozen=True)
class Replicas:
    """How models are spread over a cluster.

    load: returns model, preprocess and tokenizer; it is sent to the workers. count: how many models run at once.
    num_gpus: GPUs of each, 0 for CPUs. batch_size, num_workers: of each, as in `filling.Model`.
    """

    load: Callable[[], tuple[Any, Callable, Callable]]
    count: int
    num_gpus: int
    batch_size: int
    num_workers: int


class PartWorker:
    """Compute one part per call.

    Args:
        folder: the job's, at the same place on all machines.
        replicas: what to load, and how.
    """

    def __init__(self, folder: str, replicas: Replicas) -> None:
        self.folder, self.replicas = Path(folder), replicas

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Compute the part of a row, unless it is there.

        Returns:
            items: how many the part has. seconds: spent in the model. error: why the part can't be computed, "" if it
            could: Ray would hide it in a traceback of its own.
        """
        place = Place(row["collection"], range(row["start"], row["stop"]))
        try:
            return {"items": len(place.items), "seconds": self._fill(place), "error": ""}
        except (ValueError, OSError) as error:
            return {"items": 0, "seconds": 0.0, "error": str(error)}

    def _fill(self, place: Place) -> float:
        job, collections, model = self._opened
        if job.has(place):  # a worker may die between writing a part and saying so
            return 0.0
        return filling.fill(job, collections, model, [place], lambda count: None)

    @cached_property
    def _opened(self) -> tuple[Job, list, Model]:
        """The job, its collections and the model; raises ValueError for another model than the job's."""
        job = resume(self.folder)
        model = Model(*self.replicas.load(), self.replicas.batch_size, self.replicas.num_workers)
        made_by = job.made_by | probes(model.model, model.preprocess, model.tokenizer)
        return opened(self.folder, job.lengths, made_by), request.collections(self.folder), model


def fill(job: Job, replicas: Replicas, places: Sequence[Place], advance: Advance) -> float:
    """Compute and write parts on the cluster that `start` connected to.

    Args:
        job: whose parts.
        replicas: what computes them.
        places: which parts.
        advance: called with the number of items done since the last call.

    Returns:
        The seconds spent in the models, divided by their number.

    Raises:
        ValueError: a worker can't compute a part; says why.
    """
    seconds = 0.0
    for row in _rows(job, replicas, places).iter_rows() if places else ():
        if row["error"]:
            raise ValueError(f"on a worker of the Ray cluster: {row['error']}")
        advance(row["items"])
        seconds += row["seconds"]
    return seconds / replicas.count


def start() -> None:
    """Connect to the cluster at `RAY_ADDRESS`, or start one on this machine, unless the program has done so.

    Raises:
        ExtraError: Ray is not installed.
        ValueError: the cluster does not answer.
    """
    extras.require("ray", purpose="--engine ray")
    import ray

    if not ray.is_initialized():
        _require_answer(os.environ.get("RAY_ADDRESS", ""))
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)


def gpus() -> int:
    """Return the number of GPUs of the cluster."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def _require_answer(address: str) -> None:
    """Try the address of a cluster, HOST:PORT or ray://HOST:PORT; Ray itself would try for minutes."""
    found = urlsplit(address if "//" in address else f"//{address}")
    if found.hostname and found.port:
        try:
            socket.create_connection((found.hostname, found.port), timeout=10).close()
        except OSError as error:
            raise ValueError(f"no Ray cluster answers at RAY_ADDRESS={address} ({error})") from error


def _rows(job: Job, replicas: Replicas, places: Sequence[Place]) -> Any:
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"collection": one.collection, "start": one.items.start, "stop": one.items.stop} for one in places]
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        PartWorker,
        fn_constructor_args=(str(job.folder.absolute()), replicas),
        concurrency=replicas.count,
        num_gpus=replicas.num_gpus or None,
    )  # Ray Data replaces workers that die, and hands their rows out again
