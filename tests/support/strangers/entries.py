"""The ways in through which strangers' files come, and what makes a load a right one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch

import vladva_clip
from vladva_clip.export.run import export_model
from vladva_clip.hub import card
from vladva_clip.integrations.open_clip import is_ours

ADAPTER_REPO, PUSHED_REPO = "org/adapter", "org/pushed"
CAPTION = "a red circle left of the small dog, 2 3"
PIXELS = 512  # larger images are not encoded here: a model may take them, a test has no time for them
Features = tuple[torch.Tensor, ...]


class WrongLoad(Exception):
    """Something was loaded that doesn't work."""


@dataclass(frozen=True)
class Entry:
    """One way in. `load` takes the case's directory; `check` what it returned, and the directory: its features.

    adapter: which honest adapter it reads. asks: whether it talks to the Hub.
    """

    side: str
    load: Callable[[Path], Any]
    check: Callable[[Any, Path], Features]
    adapter: str = "unpinned"
    asks: bool = False


class Foreign(Exception):
    """The directory is open_clip's to read, as our marker isn't there."""


def features(model: Any, name: str) -> Features:
    """Encode one image and one caption; raises WrongLoad unless all is finite and of the model's width."""
    tokens = vladva_clip.get_tokenizer(name)([CAPTION])
    found = [model.encode_text(tokens)]
    if max(model.visual.image_size) <= PIXELS:
        images = torch.randn(1, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(0))
        found.append(model.encode_image(images))
    if not all(part.isfinite().all() and part.shape[0] == 1 for part in found):
        raise WrongLoad("features that are not finite")
    return tuple(found)


def _named(side: str) -> Callable[[Path], str]:
    return lambda root: f"local-dir:{root / side}"


def _model_check(side: str) -> Callable[[Any, Path], Features]:
    return lambda model, root: features(model, f"local-dir:{root / side}")


def _open_clip(root: Path) -> Any:
    name = f"local-dir:{root / 'adapter'}"
    if not is_ours(name):
        raise Foreign(name)
    return open_clip.create_model(name, precision="bf16")


def _tokens(tokenizer: Any, root: Path) -> Features:
    tokens = tokenizer([CAPTION])
    if tokens.shape != (1, tokenizer.context_length) or tokens.dtype != torch.int64 or tokens.min() < 0:
        raise WrongLoad(f"tokens {tuple(tokens.shape)} {tokens.dtype}")
    return (tokens,)


def _exported(directory: Path, root: Path) -> Features:
    name = f"local-dir:{directory}"
    try:
        model, _ = vladva_clip.create_model(name)
    except ValueError as error:
        raise WrongLoad(f"the export can't be loaded: {error}") from error
    return features(model, name)


def _card(root: Path) -> Path:
    (root / "out").mkdir()
    return card.write_card(root / "adapter", root / "out/README.md")


def _text(path: Path, root: Path) -> Features:
    if card.MARK not in path.read_text(encoding="utf-8"):
        raise WrongLoad("a card without its mark")
    return ()


def _pushed(info: Any, root: Path) -> Features:
    if len(info.oid) != 40:
        raise WrongLoad(f"no commit: {info}")
    return ()


def _files(directory: Path, root: Path) -> Features:
    if directory != root / "out" or not any(directory.iterdir()):  # without a config it is no adapter, and may come
        raise WrongLoad(f"nothing was pulled into {directory}")
    return ()


def _entries() -> dict[str, Entry]:
    entries = {}
    for side in ("base", "adapter"):
        place, check = _named(side), _model_check(side)
        entries[f"create {side}"] = Entry(
            side, lambda root, place=place: vladva_clip.create_model(place(root))[0], check
        )
        entries[f"from_pretrained {side}"] = Entry(
            side, lambda root, side=side: vladva_clip.VladvaCLIP.from_pretrained(str(root / side)), check
        )
        entries[f"tokenizer {side}"] = Entry(
            side, lambda root, place=place: vladva_clip.get_tokenizer(place(root)), _tokens
        )
        entries[f"export {side}"] = Entry(
            side, lambda root, side=side: export_model(root / side, root / "out"), _exported
        )
    entries["open_clip"] = Entry("adapter", _open_clip, _model_check("adapter"))
    entries["pinned"] = Entry("adapter", entries["create adapter"].load, _model_check("adapter"), "adapter")
    entries["card"] = Entry("adapter", _card, _text)
    entries["push"] = Entry(
        "adapter", lambda root: vladva_clip.push_to_hub(root / "adapter", PUSHED_REPO), _pushed, "hub", True
    )
    entries["pull"] = Entry(
        "adapter", lambda root: vladva_clip.pull_from_hub(ADAPTER_REPO, root / "out"), _files, "hub", True
    )
    hub = f"hf-hub:{ADAPTER_REPO}"
    entries["hub"] = Entry(
        "adapter", lambda root: vladva_clip.create_model(hub)[0], lambda model, root: features(model, hub), "hub", True
    )
    return entries


ENTRIES = _entries()
# which ways a case takes, by the side whose files are damaged, and how often each is drawn; the Hub's take longest
_BASE = {"create base": 8, "create adapter": 4, "from_pretrained base": 2, "pinned": 1, "hub": 1, "open_clip": 1}
_BASE |= {"tokenizer base": 3, "tokenizer adapter": 1, "export base": 3, "export adapter": 1}
_ADAPTER = {"create adapter": 8, "from_pretrained adapter": 4, "open_clip": 4, "export adapter": 4, "pinned": 2}
_ADAPTER |= {"tokenizer adapter": 2, "card": 2, "push": 1, "pull": 1, "hub": 1}
WAYS = {
    side: tuple(name for name in ways for _ in range(ways[name]))
    for side, ways in (("base", _BASE), ("adapter", _ADAPTER))
}
