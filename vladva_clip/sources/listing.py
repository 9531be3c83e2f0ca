"""What `vladva models` prints: names and tags, with license, size and origin, known before any file is here."""

from vladva_clip.sources import registry
from vladva_clip.sources.profiles import Profile, missing_release


def lines() -> list[str]:
    """Return a header and a line for each name and tag; columns are two spaces or more apart."""
    rows = [("model:tag", "license", "parameters", "from"), *map(_row, registry.list_pretrained())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(pair: tuple[str, str]) -> tuple[str, str, str, str]:
    name, tag = pair
    entry = registry.find(name)
    if entry.source is not None:
        return f"{name}:{tag}", "-", "-", entry.source
    facts = registry.facts(name)
    size = _in_billions(facts.num_parameters) if facts.num_parameters else "-"
    return f"{name}:{tag}", facts.license, size, _origin(entry.base or "the package", entry.profile)


def _origin(base: str, profile: Profile | None) -> str:
    needed = missing_release(profile) if profile else None
    return f"{base} (unavailable: needs transformers {needed} or later)" if needed else base


def _in_billions(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e8 else f"{count / 1e6:.1f}M"
