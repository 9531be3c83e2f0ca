"""A tiny Qwen2-VL, a LoRA on it as PEFT published them before transformers 4.52, and the profile of a user's own."""

import json
import shutil
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLForConditionalGeneration

from tests.support.edits import edit_json
from tests.support.models import embedders
from tests.support.published.lora_repositories import old_name, randomize

LORA = {"r": 3, "lora_alpha": 12, "use_dora": True, "target_modules": ["q_proj", "v_proj", "down_proj", "fc1"]}


def write(root: Path, **settings: Any) -> Path:
    """Write the base, what PEFT saves, the same with old names, and both merged; returns the place of all."""
    base = embedders.write_qwen(root / "base")
    model = get_peft_model(_lvlm(base), LoraConfig(**LORA | settings))
    randomize(model, 0)
    model.save_pretrained(root / "saved", save_embedding_layers=False)
    shutil.copytree(root / "saved", root / "lora")
    tensors = load_file(root / "saved" / "adapter_model.safetensors")
    save_file({old_name(name): tensor for name, tensor in tensors.items()}, root / "lora" / "adapter_model.safetensors")
    edit_json(root / "lora" / "adapter_config.json", base_model_name_or_path="Qwen/Qwen2-VL-2B-Instruct")
    shutil.copytree(base, root / "merged")
    merged = PeftModel.from_pretrained(_lvlm(base), root / "saved").merge_and_unload()
    merged.save_pretrained(root / "merged")
    return root


def write_profile(path: Path, base: Path | str, **changes: Any) -> Path:
    """Write a profile that puts an adapter on a base; `changes` as for `embedders.write_profile`."""
    embedders.write_profile(path, **changes)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "adapter": {"base": f"local-dir:{base}", "revision": None}}))
    return path


def _lvlm(base: Path) -> Qwen2VLForConditionalGeneration:
    return Qwen2VLForConditionalGeneration.from_pretrained(base)
