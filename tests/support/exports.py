"""Exports of small models, and their features as plain transformers and sentence-transformers compute them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import Compose
from transformers import AutoModelForImageTextToText, AutoProcessor

import vladva_clip
from tests.support import adapters
from vladva_clip.scenes import scenes

CAPTIONS = [
    "a red circle.",
    "is the dog left of the cat?",
    "a large circle on 66",
    "blue",
    "a small green square above the red circle on the left of the small dog, below 3 cats!",
    "  two   dogs\n(left) ",
    "",
]


@dataclass
class Exported:
    """A model beside its export: `directory` is the export's."""

    model: vladva_clip.VladvaCLIP
    preprocess: Compose
    tokenizer: vladva_clip.VladvaTokenizer
    directory: Path

    @property
    def images(self) -> list[Image.Image]:
        """Drawn scenes of the model's own size, smaller and larger.

        Two libraries round resized pixels differently, by one level at most. In drawings that is next to nothing; in
        noise a random adapter of vladva-tiny magnifies it.
        """
        side = self.model.visual.image_size[0]
        drawn = scenes("test", 0, 3)
        return [
            one.draw(64).resize((size, size)) for one, size in zip(drawn, (side, side // 2, side + 31), strict=True)
        ]

    @torch.no_grad()
    def features(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Our own, normalised: of `images` and of `CAPTIONS`."""
        images = torch.stack([self.preprocess(image) for image in self.images])
        return self.model.encode_image(images, True), self.model.encode_text(self.tokenizer(CAPTIONS), True)


def export(source: str, directory: Path, **options: Any) -> Exported:
    """Export a source in float32, and load it as it is."""
    model, preprocess = vladva_clip.create_model(source, precision="fp32")
    vladva_clip.export_model(source.removeprefix("local-dir:"), directory, "fp32", **options)
    return Exported(model, preprocess, vladva_clip.get_tokenizer(source), directory)


def export_adapter(base: Path, root: Path) -> Exported:
    """Export a random adapter of a base."""
    adapters.write_adapter(base, root / "adapter")
    return export(f"local-dir:{root / 'adapter'}", root / "out")


def messages(inputs: Sequence[str | Image.Image]) -> list[list[dict]]:
    """One conversation per caption or image, as transformers takes them."""
    parts = [{"type": "text", "text": x} if isinstance(x, str) else {"type": "image", "image": x} for x in inputs]
    return [[{"role": "user", "content": [part]}] for part in parts]


class PlainTransformers:
    """The export in the hands of one who knows transformers only."""

    def __init__(self, directory: Path, kind: type = AutoModelForImageTextToText) -> None:
        self.processor = AutoProcessor.from_pretrained(directory)
        loaded = kind.from_pretrained(directory)
        self.lvlm, self.inner = loaded, getattr(loaded, "model", loaded)

    @torch.no_grad()
    def features(self, inputs: Sequence[str | Image.Image]) -> torch.Tensor:
        """Normalised last-token features of one batch."""
        batch = self.processor.apply_chat_template(
            messages(inputs),
            chat_template="embed",
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            padding=True,
            padding_side="right",
        )
        states = self.inner(**batch).last_hidden_state
        return F.normalize(states[torch.arange(len(states)), batch["attention_mask"].sum(1) - 1], dim=-1)

    def generate(self, image: Image.Image, prompt: str | None, max_new_tokens: int) -> str:
        """Greedy text after the default chat template, or (None) in the second turn of the recipe."""
        content = [{"type": "image", "image": image}, *([{"type": "text", "text": prompt}] if prompt else [])]
        template = {} if prompt else {"chat_template": "caption"}
        batch = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            **template,
        )
        ids = self.lvlm.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        return self.processor.decode(ids[0, batch["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """The smallest cosine of equal rows."""
    assert a.shape == b.shape
    return F.cosine_similarity(a.double(), b.double()).min().item()
