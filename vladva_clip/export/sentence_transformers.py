"""The files that make a directory a sentence-transformers model: last token, normalized, chat template `embed`."""

import json
from pathlib import Path

from vladva_clip.export.chat import NAME

_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
_MODALITIES = {"text": _FORWARD, "image": _FORWARD, "message": {**_FORWARD, "format": "structured"}}
_TRANSFORMER = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "processing_kwargs": {
        "chat_template": {"chat_template": NAME},
        # truncation would cut off the summary token or visual slots; right padding keeps positions unchanged
        "text": {"truncation": False, "padding_side": "right"},
    },
    "unpad_inputs": False,  # Qwen2-VL's positions would be wrong if rows were concatenated
}
_MODULES = [  # their original names, which every release resolves and vLLM looks for
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Normalize", "sentence_transformers.models.Normalize"),
]


def write(directory: Path, embed_dim: int, untrusted_texts: bool) -> None:
    """Write modules.json and each module's config into an exported directory.

    Args:
        directory: the export's directory.
        embed_dim: width of the features.
        untrusted_texts: leave images out of the input kinds. With them, sentence-transformers opens a string that is an
            existing picture's path or a picture's address; without them it takes pictures as messages only.
    """
    modalities = {kind: entry for kind, entry in _MODALITIES.items() if kind != "image" or not untrusted_texts}
    modules = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(_MODULES)]
    # the last token in both spellings: vLLM takes the first key of the older one that is true
    pooling = {"pooling_mode_lasttoken": True, "pooling_mode": "lasttoken", "include_prompt": True}
    pooling["embedding_dimension"] = embed_dim
    (directory / "1_Pooling").mkdir()
    (directory / "2_Normalize").mkdir()
    _write(directory / "modules.json", modules)
    _write(directory / "sentence_bert_config.json", {**_TRANSFORMER, "modality_config": modalities})
    _write(directory / "1_Pooling" / "config.json", pooling)
    _write(directory / "2_Normalize" / "config.json", {})
    _write(
        directory / "config_sentence_transformers.json",
        {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"},
    )


def _write(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
