"""The models that `training_step` trains: LLaVA shapes with random weights, and random batches for them."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import vladva_clip
from vladva_clip import VladvaCLIP
from vladva_clip.sources import registry
from vladva_clip.storage.config import read_json
from vladva_training.config import ModelSection
from vladva_training.step.batches import Batch
from vladva_training.step.trainable import set_trainable

FIRST_WORD = 600  # from here on, ids of the packaged tokenizer are not special tokens
Range = tuple[int, int]
_WIDTHS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@dataclass(frozen=True)
class Shape:
    """A LLaVA's sizes, and the batch that it is measured with.

    Attributes:
        text, vision: arguments of LlamaConfig and CLIPVisionConfig.
        precision, autocast: precision of the frozen weights and of the products.
        batch_size, micro_size: in images, for both schemes.
        ntp_chunk: labeled tokens whose logits exist at the same time in our step.
        alone: a batch size at which only our step is measured; None to skip this.
        short, long: minimum and maximum number of a caption's tokens, including the end token of a long one.
    """

    text: dict[str, int]
    vision: dict[str, int]
    precision: str
    autocast: str
    batch_size: int
    micro_size: int
    ntp_chunk: int
    alone: int | None = None
    short: Range = (8, 22)
    long: Range = (100, 200)


def _llama(width: int, depth: int, heads: int, inner: int, rows: int) -> dict[str, int]:
    sizes = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    sizes |= {"num_key_value_heads": heads, "intermediate_size": inner, "vocab_size": rows}
    return {**sizes, "max_position_embeddings": 4096}


def _clip(width: int, depth: int, heads: int, pixels: int, patch: int) -> dict[str, int]:
    sizes = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "patch_size": patch}
    return {**sizes, "intermediate_size": 4 * width, "image_size": pixels, "projection_dim": width}


def _published(part: str, keys: Iterable[str]) -> dict[str, int]:
    """The sizes of LLaVA-1.5-7B, as the package stores them."""
    sizes = registry.architecture("vladva-7b")[part]
    return {key: sizes[key] for key in keys}


SHAPES = {
    # 4 visual tokens, for a trial
    "tiny": Shape(
        text=_llama(64, 2, 2, 128, 1024),
        vision=_clip(32, 3, 2, 28, 14),
        precision="fp32",
        autocast="fp32",
        batch_size=6,
        micro_size=2,
        ntp_chunk=8,
        alone=8,
        short=(2, 5),
        long=(6, 12),
    ),
    # sized for a CPU: 196 visual tokens, the 7B's vocabulary, and its vision tower's share of an image's operations
    "small": Shape(
        text=_llama(384, 6, 6, 1024, 32064),
        vision=_clip(128, 4, 4, 224, 16),
        precision="fp32",
        autocast="fp32",
        batch_size=16,
        micro_size=4,
        ntp_chunk=128,
    ),
    # LLaVA-1.5-7B: 576 visual tokens
    "7b": Shape(
        text=_published("text_config", (*_WIDTHS, "num_key_value_heads", "vocab_size", "max_position_embeddings")),
        vision=_published("vision_config", (*_WIDTHS, "patch_size", "image_size", "projection_dim")),
        precision="bf16",
        autocast="bf16",
        batch_size=128,
        micro_size=8,
        ntp_chunk=512,
        alone=1024,
    ),
}


def load(shape: Shape, device: torch.device | str, seed: int = 0) -> VladvaCLIP:
    """Build a model of a shape with random weights and a random LoRA, ready to train LoRA, soft prompts and scale."""
    torch.manual_seed(seed)
    section = ModelSection(name="random")
    with TemporaryDirectory() as directory:
        write_base(Path(directory), shape)
        model, _, _ = vladva_clip.create_model_and_transforms(
            f"local-dir:{directory}", load_weights=False, precision=shape.precision, device=device, merge_lora=False
        )
    set_trainable(model, section)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # initially zero, which would give A a zero gradient
            torch.nn.init.normal_(parameter, std=0.02)
    return model.train()


def write_base(directory: Path, shape: Shape) -> None:
    """Write a base directory without weights: the packaged tokenizer, and configs with the shape's sizes."""
    packaged = Path(str(files("vladva_clip"))) / "assets" / "vladva-tiny" / "base"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(packaged / name, directory)
    config = read_json(packaged / "config.json")
    config["text_config"] = {"model_type": "llama", "tie_word_embeddings": False, **shape.text}
    config["vision_config"] = {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", **shape.vision}
    patches = (shape.vision["image_size"] // shape.vision["patch_size"]) ** 2
    config |= {"vision_feature_layer": -2, "image_seq_length": patches}
    (directory / "config.json").write_text(json.dumps(config))
    processor = read_json(packaged / "processor_config.json")
    side = {"height": shape.vision["image_size"], "width": shape.vision["image_size"]}
    processor["image_processor"] |= {"size": side, "crop_size": side}
    (directory / "processor_config.json").write_text(json.dumps(processor))


def random_batch(shape: Shape, size: int, eos_id: int, seed: int = 0) -> Batch:
    """Draw `size` images of noise, each with a short and a long caption of random words."""
    generator = torch.Generator().manual_seed(seed)
    pixels = shape.vision["image_size"]
    captions = {
        kind: tuple(_words(shape, bounds, generator) for _ in range(size))
        for kind, bounds in (("short", shape.short), ("long", (shape.long[0] - 1, shape.long[1] - 1)))
    }
    return Batch(
        keys=tuple(map(str, range(size))),
        images=torch.randn(size, 3, pixels, pixels, generator=generator),
        short=captions["short"],
        other_short=(None,) * size,
        long=tuple(torch.cat([caption, torch.tensor([eos_id])]) for caption in captions["long"]),
        hard_negatives=((),) * size,
        short_texts=tuple(map(str, range(size))),
    )


def _words(shape: Shape, bounds: Range, generator: torch.Generator) -> torch.Tensor:
    length = int(torch.randint(bounds[0], bounds[1] + 1, (), generator=generator))
    return torch.randint(FIRST_WORD, shape.text["vocab_size"], (length,), generator=generator)
