"""Warnings before a run starts: parts of the loss or of an evaluation for which the records have no captions."""

from collections import Counter
from collections.abc import Iterator

from vladva_clip.records.records import Source
from vladva_training.config import DataSection, Recipe
from vladva_training.data.loader import Loader
from vladva_training.data.probe import (
    LOOKED_AT,
    READ,
    SEVERAL_SHORT,
    TOO_LONG,
    WITH_LONG,
    WITH_NEGATIVES,
    WITH_SHORT,
)

CAPTION = "write some with `vladva-train caption`"


def idle_losses(recipe: Recipe, loader: Loader) -> list[str]:
    """Return one warning for each source and part of the loss that has no captions in the records checked."""
    probed = zip(loader.dataset.sources, loader.probed, strict=True)
    return [f"warning: {line}" for source, counts in probed for line in _of_source(recipe, source.name, counts)]


def idle_figures(recipe: Recipe, source: Source, counts: Counter) -> list[str]:
    """Return one warning for each kind of figure that an evaluation source has no captions for.

    Args:
        recipe: the run's recipe.
        source: the source of `data.evaluation`.
        counts: its counts by `probe_source`.
    """
    found = []
    if not counts[WITH_SHORT]:
        found.append(f"no recall is measured: {_none_short(recipe.data, source.name, counts)}")
    if not counts[WITH_LONG] and recipe.loss.ntp_weight:
        found.append(f"no ntp_loss is measured: {_none_long(recipe.data, source.name, counts)}")
    return [f"warning: data.evaluation: {line}" for line in found]


def _of_source(recipe: Recipe, name: str, counts: Counter) -> Iterator[str]:
    loss = recipe.loss
    if not counts[WITH_SHORT]:
        what = "the contrastive loss can't learn from its images"
        yield f"{what}: {_none_short(recipe.data, name, counts)}; {CAPTION}, or leave the source out"
    if loss.ntp_weight and not counts[WITH_LONG]:
        way_out = f"{CAPTION}{', raise data.long_max_tokens' if counts[TOO_LONG] else ''}, or set loss.ntp_weight=0"
        yield f"loss.ntp_weight {loss.ntp_weight:g} adds nothing: {_none_long(recipe.data, name, counts)}; {way_out}"
    if loss.hard_negatives and counts[READ] and not counts[WITH_NEGATIVES]:
        yield (
            f"loss.hard_negatives {loss.hard_negatives} adds nothing: none of the {counts[READ]} records read from "
            f"{name} has a short caption in hard_negatives that differs from its true captions"
        )
    if loss.text_text_weight and not counts[SEVERAL_SHORT]:
        yield (
            f"loss.text_text_weight {loss.text_text_weight:g} adds nothing: no image checked in {name} has two "
            "different short captions"
        )


def _none_short(data: DataSection, name: str, counts: Counter) -> str:
    limits = f"fewer than data.short_max_tokens={data.short_max_tokens} tokens"
    return f"none of the {counts[LOOKED_AT]} records checked in {name} has a short caption ({limits})"


def _none_long(data: DataSection, name: str, counts: Counter) -> str:
    limits = f"data.short_max_tokens={data.short_max_tokens} to data.long_max_tokens={data.long_max_tokens} tokens"
    longer = f"; even longer: {counts[TOO_LONG]}" if counts[TOO_LONG] else ""
    return f"none of the {counts[LOOKED_AT]} records checked in {name} has a long caption ({limits}{longer})"
