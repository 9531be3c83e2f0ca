"""Selects a record's usable hard negatives: short captions that are false, each once."""

from collections import Counter
from collections.abc import Collection, Iterable

from vladva_training.data.captions import CaptionSplitter, SplitCaptions

TRUE = "hard negative equals a caption"
KNOWN = "hard negative is true by the facts"


def usable_negatives(
    texts: Iterable[str], own: SplitCaptions, splitter: CaptionSplitter, true: Collection[str] = ()
) -> tuple[list[tuple[tuple[int, ...], str]], Counter]:
    """Return the ids and the text of each usable hard negative, in order, and the unusable ones counted by reason.

    Texts are compared by their ids, so stray white space makes no difference. An exact duplicate of a text is ignored
    and not counted as unused.

    Args:
        texts: a record's hard negatives.
        own: the record's captions; a hard negative that equals one of them is a true caption.
        splitter: a hard negative must be short.
        true: texts, as the splitter cleans them, that are known to be true of the image.
    """
    split = splitter.split(dict.fromkeys(texts))
    others = [(ids, text) for ids, text in zip(split.short, split.short_texts, strict=True) if ids not in own.short]
    false = [(ids, text) for ids, text in others if text not in true]
    distinct = list(dict(false).items())
    unused = {
        "hard negative too long": len(split.long) + split.too_long,
        "hard negative empty": split.empty,
        TRUE: len(split.short) - len(others),
        KNOWN: len(others) - len(false),
        "hard negative repeated": len(false) - len(distinct),
    }
    return distinct, +Counter(unused)
