"""What `vladva models` prints: names and tags, with size, license and origin, and whether the weights are here."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vladva_clip.sources import registry, weights_here
from vladva_clip.sources.profiles import missing_release
from vladva_clip.storage.config import HUB, LOCAL

MOST_TAGS, LINE = 3, 110  # tags in the table, more stand below it; characters of such a line
PACKAGED, YES, PARTLY, NO = "packaged", weights_here.YES, weights_here.PARTLY, weights_here.NO


@dataclass(frozen=True)
class Row:
    """A model name.

    tags: the default one last. aliases: other names for it. parameters: of the model; None for a registered name, as
    license and embed_dim. origin: the Hub id, "the package", or a registered name's source. here: whether the weights
    are on this machine: "packaged", "yes", "in part" or "no". needs_transformers: the release that it needs, if the
    installed one is older.
    """

    name: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    parameters: int | None
    embed_dim: int | None
    license: str | None
    here: str
    origin: str
    needs_transformers: str | None = None

    @property
    def default_tag(self) -> str:
        """The tag that is used when none is given."""
        return self.tags[-1]


def rows() -> list[Row]:
    """Return a row for each model name, aliases with their model; nothing is asked of the network."""
    return [_row(name) for name in registry.list_models() if name not in registry.ALIASES]


def json_rows() -> list[dict[str, Any]]:
    """Return the rows as JSON data, with the default tag."""
    return [{**asdict(row), "default_tag": row.default_tag} for row in rows()]


def lines() -> list[str]:
    """Return a header and a line for each name; columns are two spaces or more apart, `*` marks the default tag."""
    found = rows()
    table = columns([("model", "tags", "size", "D", "license", "here", "from"), *map(_cells, found)])
    lacking = [row for row in found if row.needs_transformers]
    notes = [f"{row.name} is unavailable: needs transformers {row.needs_transformers} or later" for row in lacking]
    many = [f"tags of {row.name}: {', '.join(_marked(row))}" for row in found if len(row.tags) > MOST_TAGS]
    wrapped = [line for text in many for line in textwrap.wrap(text, LINE)]
    return [*table, *notes, *wrapped, "* the tag used when none is given"]


def columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, its columns two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _row(name: str) -> Row:
    entry = registry.find(name)
    tags, aliases = tuple(entry.tags), tuple(alias for alias, one in registry.ALIASES.items() if one == name)
    if entry.source is not None:
        return Row(name, tags, aliases, None, None, None, _source_here(entry.source), entry.source)
    facts, profile = registry.facts(name), entry.profile
    config = registry.architecture(name)
    width = profile.config["embed_dim"] if profile else config.get("text_config", config)["hidden_size"]
    here = _weights_here(entry) if entry.base else PACKAGED
    needed = missing_release(profile) if profile else None
    origin = entry.base or "the package"
    return Row(name, tags, aliases, facts.num_parameters, width, facts.license, here, origin, needed)


def _weights_here(entry: registry.Entry) -> str:
    """Whether the weights are here; of a published adapter, its base's count as well."""
    profile = entry.profile
    own = weights_here.state(entry.base, profile and profile.revision)
    if not (profile and profile.adapter):
        return own
    both = {own, weights_here.state(profile.adapter["base"], profile.adapter.get("revision"))}
    return both.pop() if len(both) == 1 else PARTLY


def _source_here(source: str) -> str:
    if source.startswith(LOCAL):
        return YES if Path(source.removeprefix(LOCAL)).is_dir() else NO
    repo, _, revision = source.removeprefix(HUB).partition("@")
    return weights_here.state(repo, revision or None)


def _marked(row: Row) -> tuple[str, ...]:
    """Return the tags, with `*` at the default one of several."""
    return row.tags if len(row.tags) == 1 else (*row.tags[:-1], f"{row.default_tag}*")


def _cells(row: Row) -> tuple[str, ...]:
    tags = _marked(row) if len(row.tags) <= MOST_TAGS else (f"{len(row.tags)} tags", f"{row.default_tag}*")
    size = in_billions(row.parameters) if row.parameters else "-"
    names = ", ".join((row.name, *row.aliases))
    return (names, ", ".join(tags), size, str(row.embed_dim or "-"), row.license or "-", row.here, row.origin)


def in_billions(count: int) -> str:
    """Return a number of parameters as "2.13B" or "6.5M"."""
    return f"{count / 1e9:.2f}B" if count >= 1e8 else f"{count / 1e6:.1f}M"
