"""Tiny random GVE and Qwen3-VL-Embedding, laid out as their repositories on the Hub; as `repositories`, for Qwen2-VL.

GVE's files have the tensor names of the first release of Qwen2.5-VL, and config.json names a class of its own.
Qwen3-VL-Embedding's tokenizer appends the end of text; its 8B has no head.
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
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

from tests.support import hub_cache
from tests.support.models import published_configs, tiny_bases
from tests.support.published import repositories

END = "<|endoftext|>"
QUERY = "Retrieve images or text relevant to the user's query."
SYSTEMLESS_TEMPLATE = (  # what Qwen3-VL's writes for turns of texts and images
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}{%- for content in message.content %}"
    "{%- if content.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif content.type == 'video' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- elif 'text' in content %}{{- content.text }}{%- endif %}{%- endfor %}{%- endif %}{{- '<|im_end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
CLASSES = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen3_vl": Qwen3VLForConditionalGeneration}
_TOOLS = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>")
_ADDED = {  # behind Qwen2-VL's tokens, from 151657 on
    "qwen2_5_vl": (*_TOOLS, "<|repo_name|>", "<|file_sep|>"),
    "qwen3_vl": (
        *(*_TOOLS, "<|repo_name|>", "<|file_sep|>"),
        *("<tool_response>", "</tool_response>", "<think>", "</think>"),
    ),
}
_TINY_LLM = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
_TINY_VISION = {"hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 32}
_OWN_CLASS = {
    "architectures": ["Qwen25VLForEmbedding"],
    "auto_map": {"AutoModel": "qwen25vl_model.Qwen25VLForEmbedding"},
}


@dataclass(frozen=True)
class Later:
    """What a repository differs in from the others.

    Attributes:
        repo, revision: its Hub id, and the commit that the profile names.
        family: transformers' model_type.
        published: whose config.json it has, but for its sizes: a file's name in `published_configs`.
        shards: number of weight files.
        config: further keys of config.json.
        head: False leaves out a head of its own.
        others: files that none of our code may need.
    """

    repo: str
    revision: str
    family: str
    published: str
    shards: int = 1
    config: dict[str, Any] = field(default_factory=dict)
    head: bool = True
    others: tuple[str, ...] = ()


REPOSITORIES = {
    "gve-3b": Later(
        "Alibaba-NLP/GVE-3B",
        "2c2962d4bb1503b478b8a0d975d7b9fdcefbd3f3",
        "qwen2_5_vl",
        "qwen2.5-vl-3b",
        shards=2,
        config=_OWN_CLASS,
        others=("qwen25vl_model.py",),
    ),
    "gve-7b": Later(
        "Alibaba-NLP/GVE-7B",
        "3046045eeed08e1d8731c3b943827b81b2b20817",
        "qwen2_5_vl",
        "qwen2.5-vl-7b",
        shards=4,
        config=_OWN_CLASS,
        others=("qwen25vl_model.py",),
    ),
    "qwen3-vl-embedding-2b": Later(
        "Qwen/Qwen3-VL-Embedding-2B",
        "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda",
        "qwen3_vl",
        "qwen3-vl-2b",
        others=("scripts/qwen3_vl_embedding.py",),
    ),
    "qwen3-vl-embedding-8b": Later(
        "Qwen/Qwen3-VL-Embedding-8B",
        "2c4565515e0f265c6511776e7193b22c0968ddc7",
        "qwen3_vl",
        "qwen3-vl-8b",
        shards=4,
        head=False,
        others=("scripts/qwen3_vl_embedding.py",),
    ),
}
NAMES = tuple(REPOSITORIES)
GVE, QWEN3 = NAMES[:2], NAMES[2:]


class LaterShelf:
    """A hand-made Hub cache that fills itself, as `shelf.Shelf`.

    Args:
        cache_dir: where the cache is.
        tokenizer: the directory with Qwen2-VL's real tokenizer.
    """

    def __init__(self, cache_dir: Path, tokenizer: Path) -> None:
        self.cache_dir, self.tokenizer = cache_dir, tokenizer
        self._snapshots: dict[str, Path] = {}

    def directory(self, name: str) -> Path:
        """Return the snapshot of a profile's repository."""
        if name not in self._snapshots:
            one = REPOSITORIES[name]
            with tempfile.TemporaryDirectory() as scratch:
                files = write(Path(scratch), one, self.tokenizer)
                self._snapshots[name] = hub_cache.put(self.cache_dir, one.repo, files, one.revision)
        return self._snapshots[name]


