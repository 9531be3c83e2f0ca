"""LLaVA-1.5's tokenizer, made from Llama's own SentencePiece model."""

import shutil
from pathlib import Path

from transformers import AddedToken, LlamaTokenizer


def llava_tokenizer(shared_data: Path, directory: Path) -> LlamaTokenizer:
    """Llama's tokenizer with LLaVA's two added tokens at their published ids; written to `directory` as on the Hub."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("tokenizer*"):
        path.unlink()  # what another tokenizer left there would win
    shutil.copy(shared_data / "tokenizers" / "llama2" / "tokenizer.model", directory)
    tokenizer = LlamaTokenizer.from_pretrained(directory, legacy=False, add_bos_token=True)
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [32000, 32001]
    tokenizer.save_pretrained(directory)
    return tokenizer
