"""The miniature's rows: what trains, with which losses, in which layout, on which pairs."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vladva_benchmarks.drawn.miniature_layouts import ALL_SOFT, BEHIND_SUMMARY, PROMPT_BEHIND
from vladva_training.config import LONG_MAX_TOKENS, Recipe
from vladva_training.recipes import tiny

BATCH_SIZE = 32
SAMPLES = 9_600
NTP_WEIGHT = 1.0  # the paper's, which states no weights
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: as the table shows it.
        train: which parts of vladva-tiny train (`model.train`); None if nothing does, "rival" for the open_clip CLIP.
        soft_prompt: the vectors in the prompts train.
        ntp_weight: of next-token prediction of the long caption.
        seeds: one run each.
        layout: of `miniature_layouts.LAYOUTS`; None for the base's own.
        long: the contrastive loss sees the long captions instead of the short ones.
        share: of the pairs of a run.
    """

    name: str
    train: str | None = "lora"
    soft_prompt: bool = True
    ntp_weight: float = 0.0
    seeds: tuple[int, ...] = (0,)
    layout: str | None = None
    long: bool = False
    share: float = 1.0

    @property
    def slug(self) -> str:
        """The name in file names."""
        return slug(self.name)


def slug(name: str) -> str:
    """Return a name in lower case with hyphens instead of spaces and commas."""
    return re.sub(r"[^a-z0-9+.]+", "-", name.lower()).strip("-")


ROWS = (
    Row("hand-written", None, False),
    Row("soft-prompt", "none"),
    Row("lora", soft_prompt=False),
    Row("both", seeds=SEEDS),
    Row("both+ntp", ntp_weight=NTP_WEIGHT, seeds=SEEDS),
    Row(f"both+ntp, {BEHIND_SUMMARY}", ntp_weight=NTP_WEIGHT, seeds=SEEDS, layout=BEHIND_SUMMARY),
    # also tells what the mean of both contrastive directions would do: half their sum has half the weight
    Row("both+ntp, twice its weight", ntp_weight=2 * NTP_WEIGHT),
    Row(f"both, {PROMPT_BEHIND}", layout=PROMPT_BEHIND),
    Row(f"both, {ALL_SOFT}", layout=ALL_SOFT),
    Row("both, contrastive on long captions", long=True),
    Row("both, a quarter of the pairs", share=1 / 4),
    Row("both, half of the pairs", share=1 / 2),
    Row("both, twice the pairs", share=2),
    Row("clip", "rival", False),
)


def _families(steps: int, size: int) -> tuple[str, ...]:
    """Whole families from the start."""
    return (f"scenes:train:{steps * size}:varied",)


def _places_first(steps: int, size: int) -> tuple[str, ...]:
    """A third are scenes of two objects with their places swapped, then come whole families."""
    first = max(1, steps // 3)
    return f"scenes:train:{first * size}:varied:pairs:swaps", f"scenes:train:{(steps - first) * size}:varied"


ORDERS: dict[str, Callable[[int, int], tuple[str, ...]]] = {
    "families": _families,
    "places first": _places_first,
}
"""Data order -> the sources of a run of some steps of a batch size, read one after another."""


@dataclass(frozen=True)
class Size:
    """How long a run trains and how it is measured; the same for all rows.

    samples: pairs. count: scenes in each gallery. foil_count: scenes asked about foils. caption_count: scenes that the
    model describes.
    """

    samples: int = SAMPLES
    batch_size: int = BATCH_SIZE
    count: int = 1000
    foil_count: int = 400
    caption_count: int = 100
    threads: int | None = None
    compile: bool = False

    def steps(self, share: float = 1.0) -> int:
        """Optimizer steps of a run with a share of the pairs."""
        return int(self.samples * share) // self.batch_size

    def shared(self) -> dict[str, int]:
        """Return the settings that all runs of a table must share."""
        return {key: value for key, value in vars(self).items() if key not in ("threads", "compile")}


@dataclass(frozen=True)
class Choice:
    """The settings that are chosen on "validation varied", never on a test split: data order and learning rate."""

    order: str = "families"
    learning_rate: float = 2e-3

    @property
    def slug(self) -> str:
        """The settings in file names."""
        return slug(f"{self.order} {self.learning_rate:g}")


CHOSEN = Choice()


def sources(row: Row, size: Size, choice: Choice = CHOSEN) -> tuple[str, ...]:
    """Return the specs of a row's pairs, in turn."""
    specs = ORDERS[choice.order](size.steps(row.share), size.batch_size)
    return tuple(f"{spec}:long" for spec in specs) if row.long else specs


def recipe_of(row: Row, seed: int, size: Size, output_dir: Path, choice: Choice = CHOSEN) -> Recipe:
    """Return the `tiny` recipe with a row's parts, another length and no false captions; nothing else changes."""
    recipe = tiny()
    short = {"short_max_tokens": LONG_MAX_TOKENS} if row.long else {}  # so that a long caption counts as a short one
    return replace(
        recipe,
        name=f"miniature {row.name}",
        model=replace(recipe.model, train=row.train, soft_prompt=row.soft_prompt, compile=size.compile),
        data=replace(
            recipe.data, train=sources(row, size, choice), in_turn=True, evaluation=None, num_workers=0, **short
        ),
        loss=replace(
            recipe.loss,
            ntp_weight=row.ntp_weight,
            hard_negatives=0,
            text_text_weight=0.0,
            false_negatives="known",
        ),
        optim=replace(recipe.optim, learning_rate=choice.learning_rate),
        batch=replace(recipe.batch, size=size.batch_size),
        run=replace(
            recipe.run, steps=size.steps(row.share), epochs=1, checkpoint_every=0, evaluate_every=0, best_metric=None
        ),
        output_dir=str(output_dir),
        seed=seed,
        resume=True,
    )
