"""Evaluation between two steps of a run, and which of its figures is the best so far."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from vladva_clip.model import VladvaCLIP
from vladva_training.config import Recipe
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.loader import Loader
from vladva_training.data.probe import WITH_LONG, WITH_SHORT, probe_source
from vladva_training.data.records import Source
from vladva_training.run.evaluation import RECALLS, evaluate, figure_names, never
from vladva_training.run.idle import idle_figures
from vladva_training.run.state import Best, RunState

PROBED = 4  # records that show whether it can be measured, and which figures there are


@dataclass(frozen=True)
class Measuring:
    """How a run is evaluated.

    Attributes:
        measure: number of records, and whether to stop -> name -> figure; None when it was stopped.
        count: records of an evaluation.
        metric: the figure that says what is best, None for none.
        notes: what is to be said about it before the run starts.
    """

    measure: Callable[[int, Callable[[], bool]], dict[str, float] | None]
    count: int = 0
    metric: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe, model: VladvaCLIP, loader: Loader, source: Source | None, preprocess: Callable) -> Self:
        """Measure a model on an open source, which `require_metric` has looked at; on none for None."""
        if source is None:
            return cls.none()
        splitter = loader.splitter
        return cls(
            lambda count, stop: evaluate(model, source, splitter, preprocess, count, stop),
            recipe.data.evaluation_count,
            recipe.run.best_metric,
            tuple(idle_figures(recipe, source, probe_source(source, splitter))),
        )

    @classmethod
    def none(cls) -> "Measuring":
        """Return one that measures nothing: of a run without a source, of processes other than the first."""
        return cls(lambda count, stop: {})

    def figures(self, stop: Callable[[], bool] = never) -> dict[str, float] | None:
        """Measure; None if `stop`, which is called repeatedly, returned True."""
        return self.measure(self.count, stop)

    def better(self, figures: dict[str, float], state: RunState) -> Best | None:
        """Return the figures as the best so far, None when they are not; of equals the first one stays.

        A figure that is not a number is never the best, nor is one that is absent.
        """
        if self.metric is None or not math.isfinite(figures.get(self.metric, math.nan)):
            return None
        found = Best(self.metric, figures[self.metric], state.step)
        sign = -1 if self.metric.endswith("loss") else 1
        return found if state.best is None or sign * found.value > sign * state.best.value else None

    def missing(self, figures: dict[str, float]) -> str | None:
        """Return a line where figures lack the one that says what is best, None where they don't."""
        if self.metric in (None, *figures):
            return None
        return f"warning: run.best_metric {self.metric} is not among these figures, so no checkpoint is the best"


def refuse_metric_alone(recipe: Recipe) -> None:
    """Refuse a best metric where nothing is evaluated.

    Raises:
        ValueError: `run.best_metric` without `data.evaluation`.
    """
    if recipe.run.best_metric is not None:
        raise ValueError(
            f"run.best_metric is {recipe.run.best_metric!r}, but data.evaluation names no source to measure it on"
        )


def require_metric(recipe: Recipe, source: Source, splitter: CaptionSplitter) -> None:
    """Look at an evaluation source for the figures to be had from it; no model is needed.

    Foils are looked for in its first records; the rest of the source may hold other captions that these lack.

    Raises:
        ValueError: no usable record; a best metric that is none of the figures.
    """
    metric = recipe.run.best_metric
    known = figure_names(source, splitter, min(PROBED, recipe.data.evaluation_count))
    counts = probe_source(source, splitter)
    known |= set(RECALLS) if counts[WITH_SHORT] else set()
    known |= {"ntp_loss"} if counts[WITH_LONG] else set()
    if metric not in (None, *known):
        raise ValueError(
            f"run.best_metric is {metric!r}, which is no figure of this evaluation; expected one of "
            + ", ".join(sorted(known))
        )
