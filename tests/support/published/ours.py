"""Our way to embed with a profile, and what the tests read from a model."""

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from PIL import Image

import vladva_clip
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.model import VladvaCLIP

PROFILES = Path(vladva_clip.__file__).parent / "assets" / "profiles"


def profile(name: str) -> dict:
    """Return the content of a profile's file, which a test may change."""
    return json.loads((PROFILES / f"{name}.json").read_text())


def with_changes(name: str, directory: Path, place: Path, **parts: dict) -> "Ours":
    """Load a repository with a profile some of whose values are others.

    Args:
        name: of the profile.
        directory: the repository's snapshot.
        place: where the changed profile is written.
        parts: a part of the profile's config -> {key: value}.
    """
    data = profile(name)
    for part, values in parts.items():
        data["config"][part] |= values
    path = place / f"{name}.json"
    path.write_text(json.dumps({**data, "tags": {"default": {}}}))
    return Ours(f"local-dir:{directory}", profile=path)


class Ours:
    """A model in fp32, its transform and, once it is needed, its tokenizer (which takes longer to load than the model).

    Args:
        name: as for `create_model`.
        tag: of the model.
        options: of `create_model`; `cache_dir` and `profile` go to `get_tokenizer` as well.
    """

    def __init__(self, name: str, tag: str | None = None, **options: object) -> None:
        self.model, self.preprocess = vladva_clip.create_model(name, tag, precision="fp32", **options)
        self._name = name
        self._options = {key: options[key] for key in ("cache_dir", "profile") if key in options}

    @functools.cached_property
    def tokenizer(self) -> VladvaTokenizer:
        """The tokenizer that goes by the model's name; one for all tags."""
        return vladva_clip.get_tokenizer(self._name, **self._options)

    @torch.no_grad()
    def text(self, captions: Iterable[str]) -> torch.Tensor:
        """Return the normalized features of captions, in one call."""
        return self.model.encode_text(self.tokenizer(list(captions)), normalize=True)

    @torch.no_grad()
    def images(self, pictures: Iterable[Image.Image]) -> torch.Tensor:
        """Return the normalized features of pictures, in one call."""
        return self.model.encode_image(torch.stack([self.preprocess(one) for one in pictures]), normalize=True)

    def text_ids(self, caption: str) -> list[int]:
        """Return the ids of the whole row that a caption is embedded in."""
        return looked_up(self.model, lambda: self.text([caption]))

    def image_ids(self, picture: Image.Image) -> list[int]:
        """Return the ids of the whole row that a picture is embedded in."""
        return looked_up(self.model, lambda: self.images([picture]))


def looked_up(model: VladvaCLIP, run: Callable[[], object]) -> list[int]:
    """Return the ids of the one row whose embeddings are looked up during a call."""
    rows = []
    table = model.visual.backbone.lvlm.get_input_embeddings()
    hook = table.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0]))
    try:
        run()
    finally:
        hook.remove()
    (row,) = rows
    assert row.shape[0] == 1
    return row[0].tolist()
