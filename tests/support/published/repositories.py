"""Tiny random weights of the architectures that published embedders have, laid out as their repositories on the Hub.

The tokenizer is the real one; every size but the vocabulary is small. Tensors have the names of the first release of
Qwen2-VL, which the published files carry: `visual.*`, `model.*`, `lm_head.weight`.
"""

import json
import shutil
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Qwen2VLForConditionalGeneration

from tests.support import hub_cache
from tests.support.models import published_configs, tiny_bases

CHAT_TEMPLATE = (  # chat_template.json of Qwen/Qwen2-VL-2B-Instruct
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
UNIT = 28 * 28  # pixels of a visual token
WIDTH = 32
_TINY = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
_TINY |= {
    "intermediate_size": 64,
    "max_window_layers": 2,
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
}
_TINY_VISION = {"depth": 2, "embed_dim": 32, "hidden_size": WIDTH, "num_heads": 2, "mlp_ratio": 2}
_GME = {  # the keys of GmeQwen2VLConfig
    "architectures": ["GmeQwen2VL"],
    "auto_map": {"AutoModel": "modeling_gme_qwen2vl.GmeQwen2VL", "AutoConfig": "modeling_gme_qwen2vl.GmeQwen2VLConfig"},
    "max_length": 1800,
    "min_image_tokens": 256,
    "max_image_tokens": 1280,
    "torch_dtype": "float32",
}
_SIZED_TWICE = {"size": {"max_pixels": 12845056, "min_pixels": 3136}, "do_resize": True, "resample": 3}  # 4.45 to 4.48
_SIZED_ANEW = {"size": {"shortest_edge": 3136, "longest_edge": 12845056}, "do_resize": True, "resample": 3}


@dataclass(frozen=True)
class Repository:
    """What a repository differs in from the others.

    Attributes:
        repo: its Hub id.
        revision: the commit that the profile names; any where it names none.
        rows: of the token embedding; more than 151,936 are the 7B's, whose head is a tensor of its own.
        dtype: of the stored tensors.
        shards: number of weight files.
        config: keys of config.json.
        processor: keys of preprocessor_config.json.
        head: False leaves out a head of its own.
        others: files that none of our code may need.
    """

    repo: str
    revision: str = "a" * 40
    rows: int = 151936
    dtype: torch.dtype = torch.bfloat16
    shards: int = 1
    config: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    head: bool = True
    others: tuple[str, ...] = ()


REPOSITORIES = {
    "ops-mm-2b": Repository(
        "OpenSearch-AI/Ops-MM-embedding-v1-2B",
        "69c23ac5595bb7fb3a9959df96fe155b3650c01e",
        others=("ops_mm_embedding_v1.py",),
    ),
    "ops-mm-7b": Repository(
        "OpenSearch-AI/Ops-MM-embedding-v1-7B",
        "e9179f601f9bf21d2fd20136c11eb4ae2ea42859",
        rows=152064,
        shards=4,
        processor=_SIZED_ANEW,
        others=("ops_mm_embedding_v1.py",),
    ),
    "gme-qwen2-vl-2b": Repository(
        "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct",
        "ce765ae71b8cdb208203cd8fb64a170b1b84293a",
        dtype=torch.float32,
        shards=2,
        config=_GME,
        others=("gme_inference.py", "modeling_gme_qwen2vl.py", "custom_st.py"),
    ),
    "gme-qwen2-vl-7b": Repository(
        "Alibaba-NLP/gme-Qwen2-VL-7B-Instruct",
        "477027a6480f8630363be77751f169cc3434b673",
        rows=152064,
        dtype=torch.float32,
        shards=3,
        others=("gme_inference.py",),
    ),
    "rzenembed": Repository(
        "qihoo360/RzenEmbed",
        "ea95c339008f9639420fcb33ba2ba606ea94be78",
        rows=152064,
        shards=4,
        others=("rzen_embed_inference.py",),
    ),
    "unite-2b": Repository(
        "friedrichor/Unite-Base-Qwen2-VL-2B",
        "850056e7a4b4129768e1c76795eac3c4331de76d",
        config={"model_type": "unite_qwen2_vl", "architectures": ["UniteQwen2VL"], "transformers_version": "4.47.1"},
        processor=_SIZED_TWICE,
        others=("modeling_unite.py",),
    ),
    "lamra-ret": Repository(
        "code-kunkun/LamRA-Ret",
        rows=152064,
        dtype=torch.float16,
        shards=4,
        config={"torch_dtype": "float16", "emb_token_ids": [151657], "transformers_version": "4.45.0.dev0"},
        processor=_SIZED_TWICE,
    ),
}
GME_7B_AT_MAIN = Repository(  # saved with the class of its own, which has no head
    "Alibaba-NLP/gme-Qwen2-VL-7B-Instruct", "b" * 40, 152064, torch.float32, 3, _GME, head=False
)


def put(cache_dir: Path, published: Repository, tokenizer: Path, ref: str = "main") -> Path:
    """Put a repository into a Hub cache, its revision as the newest one; returns the snapshot's directory.

    Args:
        cache_dir: the cache.
        published: the repository.
        tokenizer: the directory with the real tokenizer's files.
        ref: the branch that points to the revision.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return hub_cache.put(
            cache_dir, published.repo, write(Path(scratch), published, tokenizer), published.revision, ref
        )


def write(directory: Path, published: Repository, tokenizer: Path) -> Path:
    """Write a repository's files into a directory."""
    config = config_json(published)
    _write_weights(directory, old_names(_random_weights(config, zlib.crc32(published.repo.encode()))), published)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "preprocessor_config.json").write_text(json.dumps(_processor(published)))
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    stop = {"bos_token_id": 151643, "pad_token_id": 151643, "eos_token_id": [151645, 151643], "do_sample": True}
    (directory / "generation_config.json").write_text(json.dumps({**stop, "temperature": 0.01, "top_k": 1}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, directory)
    for name in published.others:
        (directory / name).write_text("raise RuntimeError('code of a repository was run')\n")
    return directory


def config_json(published: Repository) -> dict[str, Any]:
    """Return its config.json: flat as Qwen2-VL's is, with all the keys that decide nothing."""
    config = json.loads(json.dumps(published_configs.PUBLISHED["vladva-2b"]))
    config |= {**_TINY, "vocab_size": published.rows, "tie_word_embeddings": published.rows == 151936}
    config["vision_config"] |= _TINY_VISION
    return config | published.config


def old_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the tensors of transformers 5's class the names that the published files have."""
    names = {}
    for name in tensors:
        short = name.removeprefix("model.")
        names[name] = f"model.{short.removeprefix('language_model.')}" if short.startswith("language_model.") else short
    return {names[name]: tensor for name, tensor in tensors.items()}


def _random_weights(config: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Return weights of healthy size (transformers' own 0.02 would make every feature alike)."""
    kind = Qwen2VLForConditionalGeneration
    lvlm = kind._from_config(kind.config_class.from_dict({**config, "model_type": "qwen2_vl"}), dtype=torch.float32)
    lvlm.tie_weights()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lvlm.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (0.2 if parameter.ndim > 1 else 0.1) + (1.0 if parameter.ndim == 1 else 0.0))
    tensors = dict(lvlm.state_dict())
    if config["tie_word_embeddings"]:
        del tensors["lm_head.weight"]
    return tensors


def _write_weights(directory: Path, tensors: dict[str, torch.Tensor], published: Repository) -> None:
    if not published.head:
        del tensors["lm_head.weight"]
    stored = {name: tensor.to(published.dtype).contiguous() for name, tensor in tensors.items()}
    save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    if published.shards > 1:
        tiny_bases.split(directory, published.shards)


def _processor(published: Repository) -> dict[str, Any]:
    settings = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"}
    settings |= {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 4 * UNIT}
    settings |= {"max_pixels": 16384 * UNIT, "image_mean": tiny_bases.MEAN, "image_std": tiny_bases.STD}
    return settings | published.processor
