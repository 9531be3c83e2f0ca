"""A tiny random BLIP-2, written as an ordinary Hugging Face directory."""

from pathlib import Path

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

from tests.support.models.tiny_bases import llava_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def write_blip2(directory: Path, seed: int = 0) -> Path:
    """Write a BLIP-2 over OPT with random weights of healthy size."""
    tokenizer = llava_tokenizer()
    text = {**SIZES, "model_type": "opt", "ffn_dim": 48, "vocab_size": 384, "word_embed_proj_dim": 32}
    text |= {"max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
    config = Blip2Config(
        vision_config={**SIZES, "intermediate_size": 48, "image_size": 28, "patch_size": 14},
        qformer_config={**SIZES, "intermediate_size": 48, "vocab_size": 384},
        text_config={**text, "pad_token_id": tokenizer.pad_token_id},
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_text_hidden_size=16,
        tie_word_embeddings=False,
    )
    model = Blip2ForConditionalGeneration._from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (0.2 if parameter.ndim > 1 else 0.1) + (1.0 if parameter.ndim == 1 else 0.0))
    model.save_pretrained(directory)
    images = BlipImageProcessor(size={"height": 28, "width": 28})
    Blip2Processor(images, tokenizer, num_query_tokens=4).save_pretrained(directory)
    return directory
