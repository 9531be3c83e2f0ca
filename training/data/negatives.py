"""Which of a record's hard negatives can be used: those that are false captions, each of them once."""

from collections import Counter
from collections.abc import Iterable

from vladva_training.data.captions import CaptionSplitter, SplitCaptions

TRUE = "hard negative equals a caption"


def usable_negatives(
    texts: Iterable[str], own: SplitCaptions, splitter: CaptionSplitter
) -> tuple[list[tuple[tuple[int, ...], str]], Counter]:
    """Return the ids and the text of each usable hard negative, in order, and the unused ones counted by reason.

    Texts are compared by their ids, so that stray white space makes no difference. The very same text twice counts
    once, and is not counted as unused.

    Args:
        texts: a record's hard negatives.
        own: the record's captions; a hard negative that is one of them is true.
        splitter: a hard negative must be short.
    """
    split = splitter.split(dict.fromkeys(texts))
    false = [(ids, text) for ids, text in zip(split.short, split.short_texts, strict=True) if ids not in own.short]
    distinct = list(dict(false).items())
    unused = {
        "hard negative too long": len(split.long) + split.too_long,
        "hard negative empty": split.empty,
        TRUE: len(split.short) - len(false),
        "hard negative repeated": len(false) - len(distinct),
    }
    return distinct, +Counter(unused)
