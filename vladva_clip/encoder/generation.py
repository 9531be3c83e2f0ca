"""Greedy decoding over explicit embeddings and positions, for rows of one length.

transformers' own `generate` keeps Qwen2-VL's rope offsets on the model between calls (huggingface/transformers#44873);
this loop keeps nothing, so it is safe beside other threads and calls.
"""

import torch
from transformers import DynamicCache

from vladva_clip.encoder.backbones.base import Backbone


@torch.no_grad()
def greedy(
    backbone: Backbone,
    embeddings: torch.Tensor,
    position_ids: torch.Tensor,
    max_new_tokens: int,
    stop_ids: set[int],
    suppressed_ids: list[int],
) -> list[list[int]]:
    """Continue each row with its most likely tokens.

    Args:
        backbone: the LVLM.
        embeddings: `(B, T, D)` prompts, all of the same length, without padding.
        position_ids: of the prompts, `(..., 1, T)`; new tokens go on behind the largest one.
        max_new_tokens: at most so many tokens a row.
        stop_ids: tokens that end a row; not part of the result.
        suppressed_ids: tokens that are never produced.

    Returns:
        B lists of token ids.
    """
    cache = DynamicCache(config=backbone.lvlm.config.get_text_config())
    rows: list[list[int]] = [[] for _ in embeddings]
    running = torch.ones(len(rows), dtype=torch.bool)
    for _ in range(max_new_tokens):
        hidden_states = backbone.trunk(embeddings, position_ids, cache)
        logits = backbone.head(hidden_states[:, -1]).float()  # (B, V)
        logits[:, suppressed_ids] = float("-inf")
        chosen = logits.argmax(dim=-1)
        for row, token in enumerate(chosen.tolist()):
            running[row] &= token not in stop_ids
            if running[row]:
                rows[row].append(token)
        if not running.any():
            break
        embeddings = backbone.embed_tokens(chosen[:, None])
        position_ids = torch.full_like(position_ids[..., :1], int(position_ids.max()) + 1)
    return rows
