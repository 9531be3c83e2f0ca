"""Evaluation between two steps of a run, and which of its figures is the best so far."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from vladva_clip.model import VladvaCLIP
from vladva_training.captions import CaptionSplitter
from vladva_training.config import Recipe
from vladva_training.data.probe import WITH_LONG, WITH_SHORT, probe_source
from vladva_training.data.specs import open_source
from vladva_training.evaluation import RECALLS, evaluate, never
from vladva_training.idle import idle_figures
from vladva_training.state import Best, RunState

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
    def open(cls, recipe: Recipe, model: VladvaCLIP, splitter: CaptionSplitter, preprocess: Callable) -> "Measuring":
        """Open a recipe's evaluation source and measure on its first records.

        Raises:
            ValueError: a source that can't be opened or holds no usable record; a best metric that is none of its
                figures.
        """
        metric, spec = recipe.run.best_metric, recipe.data.evaluation
        if spec is None:
            if metric is not None:
                raise ValueError(f"run.best_metric is {metric!r}, but data.evaluation names no source to measure it on")
            return cls.none()
        source = open_source(spec)
        counts = probe_source(source, splitter)
        measuring = cls(
            lambda count, stop: evaluate(model, source, splitter, preprocess, count, stop),
            recipe.data.evaluation_count,
            metric,
            tuple(idle_figures(recipe, source, counts)),
        )
        measuring._check(counts)
        return measuring

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

    def _check(self, counts: Counter) -> None:
        """Measure once on a few records; the rest of the source may hold the captions that these lack."""
        known = set(self.measure(min(PROBED, self.count), never))
        known |= set(RECALLS) if counts[WITH_SHORT] else set()
        known |= {"ntp_loss"} if counts[WITH_LONG] else set()
        if self.metric not in (None, *known):
            raise ValueError(
                f"run.best_metric is {self.metric!r}, which is no figure of this evaluation; expected one of "
                + ", ".join(sorted(known))
            )
