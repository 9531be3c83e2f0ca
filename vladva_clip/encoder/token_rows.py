"""Checks on the token ids that callers pass in: could the model's own tokenizer have written them?"""

import torch

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def split_captions(tokens: torch.Tensor, eot_token_id: int, vocab_size: int) -> list[torch.Tensor]:
    """Cut each row before its last eot, and refuse rows that our tokenizer cannot have written.

    Args:
        tokens: `(N, L)` int64: ids, one eot, zeros.
        eot_token_id: the eot of the model's tokenizer.
        vocab_size: number of rows of the token embedding.

    Returns:
        N 1-D int64 tensors on the CPU.

    Raises:
        ValueError: not an integer matrix; or a row without eot, with ids after it, or with ids beyond the vocabulary
            (CLIP's BPE ids, another family's ids).
    """
    check_tokens(tokens)
    tokens = tokens.detach().to("cpu", torch.long)
    last, foreign = last_eot(tokens, eot_token_id), foreign_rows(tokens, eot_token_id, vocab_size)
    if foreign.any():
        row = int(foreign.nonzero()[0])
        raise ValueError(
            f"row {row} of the tokens was not made for this model: expected ids below {vocab_size}, one end-of-text id "
            f"{eot_token_id}, then zeros; found {tokens[row, :8].tolist()}... Tokenize with "
            "vladva_clip.get_tokenizer(model_name), not with CLIP's or another model's tokenizer"
        )
    return [row[:end] for row, end in zip(tokens, last.tolist(), strict=True)]


def check_tokens(tokens: torch.Tensor) -> None:
    """Raise ValueError for anything but an integer matrix."""
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 2 or tokens.dtype not in INTEGERS:
        shape = f"{tuple(tokens.shape)} {tokens.dtype}" if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise ValueError(f"encode_text got {shape}, expected int64 (N, context_length) from this model's tokenizer")


def foreign_rows(tokens: torch.Tensor, eot_token_id: int, vocab_size: int) -> torch.Tensor:
    """Return which rows of `(N, L)` tokens our tokenizer cannot have written: `(N,)` bool."""
    last = last_eot(tokens, eot_token_id)
    behind = (tokens != 0) & (torch.arange(tokens.shape[1], device=tokens.device) > last[:, None])
    return (last < 0) | behind.any(dim=1) | ((tokens < 0) | (tokens >= vocab_size)).any(dim=1)


def last_eot(tokens: torch.Tensor, eot_token_id: int) -> torch.Tensor:
    """Return the index of each row's last eot, -1 for a row without one: `(N,)` int64."""
    if not tokens.shape[1]:
        return torch.full((len(tokens),), -1, device=tokens.device)
    return ((tokens == eot_token_id) * torch.arange(1, tokens.shape[1] + 1, device=tokens.device)).amax(dim=1) - 1
