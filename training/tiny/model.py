"""The shape of vladva-tiny's base, a small LLaVA of transformers' own class, and how it is stored."""

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from vladva_clip.encoder.admission.base_config import processor_config
from vladva_clip.encoder.backbones.faults import check_loaded
from vladva_clip.encoder.backbones.llava import LlavaBackbone
from vladva_clip.encoder.describe import describe
from vladva_clip.interface.quiet import quiet_transformers
from vladva_clip.sources.locate import BASE_FILE, Source
from vladva_clip.storage import whole

IMAGE_SIZE = 64
PATCH_SIZE = 8
VOCABULARY_ROWS = 1024
"""More rows than the tokenizer has tokens, which leaves room for later tokens."""
TEMPLATES, VISUAL_SPAN = LlavaBackbone.prompt_config(), LlavaBackbone.visual_span
"""The rows that the base is pre-trained on (`vladva_training.tiny.tasks`): those of its family."""


def build_model(tokenizer: PreTrainedTokenizerFast, **overrides: int) -> LlavaForConditionalGeneration:
    """A freshly initialized base.

    Args:
        tokenizer: gives the special ids.
        overrides: LLM sizes that differ from the shipped ones, for tests.
    """
    return LlavaForConditionalGeneration(build_config(tokenizer, **overrides))


def build_config(tokenizer: PreTrainedTokenizerFast, **overrides: int) -> LlavaConfig:
    """The shipped base: 64 visual tokens of a 4-layer ViT in front of a 5-layer Llama of width 256."""
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return LlavaConfig(
        vision_config=vision_config(),
        text_config=LlamaConfig(**{**_text_sizes(), **special, **overrides}),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        projector_hidden_act="gelu",
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        tie_word_embeddings=False,
        **special,
    )


def vision_config() -> CLIPVisionConfig:
    """The shipped vision tower: patches of 8 pixels, 4 layers of width 192."""
    return CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=192,
    )


def _text_sizes() -> dict:
    return {
        "vocab_size": VOCABULARY_ROWS,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
    }


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """The processor: images are resized to a square without a crop and normalized like CLIP's."""
    image_processor = CLIPImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, do_center_crop=False, crop_size=IMAGE_SIZE
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=tokenizer.chat_template,
        num_additional_image_tokens=1,
    )


def save_base(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Writes an ordinary Hugging Face LLaVA directory, weights rounded to bf16; the model stays as is."""
    rounded = LlavaForConditionalGeneration(_without_dtypes(model.config)).to(torch.bfloat16)
    rounded.load_state_dict(model.state_dict())
    rounded.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with quiet_transformers():
        rounded.save_pretrained(directory)
    _use_names_of_every_release(directory / "model.safetensors")
    build_processor(tokenizer).save_pretrained(directory)
    _write_config(directory)


def _write_config(directory: Path) -> None:
    """State the templates that the base was pre-trained with, so that no later default of its family changes them."""
    source = Source(directory, "vladva-tiny")
    config = describe(source.files.config, processor_config(source.files), source.base_id)
    config = config.replace(prompt=TEMPLATES, dtype="float32")
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"
    whole.write(directory / BASE_FILE, text.encode())


def _without_dtypes(config: LlavaConfig) -> LlavaConfig:
    """A copy without dtypes: `load_base` computes in fp32, but the weights are stored in bf16."""
    config = copy.deepcopy(config)
    for part in (config, config.text_config, config.vision_config):
        part.dtype = None
    return config


def _use_names_of_every_release(path: Path) -> None:
    """Names the vision tower's tensors as transformers 5.0 expects them and later releases still read them."""
    tower, inner = "vision_tower.", "vision_tower.vision_model."
    tensors = load_file(path)
    renamed = {name if inner in name else name.replace(tower, inner): tensor for name, tensor in tensors.items()}
    with whole.file(path) as new:
        save_file(renamed, new, metadata={"format": "pt"})


def load_base(directory: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Loads a base, its bf16 weights converted to fp32, and its processor."""
    options = {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with quiet_transformers():
        model, info = LlavaForConditionalGeneration.from_pretrained(directory, **options)
    check_loaded(directory, info)
    return model.eval(), AutoProcessor.from_pretrained(directory)