def write(directory: Path, published: Later, tokenizer: Path) -> Path:
    """Write a repository's files into a directory."""
    config = config_json(published)
    _write_weights(directory, config, published)
    (directory / "config.json").write_text(json.dumps(config | published.config))
    _write_tokenizer(directory, tokenizer, published.family)
    stop = {"bos_token_id": 151643, "pad_token_id": 151643, "eos_token_id": [151645, 151643], "do_sample": True}
    (directory / "generation_config.json").write_text(json.dumps({**stop, "temperature": 0.7, "top_k": 20}))
    if published.family == "qwen3_vl":
        (directory / "chat_template.jinja").write_text(SYSTEMLESS_TEMPLATE)
        _write_qwen3_processors(directory)
        _write_sentence_transformers(directory)
    else:
        (directory / "chat_template.json").write_text(json.dumps({"chat_template": repositories.CHAT_TEMPLATE}))
        settings = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
        settings |= {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 3136}
        settings |= {"max_pixels": 12845056, "image_mean": tiny_bases.MEAN, "image_std": tiny_bases.STD}
        (directory / "preprocessor_config.json").write_text(json.dumps(settings))
    for name in published.others:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text("raise RuntimeError('code of a repository was run')\n")
    return directory


def config_json(published: Later) -> dict[str, Any]:
    """Return its config.json, as published but for its sizes."""
    config = json.loads((published_configs.FOLDER / f"{published.published}.json").read_text())
    if published.family == "qwen3_vl":
        config["text_config"] |= {**_TINY_LLM, "num_hidden_layers": 4, "head_dim": 16}
        rope = next(key for key in ("rope_scaling", "rope_parameters") if key in config["text_config"])
        config["text_config"][rope]["mrope_section"] = [4, 2, 2]
        config["vision_config"] |= {**_TINY_VISION, "depth": 4, "deepstack_visual_indexes": [0, 1, 3]}
        return config
    config |= {**_TINY_LLM, "num_hidden_layers": 2, "max_window_layers": 2}
    config["rope_scaling"]["mrope_section"] = [1, 1, 2]
    config["vision_config"] |= {**_TINY_VISION, "depth": 3, "fullatt_block_indexes": [1]}
    return config


def _write_weights(directory: Path, config: dict[str, Any], published: Later) -> None:
    tensors = _random_weights(config, zlib.crc32(published.repo.encode()))
    if published.family == "qwen2_5_vl":
        tensors = repositories.old_names(tensors)
    if not published.head:
        del tensors["lm_head.weight"]
    stored = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}
    save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    if published.shards > 1:
        tiny_bases.split(directory, published.shards)


def _random_weights(config: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Return weights of healthy size (transformers' own 0.02 would make every feature alike)."""
    kind = CLASSES[config["model_type"]]
    lvlm = kind._from_config(kind.config_class.from_dict(json.loads(json.dumps(config))), dtype=torch.float32)
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


def _write_tokenizer(directory: Path, tokenizer: Path, family: str) -> None:
    """Qwen2-VL's vocabulary with the family's further tokens; Qwen3-VL-Embedding's appends the end of text."""
    data = json.loads((tokenizer / "tokenizer.json").read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    first = 1 + max(token["id"] for token in data["added_tokens"])
    assert first == 151657
    data["added_tokens"] += [{"id": first + at, "content": name, **flags} for at, name in enumerate(_ADDED[family])]
    if family == "qwen3_vl":
        end = {"SpecialToken": {"id": END, "type_id": 0}}
        first, second = ({"Sequence": {"id": part, "type_id": 0}} for part in "AB")
        frame = {"type": "TemplateProcessing", "single": [first, end], "pair": [first, end, second, end]}
        frame["special_tokens"] = {END: {"id": END, "ids": [151643], "tokens": [END]}}
        bytes_first = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        data["post_processor"] = {"type": "Sequence", "processors": [bytes_first, frame]}
    (directory / "tokenizer.json").write_text(json.dumps(data))
    shutil.copy(tokenizer / "tokenizer_config.json", directory)


def _write_qwen3_processors(directory: Path) -> None:
    common = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "processor_class": "Qwen3VLProcessor"}
    common |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    image = {"size": {"shortest_edge": 4096, "longest_edge": 1310720}}
    image |= {"image_processor_type": "Qwen2VLImageProcessorFast"}
    video = {"size": {"shortest_edge": 4096, "longest_edge": 25165824}}
    video |= {"video_processor_type": "Qwen3VLVideoProcessor"}
    for name, settings in (("preprocessor_config", image), ("video_preprocessor_config", video)):
        (directory / f"{name}.json").write_text(json.dumps(common | settings))


def _write_sentence_transformers(directory: Path) -> None:
    """What sentence-transformers 5.4 and later read besides, in the form in which they write it."""
    names = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(names.items())
    ]
    call = {"method": "forward", "method_output_name": "last_hidden_state"}
    kinds = {**dict.fromkeys(("text", "image", "video"), call), "message": {**call, "format": "structured"}}
    asks = {
        "transformer_task": "feature-extraction",
        "modality_config": kinds,
        "module_output_name": "token_embeddings",
    }
    asks["processing_kwargs"] = {"chat_template": {"add_generation_prompt": True}}
    prompts = {"document": "Represent the user's input.", "query": QUERY}
    pooling = {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True, "include_prompt": True}
    pooling |= {f"pooling_mode_{kind}": False for kind in ("cls_token", "mean_tokens", "max_tokens")}
    for name, content in (
        ("modules.json", modules),
        ("sentence_bert_config.json", asks),
        ("config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "document"}),
        ("1_Pooling/config.json", pooling),
        ("2_Normalize/config.json", {}),
    ):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(json.dumps(content))
