"""A look at the captions before a run starts: are there any, and are any of them short?"""

from collections import Counter
from collections.abc import Sequence

from vladva_training.captions import CaptionSplitter
from vladva_training.data.examples import require_captions
from vladva_training.data.records import BadRecord, Source

NUM_PROBED = 256


def probe(sources: Sequence[Source], splitter: CaptionSplitter, needs_short: bool = True) -> Counter:
    """Look at up to 256 records of each source, evenly spread, without decoding images.

    Args:
        sources: the sources of a run.
        splitter: tells short captions from long ones.
        needs_short: a run without any short caption is of no use (contrastive training).

    Returns:
        The number of captions found by kind ("short", "long") and of bad records by reason.

    Raises:
        ValueError: a source without one usable caption; no short caption in any of the sources.
    """
    found = Counter()
    for source in sources:
        counts = probe_source(source, splitter)
        if not counts["short"] + counts["long"]:
            raise ValueError(_no_captions(source, splitter, counts))
        found += counts
    if needs_short and sources and not found["short"]:
        raise ValueError(
            f"none of the {found['long']} captions looked at in {', '.join(source.name for source in sources)} is "
            f"short (fewer than {splitter.short_max_tokens} tokens), and contrastive training needs short ones: add "
            "them (`vladva-train caption`) or raise data.short_max_tokens"
        )
    return found


def probe_source(source: Source, splitter: CaptionSplitter) -> Counter:
    """Count the captions of one source by kind, and its bad records by reason."""
    counts = Counter()
    for index in range(0, len(source), max(1, -(-len(source) // NUM_PROBED))):
        try:
            split = splitter.split(source.captions(index))
            counts.update(short=len(split.short), long=len(split.long))
            require_captions(split, str(index))
        except BadRecord as error:
            counts[error.reason] += 1
    return counts


def _no_captions(source: Source, splitter: CaptionSplitter, counts: Counter) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted((+counts).items()))
    return (
        f"no usable caption in the records looked at in {source.name} ({reasons or 'no records'}); expected captions "
        f"of up to {splitter.long_max_tokens} tokens: fill them in (`vladva-train caption`) or, where they are too "
        "long, raise data.long_max_tokens"
    )
