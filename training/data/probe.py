"""Examines records before a run starts: which kinds of captions there are, and whether the loss has what it needs."""

from collections import Counter
from collections.abc import Sequence

from vladva_clip.records.records import BadRecord, Source, one_record
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.examples import require_captions
from vladva_training.data.negatives import usable_negatives

NUM_PROBED = 256
NUM_READ = 16  # with their images, for their hard negatives
SEVERAL_SHORT, READ, WITH_NEGATIVES = "several short", "read", "with hard negatives"
LOOKED_AT, WITH_SHORT, WITH_LONG, TOO_LONG = "looked at", "with short", "with long", "too long"
_NOT_REASONS = {"short", "long", SEVERAL_SHORT, LOOKED_AT, WITH_SHORT, WITH_LONG, TOO_LONG}


def probe(sources: Sequence[Source], splitter: CaptionSplitter, hard_negatives: bool = False) -> list[Counter]:
    """Examine up to 256 records of each source, evenly spread, without decoding images.

    Args:
        sources: the sources of a run.
        splitter: separates short captions from long ones.
        hard_negatives: also read 16 records of each source with their images, and count the hard negatives.

    Returns:
        For each source the number of captions by kind ("short", "long", "too long"); of records "looked at", those
        "with short" and "with long" captions and with "several short" different ones, and bad ones by reason. With
        `hard_negatives` also the number of records "read" and of those "with hard negatives" that can be used.

    Raises:
        ValueError: a source without any usable caption; no short caption in any of the sources.
    """
    found = []
    for source in sources:
        counts = probe_source(source, splitter)
        if not counts["short"] + counts["long"]:
            raise ValueError(_no_captions(source, splitter, counts))
        found.append(counts | (probe_hard_negatives(source, splitter) if hard_negatives else Counter()))
    if sources and not any(counts["short"] for counts in found):
        raise ValueError(
            f"none of the {sum(counts['long'] for counts in found)} captions looked at in "
            f"{', '.join(source.name for source in sources)} is short (fewer than {splitter.short_max_tokens} tokens), "
            "but contrastive training needs short ones: add them (`vladva-train caption`) or raise "
            "data.short_max_tokens"
        )
    return found


def require_readable(source: Source) -> None:
    """Check that at least one of some evenly spread records can be read, with its image.

    Raises:
        ValueError: none can be read; says what is wrong with the first.
    """
    bad = []
    for index in _spread(source, NUM_READ):
        try:
            with one_record(index):
                source[index]
            return
        except BadRecord as error:
            bad.append(error)
    if bad:
        raise ValueError(f"{source.name}: none of the {len(bad)} records looked at can be read; the first: {bad[0]}")


def probe_source(source: Source, splitter: CaptionSplitter) -> Counter:
    """Count the captions of one source by kind, and its bad records by reason."""
    counts = Counter()
    for index in _spread(source, NUM_PROBED):
        try:
            with one_record(index):
                split = splitter.split(source.captions(index))
            counts.update({"short": len(split.short), "long": len(split.long), TOO_LONG: split.too_long})
            counts.update({LOOKED_AT: 1, WITH_SHORT: bool(split.short), WITH_LONG: bool(split.long)})
            counts[SEVERAL_SHORT] += len(set(split.short)) > 1
            require_captions(split, str(index))
        except BadRecord as error:
            counts[error.reason] += 1
    return counts


def probe_hard_negatives(source: Source, splitter: CaptionSplitter) -> Counter:
    """Count the good records "read", and those of them "with hard negatives" that can be used."""
    counts = Counter()
    for index in _spread(source, NUM_READ):
        try:
            with one_record(index):
                record = source[index]
        except BadRecord:
            continue
        usable, _ = usable_negatives(record.hard_negatives, splitter.split(record.captions), splitter)
        counts[READ] += 1
        counts[WITH_NEGATIVES] += bool(usable)
    return counts


def _spread(source: Source, count: int) -> range:
    return range(0, len(source), max(1, -(-len(source) // count)))


def _no_captions(source: Source, splitter: CaptionSplitter, counts: Counter) -> str:
    reasons = ", ".join(
        f"{reason} {count}" for reason, count in sorted((+counts).items()) if reason not in _NOT_REASONS
    )
    return (
        f"no usable caption in the records looked at in {source.name} ({reasons or 'no records'}); expected captions "
        f"of up to {splitter.long_max_tokens} tokens: add them (`vladva-train caption`), or raise "
        "data.long_max_tokens if they are too long"
    )
