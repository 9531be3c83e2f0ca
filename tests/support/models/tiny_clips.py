"""A small open_clip CLIP with random weights, in the forms in which open_clip loads a local one."""

import json
from pathlib import Path

import torch
from open_clip import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}


def build(seed: int = 0) -> CLIP:
    """The model; the same for the same seed."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        return CLIP(CONFIG["embed_dim"], CLIPVisionCfg(**CONFIG["vision_cfg"]), CLIPTextCfg(**CONFIG["text_cfg"]))


def write_directory(directory: Path, seed: int = 0) -> str:
    """Write a directory that `local-dir:` loads; returns that name."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (directory / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": settings}))
    save_file(build(seed).state_dict(), directory / "open_clip_model.safetensors")
    return f"local-dir:{directory}"
