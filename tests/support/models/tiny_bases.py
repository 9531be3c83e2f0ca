"""Tiny random base LVLMs of both families, written as ordinary Hugging Face directories."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

WORDS = (
    "a red green blue circle square left right of above below the on small large dog cat USER ASSISTANT user assistant"
)
CORPUS = [
    WORDS,
    "Summarize the provided image in one word:",
    "Summarize the provided text in one word:",
    "Describe it.",
] * 20

LLAVA_CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
QWEN_CHAT = (  # as published, for one question about one image
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def llava_tokenizer(image_token: bool = True) -> PreTrainedTokenizerFast:
    """SentencePiece-like, as Llama's: a space in front of the first word, BOS in front of the row."""
    specials = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = sorted(set("".join(CORPUS)) | set("\n?!.,0123456789"))
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken("<image>", special=True), AddedToken("<pad>", special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, as Qwen's: no BOS, eos `<|im_end|>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    names = "<|endoftext|> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|>"
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names.split()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def llava_config(tokenizer, width: int = 32, depth: int = 2) -> dict:
    vision = {"model_type": "clip_vision_model", "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision |= {"intermediate_size": 48, "patch_size": 14, "image_size": 56, "projection_dim": 16}
    text = {"model_type": "llama", "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 384, "max_position_embeddings": 2048}
    text |= {"bos_token_id": 1, "eos_token_id": 2}
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "image_token_index": image}
    config |= {"vision_feature_layer": -2, "vision_feature_select_strategy": "default", "projector_hidden_act": "gelu"}
    return {**config, "vision_config": vision, "text_config": text}


def qwen_config(tokenizer, width: int = 32, depth: int = 2) -> dict:
    """Flat, as the published config.json of Qwen2-VL is."""
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
        for name, token in (
            ("vision_start", "<|vision_start|>"),
            ("vision_end", "<|vision_end|>"),
            ("image", "<|image_pad|>"),
            ("video", "<|video_pad|>"),
            ("eos", "<|im_end|>"),
        )
    }
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": width, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2, "in_chans": 3}
    config = {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], "hidden_size": width}
    config |= {"num_hidden_layers": depth, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    config |= {"vocab_size": 512, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 2048}
    config |= {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}, "tie_word_embeddings": True}
    return {**config, **ids, "vision_config": vision}


def write_base(directory: Path, lvlm_class, tokenizer, config: dict, processor: dict, chat: str, seed: int = 0) -> Path:
    """Write a base with random weights of healthy size (transformers' own 0.02 would make every feature alike)."""
    directory.mkdir(parents=True, exist_ok=True)
    lvlm = lvlm_class._from_config(lvlm_class.config_class.from_dict(config), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lvlm.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (0.2 if parameter.ndim > 1 else 0.1) + (1.0 if parameter.ndim == 1 else 0.0))
    lvlm.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    (directory / "chat_template.jinja").write_text(chat)
    return directory


MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def write_llava(directory: Path, seed: int = 0) -> Path:
    tokenizer = llava_tokenizer()
    processor = {"image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor", "resample": 3}
    processor |= {"do_resize": True, "size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    processor |= {"do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True}
    processor |= {"rescale_factor": 1 / 255, "image_mean": MEAN, "image_std": STD}
    config = llava_config(tokenizer)
    write_base(directory, LlavaForConditionalGeneration, tokenizer, config, processor, LLAVA_CHAT, seed)
    settings = {"processor_class": "LlavaProcessor", "patch_size": 14, "vision_feature_select_strategy": "default"}
    settings |= {"image_token": "<image>", "num_additional_image_tokens": 1}
    (directory / "processor_config.json").write_text(json.dumps(settings))
    return directory


def write_qwen(directory: Path, seed: int = 0) -> Path:
    tokenizer = qwen_tokenizer()
    processor = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"}
    processor |= {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 784, "max_pixels": 1003520}
    processor |= {"image_mean": MEAN, "image_std": STD}
    config = qwen_config(tokenizer)
    return write_base(directory, Qwen2VLForConditionalGeneration, tokenizer, config, processor, QWEN_CHAT, seed)


def rename_to_hub_llava(directory: Path) -> None:
    """Give a LLaVA directory the older key names that the files on the Hub carry."""
    path = directory / "model.safetensors"
    save_file({_hub_name(name): tensor for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


def drop(directory: Path, name: str) -> None:
    """Take a tensor out of a base's weight file."""
    path = directory / "model.safetensors"
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items() if key != name}
    save_file(tensors, path, metadata={"format": "pt"})


def split(directory: Path, shards: int) -> None:
    """Cut a base's weight file into so many, with the index that names them."""
    tensors = list(load_file(directory / "model.safetensors").items())
    names = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
    for number, name in enumerate(names):
        save_file(dict(tensors[number::shards]), directory / name, metadata={"format": "pt"})
    where = {key: names[position % shards] for position, (key, _) in enumerate(tensors)}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (directory / "model.safetensors").unlink()


def _hub_name(name: str) -> str:
    if name.startswith(("model.vision_tower.", "vision_tower.")):
        rest = name.split("vision_tower.", 1)[1].removeprefix("vision_model.")
        return f"vision_tower.vision_model.{rest}"
    if name.startswith("lm_head"):
        return f"language_model.{name}"
    rest = name.removeprefix("model.")
    if rest.startswith("language_model.") and not rest.startswith(("language_model.model.", "language_model.lm_head")):
        return rest.replace("language_model.", "language_model.model.", 1)
    return rest
