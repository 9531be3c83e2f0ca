"""Greedy decoding of rows of one length.

transformers' own `generate` keeps Qwen2-VL's rope offsets on the model between calls (huggingface/transformers#44873).
This loop keeps nothing, so it is safe with several threads and calls.
"""

import torch
from transformers import DynamicCache

from vladva_clip.encoder.rows import Rows


@torch.no_grad()
def greedy(prompts: Rows, max_new_tokens: int, stop_ids: set[int], suppressed_ids: list[int]) -> list[list[int]]:
    """Continue each row with its most likely tokens.

    Args:
        prompts: B rows of one length, without padding. A new token's position is one more than the largest so far.
        max_new_tokens: maximum number of tokens per row, at least 1.
        stop_ids: tokens that end a row; they are not in the result.
        suppressed_ids: tokens that are never produced.

    Returns:
        B lists of token ids.
    """
    backbone, position_ids = prompts.backbone, prompts.position_ids
    cache = DynamicCache(config=backbone.lvlm.config.get_text_config())
    rows: list[list[int]] = [[] for _ in prompts.embeddings]
    running = torch.ones(len(rows), dtype=torch.bool)
    hidden_states = prompts.hidden_states(cache)
    for number in range(1, max_new_tokens + 1):
        logits = backbone.head(hidden_states[:, -1]).float()  # (B, V)
        logits[:, suppressed_ids] = float("-inf")
        chosen = logits.argmax(dim=-1)
        for row, token in enumerate(chosen.tolist()):
            running[row] &= token not in stop_ids
            if running[row]:
                rows[row].append(token)
        if number == max_new_tokens or not running.any():
            break
        position_ids = torch.full_like(position_ids[..., :1], int(position_ids.max()) + 1)
        hidden_states = backbone.trunk(backbone.embed_tokens(chosen[:, None]), position_ids, cache)
    return rows
