"""Where `vladva embed` computes: in this process, or on a Ray cluster."""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import click

from vladva_clip.commands import output
from vladva_clip.commands.model import Asked, Loaded

if TYPE_CHECKING:
    from vladva_clip.bulk.filling import Advance, Model
    from vladva_clip.bulk.job import Job, Place


class Engine:
    """Loads the model that was asked for and computes the parts of a job with it.

    Args:
        asked: the model.
        engine: "local" or "ray".
        replicas: models that run at once on a Ray cluster; None for one per GPU, or one.
        workers: processes that decode for each model; None for `filling.default_workers`.
        batch_size: pictures or texts in a batch.

    Raises:
        UsageError: replicas without Ray.
        ValueError: the cluster does not answer.
        ExtraError: Ray is not installed.
    """

    def __init__(self, asked: Asked, engine: str, replicas: int | None, workers: int | None, batch_size: int) -> None:
        from vladva_clip.bulk import on_ray
        from vladva_clip.bulk.filling import default_workers

        if replicas and engine != "ray":
            raise click.UsageError("--replicas is for --engine ray; without it, one model runs")
        self.asked, self.is_ray, self.replicas = asked, engine == "ray", replicas
        self.batch_size, self.workers = batch_size, default_workers() if workers is None else workers
        if self.is_ray:
            on_ray.start()

    def load(self) -> Loaded:
        """Return the model; raises as `Asked.load`."""
        return self._loaded

    @property
    def model(self) -> "Model":
        """The model, as bulk code takes it."""
        from vladva_clip.bulk.filling import Model

        return Model(*self._loaded, self.batch_size, self.workers)

    def fill(self, job: "Job", collections: Sequence, total: int) -> float:
        """Compute the parts that a job lacks, beside a progress bar.

        Args:
            job: the job.
            collections: its own.
            total: its number of items.

        Returns:
            The share of the time in which the model was busy, three digits.
        """
        missing = job.missing()
        left = sum(len(place.items) for place in missing)
        if left < total:
            output.note(f"note: {total - left} of {total} items were embedded before, in {job.folder}")
        start = time.perf_counter()
        with output.progress(total, "item", done=total - left) as bar:
            seconds = (self._on_ray if self.is_ray else self._here)(job, collections, missing, bar.update)
        return round(seconds / (time.perf_counter() - start), 3)

    @cached_property
    def _loaded(self) -> Loaded:
        return self.asked.load()

    def _here(self, job: "Job", collections: Sequence, places: "Sequence[Place]", advance: "Advance") -> float:
        from vladva_clip.bulk.filling import fill

        return fill(job, collections, self.model, places, advance)

    def _on_ray(self, job: "Job", collections: Sequence, places: "Sequence[Place]", advance: "Advance") -> float:
        from vladva_clip.bulk import on_ray

        gpus = 0 if self.asked.device == "cpu" else on_ray.gpus()
        count = self.replicas or gpus or 1
        load = partial(_load_in, os.getcwd(), replace(self.asked, is_default=False))
        replicas = on_ray.Replicas(load, count, int(gpus > 0), self.batch_size, self.workers)
        return on_ray.fill(job, replicas, places, advance)


def _load_in(directory: str, asked: Asked) -> Loaded:
    """Load the model in the folder from which the command was given, where its relative paths begin."""
    with contextlib.chdir(directory) if os.path.isdir(directory) else contextlib.nullcontext():
        return asked.load()
