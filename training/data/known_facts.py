"""What a record knows to be true of its picture, and what its captions claim, as an example passes it on."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from vladva_clip.records.records import BadRecord, Record
from vladva_training.data.captions import CaptionSplitter
from vladva_training.step.identity import identity
from vladva_training.step.known import MAX_CLAIMS, MAX_FACTS

NO_FACTS = torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class KnownFacts:
    """A record's facts and its captions' claims, captions as the splitter cleans them; nothing by default."""

    facts: frozenset[str] = frozenset()
    claims: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record, splitter: CaptionSplitter, clean: Collection[str]) -> "KnownFacts":
        """Read them from a record; `clean` are texts that need no cleaning.

        Raises:
            BadRecord: "too many facts" or "too many claims" for the room that a batch has.
        """
        if len(record.facts) > MAX_FACTS:
            raise BadRecord("too many facts", record.key, f"{len(record.facts)} facts, expected at most {MAX_FACTS}")
        for text, claims in record.claims.items():
            if len(claims) > MAX_CLAIMS:
                detail = f"{len(claims)} claims of {text!r}, expected at most {MAX_CLAIMS}"
                raise BadRecord("too many claims", record.key, detail)
        claims = record.claims.items()
        return cls(record.facts, {text if text in clean else splitter.cleaned(text): claim for text, claim in claims})

    def true_texts(self) -> set[str]:
        """Return the texts that are true of the picture."""
        return {text for text, claims in self.claims.items() if claims and claims <= self.facts}

    def nearest(self, text: str, others: Sequence[str]) -> list[str]:
        """Return those of other texts whose claims agree most with a text's (intersection over union).

        Those of which nobody knows what they claim come next, and those that share no claim don't count.
        """
        mine = self.claims.get(text)
        if not mine:
            return list(others)
        known = {one: theirs for one in others if (theirs := self.claims.get(one))}
        shares = {one: len(mine & theirs) / len(mine | theirs) for one, theirs in known.items()}
        if most := max(shares.values(), default=0):
            return [one for one, share in shares.items() if share == most]
        return [one for one in others if one not in known]

    def identities(self, texts: Iterable[str | None]) -> tuple[torch.Tensor, tuple[tuple[int, ...], ...]]:
        """Return the facts' identities, 1-D int64, and those of each text's claims, sorted; a text may be absent."""
        facts = torch.tensor(_identities(self.facts), dtype=torch.int64)
        return facts, tuple(_identities(self.claims.get(text, ())) for text in texts)


def _identities(facts: Iterable[str]) -> tuple[int, ...]:
    # sorted, since the order of a set of strings differs between processes
    return tuple(sorted(identity(fact.encode()) for fact in facts))
