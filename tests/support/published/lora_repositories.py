"""Published embedders that are a LoRA alone: tiny random ones on a tiny Qwen2-VL, as PEFT saved them years ago.

PEFT puts each LoRA into today's class and saves it. For the repository, its tensors then get the names of the modules
before transformers 4.52, and its config what it stated then. The authors' way reads what PEFT saved.
"""

import json
import re
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLForConditionalGeneration

from tests.support import hub_cache
from tests.support.published import repositories
from tests.support.published.authors import Authors, Way, _last_column

NAME, REPO = "vlm2vec-v2", "VLM2Vec/VLM2Vec-V2.0"
REVISION = "e39ff079b8275ef876d3656da8c0bddbff3c4dde"
BASE = repositories.Repository(
    "Qwen/Qwen2-VL-2B-Instruct", "895c3a49bc3fa70a340399125c650a463535e71c", shards=2, processor={"do_resize": True}
)
PROJECTIONS = "qkv_proj o_proj gate_up_proj down_proj k_proj q_proj out_proj v_proj gate_proj up_proj"  # the default
INSTRUCTION = "\nRepresent the given image."  # of MMEB, behind its own image token


@dataclass(frozen=True)
class Lora:
    """What PEFT is told, and what the repository's adapter_config.json says in its place.

    Attributes:
        settings: of PEFT's LoraConfig, with today's module names.
        stated: keys of the published adapter_config.json, with the names that the tensors have there.
        old: whether the tensors have the names of the modules before transformers 4.52.
        dtype: of the stored tensors.
    """

    settings: dict[str, Any]
    stated: dict[str, Any] = field(default_factory=dict)
    old: bool = True
    dtype: torch.dtype = torch.float32


LORAS = {
    "published": Lora({"r": 4, "lora_alpha": 16, "use_dora": True, "target_modules": PROJECTIONS.split()}),
    "tower": Lora(  # patterns on module names, and strengths of their own
        {
            "r": 3,
            "lora_alpha": 5,
            "target_modules": r"model\.(language_model\.layers|visual\.blocks)\.\d+\..*(q_proj|down_proj|qkv|fc1)",
            "rank_pattern": {r"visual\.blocks\.0\.attn\.qkv": 2},
            "alpha_pattern": {r"language_model\.layers\.1\.mlp\.down_proj": 11, r"visual\.blocks\.1\.mlp\.fc1": 7},
        },
        {
            "target_modules": r"(model\.layers|visual\.blocks)\.\d+\..*(q_proj|down_proj|qkv|fc1)",
            "alpha_pattern": {r"model\.layers\.1\.mlp\.down_proj": 11, r"visual\.blocks\.1\.mlp\.fc1": 7},
        },
        dtype=torch.bfloat16,
    ),
    "listed": Lora(
        {
            "r": 2,
            "lora_alpha": 8,
            "use_rslora": True,
            "use_dora": True,
            "target_modules": [
                "model.language_model.layers.0.mlp.up_proj",
                "model.language_model.layers.1.mlp.up_proj",
            ],
        },
        {"target_modules": ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]},
    ),
    "biases": Lora({"r": 2, "bias": "lora_only", "target_modules": ["q_proj", "fc2"], "exclude_modules": r".*\.0\..*"}),
    "today": Lora({"r": 4, "lora_alpha": 16, "use_dora": True, "target_modules": ["v_proj", "fc2"]}, old=False),
}
VLM2VEC = Way(
    image=lambda _: f"<|image_pad|> {INSTRUCTION}".replace(" \n", "\n") + "\n",
    text=lambda _, caption: caption,
    query=lambda _, caption: f"Find me an everyday image that matches the given caption: {caption}\n",
    pool=_last_column,
    padding_side="left",
    budget=(4, 1280),
)


class LoraAuthors(Authors):
    """PEFT's model over transformers' class, unmerged; a row's positions begin behind its padding."""

    def __init__(self, base: Path, adapter: Path) -> None:
        super().__init__(base, VLM2VEC)
        self.lvlm = PeftModel.from_pretrained(self.lvlm, adapter).get_base_model().eval().requires_grad_(False)

    def _plain_states(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        text_model, mask = self.lvlm.model.language_model, inputs["attention_mask"]
        places = (mask.cumsum(-1) - 1).clamp(min=0).expand(3, -1, -1)
        forward: Callable = text_model.forward
        text_model.forward = lambda **given: forward(**given, position_ids=places)
        try:
            return super()._plain_states(inputs)
        finally:
            text_model.forward = forward


class LoraShelf:
    """A hand-made Hub cache with the base and the published adapter, and each adapter as a directory.

    Args:
        root: where everything is written.
        tokenizer: the directory with the real tokenizer's files.
    """

    def __init__(self, root: Path, tokenizer: Path) -> None:
        self.root, self.cache_dir = root, root / "cache"
        self.base = repositories.put(self.cache_dir, BASE, tokenizer)
        hub_cache.put(self.cache_dir, REPO, self.directory("published"), REVISION)

    def directory(self, kind: str) -> Path:
        """Return the directory of an adapter as it is published."""
        if not (place := self.root / kind).exists():
            write(place, LORAS[kind], self.base, self.root / "peft" / kind)
        return place

    def bare(self) -> torch.nn.Module:
        """Load the base by itself."""
        return _lvlm(self.base)

    def authors(self, kind: str = "published") -> LoraAuthors:
        """Load an adapter as its authors do."""
        self.directory(kind)
        return LoraAuthors(self.base, self.root / "peft" / kind)


def write(directory: Path, lora: Lora, base: Path, saved: Path) -> Path:
    """Write an adapter's published files into a directory, and what PEFT saved beside them into another one."""
    model = get_peft_model(_lvlm(base), LoraConfig(**lora.settings, init_lora_weights="gaussian", lora_dropout=0.1))
    randomize(model, zlib.crc32(str(lora.settings).encode()))
    model.save_pretrained(saved, save_embedding_layers=False)
    tensors = {name: tensor.to(lora.dtype) for name, tensor in load_file(saved / "adapter_model.safetensors").items()}
    save_file(tensors, saved / "adapter_model.safetensors", metadata={"format": "pt"})
    shutil.copytree(saved, directory)
    if lora.old:
        save_file({old_name(name): tensor for name, tensor in tensors.items()}, directory / "adapter_model.safetensors")
    config = json.loads((saved / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": BASE.repo, **lora.stated}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    shutil.copy(base / "config.json", directory)  # as the authors' trainer does
    (directory / "training_args.bin").write_bytes(b"a pickle")
    return directory


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Give a LoRA values that matter, DoRA's magnitudes and biases included, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "lora_magnitude_vector" in name:
                parameter.mul_(1 + 0.3 * noise.abs())
            elif "lora_" in name:
                parameter.copy_(0.3 * noise)
            elif parameter.requires_grad:
                parameter.add_(0.1 * noise)


def old_name(name: str) -> str:
    """Return the name that PEFT gave a tensor over transformers before 4.52."""
    name = name.replace("base_model.model.model.language_model.", "base_model.model.model.")
    return re.sub(r"^base_model\.model\.model\.visual\.", "base_model.model.visual.", name)


def _lvlm(base: Path) -> torch.nn.Module:
    return Qwen2VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
