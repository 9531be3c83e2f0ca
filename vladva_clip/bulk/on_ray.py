"""Compute the parts of a job on the machines of a Ray cluster, which share its folder.

Each worker loads the model once, opens the job by its folder, and computes whole parts by the same code as a single
machine, so features are equal. A worker that dies loses at most the parts in its hands, which another one computes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vladva_clip.bulk import filling, request
from vladva_clip.bulk.filling import Model
from vladva_clip.bulk.job import Job, Place, resume
from vladva_clip.interface import extras

Load = Callable[[], tuple[Any, Callable, Callable]]


class PartWorker:
    """Computes parts, one call after another.

    Args:
        folder: the job's, at the same place on all machines.
        load: returns model, preprocess and tokenizer; is sent to the worker.
        batch_size, num_workers: as for `filling.Model`.
    """

    def __init__(self, folder: str, load: Load, batch_size: int, num_workers: int) -> None:
        self.job, self.collections = resume(Path(folder)), request.collections(Path(folder))
        self.model = Model(*load(), batch_size, num_workers)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Compute the part that starts at an item of a collection, unless it is there; returns how many items it has."""
        place = Place(row["collection"], range(row["start"], row["stop"]))
        if self.job.parts.path(self.job.part_name(place)).exists():  # a worker finished it, but died before it said so
            return {"items": len(place.items)}
        filling.fill(self.job, self.collections, self.model, [place], lambda count: None)
        return {"items": len(place.items)}


def fill(
    job: Job,
    load: Load,
    places: Sequence[Place],
    advance: Callable[[int], Any],
    workers: int,
    batch_size: int,
    num_workers: int = 0,
    num_gpus: float = 0,
) -> None:
    """Compute and write parts on a Ray cluster: the one that runs (`RAY_ADDRESS`), or a local one.

    Args:
        job: whose parts.
        load: returns model, preprocess and tokenizer, on each worker.
        places: which parts.
        advance: called with the number of items done since the last call.
        workers: how many models run at once.
        batch_size: pictures or texts in a batch.
        num_workers: processes that decode for each of them.
        num_gpus: GPUs of each of them; 0 computes on CPUs.

    Raises:
        ExtraError: Ray is not installed.
    """
    extras.require("ray", purpose="--engine ray")
    import ray

    if not places:
        return
    rows = [{"collection": one.collection, "start": one.items.start, "stop": one.items.stop} for one in places]
    given = (str(job.folder.absolute()), load, batch_size, num_workers)
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        PartWorker,
        fn_constructor_args=given,
        concurrency=workers,
        num_gpus=num_gpus,
        max_restarts=-1,
        max_task_retries=-1,
    )
    for row in done.iter_rows():
        advance(row["items"])
