"""Evaluation between the steps of a run, and the best figure so far."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from vladva_clip.model import VladvaCLIP
from vladva_clip.records.records import Source
from vladva_training.config import Recipe
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.loader import Loader
from vladva_training.data.probe import WITH_LONG, WITH_SHORT, probe_source
from vladva_training.run.evaluation import RECALLS, evaluate, figure_names, here, never
from vladva_training.run.idle import idle_figures
from vladva_training.run.state import Best, RunState

PROBED = 4  # records read to learn whether a source can be evaluated, and with which figures


@dataclass(frozen=True)
class Measuring:
    """How a run is evaluated.

    Attributes:
        measure: (number of records, function that says whether to stop) -> figures by name; None if stopped.
        count: number of records to evaluate on.
        metric: the figure that decides which checkpoint is best; None for no best one.
        notes: lines to print before the run starts.
    """

    measure: Callable[[int, Callable[[], bool]], dict[str, float] | None]
    count: int = 0
    metric: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        model: VladvaCLIP,
        loader: Loader,
        source: Source | None,
        preprocess: Callable,
        from_main: Callable | None = None,
    ) -> Self:
        """Evaluate a model on an open source that `require_metric` has accepted; without a source, on nothing.

        Args:
            recipe: of the run.
            model: LoRA merged or not.
            loader: its splitter separates short captions from long ones.
            source: None without `data.evaluation`, and in processes other than the first.
            preprocess: the model's transform.
            from_main: `Processes.from_main`, for a sharded model, which all processes evaluate together.
        """
        together = from_main is not None and recipe.data.evaluation is not None
        if source is None and not together:
            return cls.none()
        splitter = loader.splitter
        return cls(
            lambda count, stop: evaluate(model, source, splitter, preprocess, count, stop, from_main or here),
            recipe.data.evaluation_count,
            recipe.run.best_metric,
            () if source is None else tuple(idle_figures(recipe, source, probe_source(source, splitter))),
        )

    @classmethod
    def none(cls) -> "Measuring":
        """Return one that measures nothing, for runs without a source and for processes other than the first."""
        return cls(lambda count, stop: {})

    def figures(self, stop: Callable[[], bool] = never) -> dict[str, float] | None:
        """Return the figures, or None if `stop`, which is called repeatedly, returned True."""
        return self.measure(self.count, stop)

    def better(self, figures: dict[str, float], state: RunState) -> Best | None:
        """Return the new best figure, or None if the best so far is at least as good.

        A figure that is missing or not finite is never the best.
        """
        if self.metric is None or not math.isfinite(figures.get(self.metric, math.nan)):
            return None
        found = Best(self.metric, figures[self.metric], state.step)
        sign = -1 if self.metric.endswith("loss") else 1
        return found if state.best is None or sign * found.value > sign * state.best.value else None

    def missing(self, figures: dict[str, float]) -> str | None:
        """Return a warning if the figures lack `metric`, otherwise None."""
        if self.metric in (None, *figures):
            return None
        return f"warning: run.best_metric {self.metric} is not among these figures, so there is no best checkpoint"


def refuse_metric_alone(recipe: Recipe) -> None:
    """Refuse a best metric in a run without evaluation.

    Raises:
        ValueError: `run.best_metric` without `data.evaluation`.
    """
    if recipe.run.best_metric is not None:
        raise ValueError(
            f"run.best_metric is {recipe.run.best_metric!r}, but data.evaluation is none; set it to the source to "
            "measure on"
        )


def require_metric(recipe: Recipe, source: Source, splitter: CaptionSplitter) -> None:
    """Check that an evaluation source can give the best metric; no model is needed.

    Foils are only looked for in the first records, other captions in records from the whole source.

    Raises:
        ValueError: no usable record; a best metric that is not among the figures.
    """
    metric = recipe.run.best_metric
    known = figure_names(source, splitter, min(PROBED, recipe.data.evaluation_count))
    counts = probe_source(source, splitter)
    known |= set(RECALLS) if counts[WITH_SHORT] else set()
    known |= {"ntp_loss"} if counts[WITH_LONG] else set()
    if metric not in (None, *known):
        raise ValueError(
            f"run.best_metric is {metric!r}, which is not a figure of this evaluation; expected one of "
            + ", ".join(sorted(known))
        )
