"""The forward pass of a research script: transformers' own over whole padded rows, for comparison with ours."""

import inspect
import typing

import torch
from torch import nn

from vladva_clip.encoder.prompts import SoftPrompt


@torch.no_grad()
def plain_text(model, tokens: torch.Tensor, width: int = 0) -> torch.Tensor:
    """Embed captions with the full transformers forward, padded with a mask, in the given order: `(B, D)`.

    Args:
        model: one of ours.
        tokens: `(B, L)` int64 of its tokenizer.
        width: minimum width of the rows in tokens; with 0, the longest row decides.
    """
    prompts, lvlm = model.text.prompts, model.visual.backbone.lvlm
    captions = [row[: int((row == prompts.eot_token_id).nonzero()[-1])] for row in tokens]
    batch = prompts.text_batch(captions).to(lvlm.device)
    wider = (0, max(0, width - batch.input_ids.shape[1]))
    ids, soft = (torch.nn.functional.pad(rows, wider) for rows in (batch.input_ids, batch.soft_mask))
    mask = torch.arange(ids.shape[1], device=lvlm.device) <= batch.summary_index[:, None]
    embeddings = _embeddings(lvlm, ids, soft, model.text.soft_prompt)
    return _pooled(model, _states(lvlm, inputs_embeds=embeddings, attention_mask=mask.long()), mask)


@torch.no_grad()
def plain_image(model, images: torch.Tensor) -> torch.Tensor:
    """Embed images with the full transformers forward (EmbeddingGemma 2, LLaVA, SmolVLM): `(B, D)`."""
    prompts, lvlm = model.visual.prompts, model.visual.backbone.lvlm
    batch = prompts.image_batch(len(images), model.visual.num_visual_tokens).to(lvlm.device)
    mask = torch.ones_like(batch.input_ids)
    embeddings = _embeddings(lvlm, batch.input_ids, batch.soft_mask, model.visual.soft_prompt)
    pixels = _pixels(lvlm, images.to(lvlm.device, lvlm.dtype))
    return _pooled(model, _states(lvlm, inputs_embeds=embeddings, attention_mask=mask, **pixels), mask)


def _pixels(lvlm: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what the family's forward takes for `(B, 3, H, W)`."""
    known = inspect.signature(lvlm.forward).parameters
    if "pixel_attention_mask" in known:  # a row may have several images
        return {"pixel_values": images[:, None]}
    if "image_position_ids" in known:
        return _patches(images, lvlm.config.vision_config.patch_size)
    return {"pixel_values": images}


def _patches(images: torch.Tensor, size: int) -> dict[str, torch.Tensor]:
    """Cut `(B, 3, H, W)` as transformers' processor of Gemma 4 does: `(B, N, P * P * 3)`, and each patch's (x, y)."""
    from transformers.models.gemma4.image_processing_gemma4 import convert_image_to_patches

    patches = torch.stack([convert_image_to_patches(image, size) for image in images])
    rows, columns = (torch.arange(side // size, device=images.device) for side in images.shape[2:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    places = torch.stack([x, y], -1).flatten(0, 1).expand(len(images), -1, -1)
    return {"pixel_values": patches, "image_position_ids": places}


def _states(lvlm: nn.Module, **inputs: typing.Any) -> torch.Tensor:
    """Return the last of all layers' hidden states, `(B, T, D)`, after the projection where the LLM has one."""
    output = lvlm(**inputs, output_hidden_states=True, use_cache=False)
    projected = getattr(output, "last_hidden_state", None)
    return output.hidden_states[-1] if projected is None else projected


def _pooled(model: nn.Module, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of a row's states, or its last one: `(B, D)`."""
    if model.config.encoding.pooling == "mean":
        return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return states[torch.arange(len(states)), mask.sum(1) - 1]


def _embeddings(lvlm, ids: torch.Tensor, soft: torch.Tensor, soft_prompt: SoftPrompt) -> torch.Tensor:
    """Embed `(B, T)` ids, with the soft prompt where `soft` is True: `(B, T, D)`. Doesn't use the code it checks."""
    embeddings = lvlm.get_input_embeddings()(ids)
    embeddings[soft] = soft_prompt.weight.to(embeddings.dtype).repeat(len(ids), 1)
    return embeddings
