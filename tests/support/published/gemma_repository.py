"""A tiny random EmbeddingGemma 2, written as transformers' conversion script writes the published one.

Its tokenizer has the published one's kind and special tokens, with a small vocabulary; the files hold an audio tower.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model, EmbeddingGemma2Processor, GemmaTokenizer
from transformers.models.embedding_gemma2.video_processing_embedding_gemma2 import EmbeddingGemma2VideoProcessor
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor

from tests.support import hub_cache
from tests.support.models import published_configs

NAME = "embeddinggemma-2"
REPO, REVISION = "google/embeddinggemma-2", "914f7f89142e33e77833254d9c9b90c3cef7303b"
PROMPTS = {  # those of its tags, by the names in config_sentence_transformers.json
    "default": "Document",
    "retrieval": "SearchQuery",
    "question_answering": "QuestionAnswering",
    "fact_checking": "FactChecking",
    "code_retrieval": "CodeRetrieval",
    "classification": "Classification",
    "clustering": "Clustering",
    "sentence_similarity": "SentenceSimilarity",
}
WRITTEN = {
    "Document": "title: none | text: ",
    "SearchQuery": "task: search result | query: ",
    "QuestionAnswering": "task: question answering | query: ",
    "FactChecking": "task: fact checking | query: ",
    "CodeRetrieval": "task: code retrieval | query: ",
    "Classification": "task: classification | query: ",
    "Clustering": "task: clustering | query: ",
    "SentenceSimilarity": "task: sentence similarity | query: ",
}
MEDIA = {  # the tokenizer's extra special tokens
    **{"image_token": "<|image|>", "video_token": "<|video|>", "boi_token": "<|image>", "eoi_token": "<image|>"},
    **{"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>", "sot_token": "<|turn>"},
}
_FIRST = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")  # ids 0 to 4, as published
_CORPUS = [
    *WRITTEN.values(),
    "a red green blue circle square left right of above below the on small large dog cat two buses and people.",
    "He said hi; a wide street, parked with new lines in Malmo",
] * 20
_SIZES = {
    "text_config": {
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4},
        **{"num_key_value_heads": 2, "head_dim": 8, "hidden_size_per_layer_input": 16, "embedding_dim": 48},
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "per_layer_config": {f"{layer:02d}": {"head_dim": 16, "num_key_value_heads": 1} for layer in (1, 3)},
        "sliding_window": 4,
    },
    "vision_config": {
        **{"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"num_key_value_heads": 2, "head_dim": 16, "position_embedding_size": 128},
    },
    "audio_config": {
        **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "output_proj_dims": 40},
        "subsampling_conv_channels": [8, 4],
    },
}


class GemmaShelf:
    """A hand-made Hub cache that fills itself, as `shelf.Shelf`; it has this one repository."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self._snapshot: Path | None = None

    def directory(self) -> Path:
        """Return the snapshot of the repository."""
        if self._snapshot is None:
            with tempfile.TemporaryDirectory() as scratch:
                self._snapshot = hub_cache.put(self.cache_dir, REPO, write(Path(scratch)), REVISION)
        return self._snapshot


def write(directory: Path, seed: int = 0) -> Path:
    """Write the repository's files into a directory."""
    tokenizer = build_tokenizer()
    config = config_json(tokenizer)
    _random_model(config, seed).save_pretrained(directory)
    _in_bfloat16(directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(directory)
    processor = EmbeddingGemma2Processor(
        image_processor=Gemma4ImageProcessor(image_seq_length=280, do_normalize=False, max_soft_tokens=280),
        feature_extractor=Gemma4AudioFeatureExtractor(),
        video_processor=EmbeddingGemma2VideoProcessor(max_soft_tokens=140, do_normalize=False),
        tokenizer=tokenizer,
        image_seq_length=280,
        audio_seq_length=280,
    )
    processor.save_pretrained(directory)
    processor.feature_extractor.save_pretrained(directory)  # preprocessor_config.json: the audio's, as published
    _write_sentence_transformers(directory)
    return directory


def build_tokenizer() -> GemmaTokenizer:
    """Byte-pair encoding whose words begin with at most one kind of white space, with bytes for unknown letters."""
    words, merges = _trained()
    special = [*_FIRST, *MEDIA.values(), *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    return GemmaTokenizer(
        vocab=vocabulary,
        merges=merges,
        add_bos_token=True,
        add_eos_token=True,
        padding_side="right",
        extra_special_tokens=MEDIA,
    )


def _trained() -> tuple[list[str], list[tuple[str, str]]]:
    """Words and merges; runs of spaces and of line breaks are words, as in Gemma's vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    letters = sorted(set("".join(_CORPUS)) - {" "} | set("\n▁!?.,:|0123456789"))
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    words = [*model["vocab"], *(sign * length for sign in "▁\n" for length in (2, 4))]
    merges = [tuple(pair) for pair in model["merges"]]
    return words, [(sign * half, sign * half) for sign in "▁\n" for half in (1, 2)] + merges


def config_json(tokenizer: GemmaTokenizer) -> dict[str, Any]:
    """Return its config.json, as published but for its sizes and the ids of its tokenizer."""
    config = json.loads((published_configs.FOLDER / f"{NAME}.json").read_text())
    for part, sizes in _SIZES.items():
        config[part] |= sizes
    config["text_config"]["vocab_size"] = len(tokenizer)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in MEDIA.items()}
    names = ("image", "video", "boi", "eoi", "audio", "boa")
    config |= {f"{name}_token_id": ids[f"{name}_token"] for name in names}
    return config | {"eoa_token_index": ids["eoa_token"]}


def _random_model(config: dict[str, Any], seed: int) -> EmbeddingGemma2Model:
    """Return weights of healthy size (transformers' own 0.02 would make every feature alike)."""
    settings = EmbeddingGemma2Config.from_dict(json.loads(json.dumps(config)))
    model = EmbeddingGemma2Model._from_config(settings, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (0.2 if parameter.ndim > 1 else 0.1) + (1.0 if parameter.ndim == 1 else 0.0))
        for layer in model.language_model.layers:  # a buffer that is stored
            layer.layer_scalar.copy_(0.5 + torch.rand(1, generator=generator))
    return model


def _in_bfloat16(path: Path) -> None:
    stored = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(path).items()}
    save_file(stored, path, metadata={"format": "pt"})


def _write_sentence_transformers(directory: Path) -> None:
    """What sentence-transformers reads besides, in the form in which it writes it."""
    names = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    kinds = {"Transformer": "base.modules.transformer", "Pooling": "sentence_transformer.modules.pooling"}
    kinds["Normalize"] = "base.modules.normalize"
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.{kinds[kind]}.{kind}"}
        for index, (kind, path) in enumerate(names.items())
    ]
    call = {"method": "forward", "method_output_name": "last_hidden_state"}
    asks = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
    asks["modality_config"] = dict.fromkeys(("text", "image", "audio", "video"), call)
    pooling = {"embedding_dimension": 48, "pooling_mode": "mean", "include_prompt": True}
    for name, content in (
        ("modules.json", modules),
        ("config_sentence_transformers.json", {"prompts": WRITTEN, "default_prompt_name": None}),
        ("sentence_bert_config.json", asks),
        ("1_Pooling/config.json", pooling),
        ("2_Normalize/config.json", {}),
    ):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(json.dumps(content))
