"""Spec string -> source: `scenes:train:200000`, `wds:/data/{00000..00331}.tar`, `jsonl:pairs.jsonl`, ..."""

import difflib
import re
from collections.abc import Callable

from vladva_clip.records.records import Source
from vladva_clip.scenes import STYLES
from vladva_training.data.scenes import MEMBERS, SCENE_SIZE, SceneSource

EXPECTED = {
    "scenes": "scenes:SPLIT[:COUNT[:START]][:varied|:unseen][:pairs][:swaps|:colors|:axis|:arrangement]"
    "[:places|:told|:long]",
    "wds": "wds:PATH.tar, wds:{00000..00331}.tar or wds:DIRECTORY",
    "jsonl": "jsonl:PATH",
    "csv": "csv:PATH",
    "parquet": "parquet:PATH-OR-DIRECTORY",
    "hf": "hf:DIRECTORY[:SPLIT] or hf:NAME[:CONFIG]:SPLIT",
}

_SCENES = (
    r"(\w+)(?::(\d[\d_]*))?(?::(\d[\d_]*))?"
    rf"(?::({'|'.join(STYLES[1:])}))?(:pairs)?(?::({'|'.join(MEMBERS)}))?(?:(:places)|(:told)|(:long))?"
)


def open_source(spec: str, scene_size: int = SCENE_SIZE) -> Source:
    """Open the source that a spec names.

    Args:
        spec: one of the forms of `EXPECTED`.
        scene_size: shorter side of drawn scenes in pixels.

    Raises:
        ValueError: an unknown kind of source; a source that is missing, empty or in another format.
    """
    kind, colon, rest = spec.partition(":")
    if not colon or not rest or kind not in EXPECTED:
        raise ValueError(_unknown(spec, kind))
    if kind == "scenes":
        return _open_scenes(spec, rest, scene_size)
    return _openers()[kind](rest, spec)


def _unknown(spec: str, kind: str) -> str:
    forms = "; ".join(EXPECTED.values())
    near = difflib.get_close_matches(kind, EXPECTED, n=1)
    hint = f" Did you mean {EXPECTED[near[0]]}?" if near else ""
    return f"the source {spec!r} has an unknown form; expected one of {forms}.{hint}"


def _open_scenes(spec: str, rest: str, scene_size: int) -> SceneSource:
    form = re.fullmatch(_SCENES, rest)
    if form is None:
        raise ValueError(f"the source {spec!r} has an unknown form; expected {EXPECTED['scenes']}")
    split, count, start, style, pairs, members, places, told, long = form.groups()
    numbers = [int(number) for number in (count, start) if number]
    chosen = {"style": style or "classic", "pairs": bool(pairs), "members": members}
    captions = {"places": bool(places), "told": bool(told), "long": bool(long)}
    return SceneSource(split, *numbers, image_size=scene_size, name=spec, **chosen, **captions)


def _openers() -> dict[str, Callable[[str, str], Source]]:
    # imported only when needed: they import pyarrow and datasets
    from vladva_clip.records.huggingface import open_huggingface
    from vladva_clip.records.parquet import open_parquet
    from vladva_clip.records.tables import open_csv, open_jsonl
    from vladva_clip.records.webdataset import open_webdataset

    return {
        "wds": open_webdataset,
        "jsonl": open_jsonl,
        "csv": open_csv,
        "parquet": open_parquet,
        "hf": open_huggingface,
    }
