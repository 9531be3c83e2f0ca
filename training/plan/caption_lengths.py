"""The lengths of a recipe's captions, measured on a few records before a run, or assumed."""

import re
from dataclasses import dataclass
from pathlib import Path

from vladva_clip.records.records import BadRecord, Source, one_record
from vladva_training.config import Recipe
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.specs import open_source
from vladva_training.plan.architecture import Base

NUM_SAMPLED = 128  # records of each source
NUM_SHARDS = 2  # of a source with many: indexing all of them may take an hour
ASSUMED_SHORT, ASSUMED_LONG = 14, 200  # tokens, if no source can be measured

_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Captions:
    """Lengths in ids: means over images (an image without one counts as 0) and the longest.

    share_long: the share of images that have a long caption. records: their number, None if unknown. about: the number
    is an estimate.
    """

    short: float
    long: float
    share_long: float
    longest_short: int
    longest_long: int
    records: int | None
    about: bool
    origin: str


def measure(recipe: Recipe, base: Base) -> Captions:
    """Measure the captions of the recipe's sources on a few records, or assume lengths and state the reason."""
    if base.tokenizer is None:
        return _assumed(recipe, f"the tokenizer of {base.config.base.id} is not on this machine")
    try:
        opened = [open_some(spec) for spec in recipe.data.train]
    except (ValueError, OSError) as error:
        return _assumed(recipe, str(error))
    splitter = CaptionSplitter(
        base.tokenizer, recipe.data.short_max_tokens, recipe.data.long_max_tokens, base.config.prompt
    )
    return measure_opened(recipe, opened, splitter)


def measure_opened(recipe: Recipe, opened: list[tuple[Source, float]], splitter: CaptionSplitter) -> Captions:
    """Measure the captions of open sources, each given with how many times its records it represents."""
    sampled = [_sample(source, splitter) for source, _ in opened]
    records = [round(len(source) * times) for source, times in opened]
    weights = recipe.data.weights or records
    weights = [weight / sum(weights) for weight in weights]
    return Captions(
        short=_weighted(weights, [short.mean for short, _ in sampled]),
        long=_weighted(weights, [long.mean for _, long in sampled]),
        share_long=_weighted(weights, [long.share for _, long in sampled]),
        longest_short=max(short.longest for short, _ in sampled),
        longest_long=max(long.longest for _, long in sampled),
        records=sum(records),
        about=any(times != 1 for _, times in opened),
        origin=f"captions measured on up to {NUM_SAMPLED} records of each source",
    )


def open_some(spec: str) -> tuple[Source, float]:
    """Open a source, or only two of many shards, without a download.

    Returns:
        The source, and how many times its records it represents.

    Raises:
        ValueError: as `open_source`; a source that would have to be downloaded.
    """
    from vladva_clip.records.paths import expand_files

    kind, _, rest = spec.partition(":")
    if needs_download(spec):
        raise ValueError(f"{spec} is not a directory here, and a dry run downloads nothing")
    shards = expand_files(rest, ".tar", spec) if kind == "wds" else []
    if len(shards) <= NUM_SHARDS:
        return open_source(spec), 1
    some = shards[:: -(-len(shards) // NUM_SHARDS)]
    return open_source("wds:" + "::".join(map(str, some))), len(shards) / len(some)


def needs_download(spec: str) -> bool:
    """Whether a source is on the Hub rather than on this machine."""
    kind, _, rest = spec.partition(":")
    name = rest.partition(":")[0]
    return kind == "hf" and bool(_HUB_NAME.fullmatch(name)) and not Path(name).is_dir()


@dataclass(frozen=True)
class _Sampled:
    """Captions of one kind: mean length per image, the longest, and the share of images that have one."""

    mean: float
    longest: int
    share: float

    @classmethod
    def of(cls, found: list[list[int]]) -> "_Sampled":
        means, count = [sum(lengths) / len(lengths) for lengths in found if lengths], max(1, len(found))
        longest = max((max(lengths, default=0) for lengths in found), default=0)
        return cls(sum(means) / count, longest, len(means) / count)


def _sample(source: Source, splitter: CaptionSplitter) -> tuple[_Sampled, _Sampled]:
    """Measure some records' short captions, and their long ones with the end of text."""
    short, long = [], []
    for index in range(0, len(source), max(1, -(-len(source) // NUM_SAMPLED))):
        try:
            with one_record(index):
                split = splitter.split(source.captions(index))
        except BadRecord:
            continue
        short.append([len(ids) for ids in split.short])
        long.append([len(ids) + 1 for ids in split.long])
    return _Sampled.of(short), _Sampled.of(long)


def _weighted(weights: list[float], values: list[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def _assumed(recipe: Recipe, why: str) -> Captions:
    data = recipe.data
    short, long = min(ASSUMED_SHORT, data.short_max_tokens - 1), min(ASSUMED_LONG, data.long_max_tokens)
    origin = f"captions assumed to have {short} and {long} ids: {' '.join(why.split())}"
    return Captions(short, long + 1, 1, data.short_max_tokens - 1, data.long_max_tokens + 1, None, False, origin)
