"""A row being run: from a layout to embeddings, hidden states and features. Everything that enters the trunk is a Rows.

What a family's vision side yields (`Visual`) passes through here unopened: only the family's backbone reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from vladva_clip.encoder.backbones.base import Backbone, Visual
from vladva_clip.encoder.pooling import attended, mean_features, summary_features
from vladva_clip.encoder.prompts import SequenceBatch, SoftPrompt, fill
from vladva_clip.storage.encoding_config import EncodingConfig


@dataclass(frozen=True)
class Rows:
    """Rows that are ready for the trunk.

    Attributes:
        backbone: the LVLM that runs them.
        layout: what each slot holds, on the backbone's device.
        embeddings: `(B, T, D)`, with the soft prompt and the visual tokens filled in.
        position_ids: from `Backbone.position_ids`; broadcast over the batch.
        trunk_inputs: further arguments of the trunk, from `Backbone.trunk_inputs`; empty for text rows.
        encoding: positions, attention and pooling of the model.
    """

    backbone: Backbone
    layout: SequenceBatch
    embeddings: torch.Tensor
    position_ids: torch.Tensor
    trunk_inputs: dict[str, Any]
    encoding: EncodingConfig = EncodingConfig()

    @classmethod
    def of_text(
        cls,
        backbone: Backbone,
        layout: SequenceBatch,
        soft_prompt: SoftPrompt,
        encoding: EncodingConfig = EncodingConfig(),  # noqa: B008, it is frozen
    ) -> "Rows":
        """Look up a text layout's ids and fill in the soft prompt."""
        layout = layout.to(backbone.device)
        embeddings = _embed(backbone, layout, soft_prompt)
        return cls(backbone, layout, embeddings, backbone.position_ids(embeddings.shape[1], None, 0), {}, encoding)

    @classmethod
    def of_images(
        cls,
        backbone: Backbone,
        layout: SequenceBatch,
        soft_prompt: SoftPrompt | None,
        visual: Visual,
        image_size: int,
        encoding: EncodingConfig = EncodingConfig(),  # noqa: B008, it is frozen
    ) -> "Rows":
        """Look up an image layout's ids, and fill in the soft prompt and the visual tokens.

        Args:
            backbone: the LVLM.
            layout: B rows with visual slots.
            soft_prompt: None for a layout without soft slots.
            visual: from `Backbone.visual_tokens`, on the backbone's device.
            image_size: pixels.
            encoding: positions, attention and pooling of the model.

        Raises:
            ValueError: the numbers of vectors and slots differ.
        """
        layout = layout.to(backbone.device)
        vectors = backbone.slot_vectors(visual).flatten(0, 1)
        embeddings = fill(_embed(backbone, layout, soft_prompt), layout.visual_mask, vectors, "visual tokens")
        start = layout.visual_start if encoding.positions == "family" else None
        positions = backbone.position_ids(embeddings.shape[1], start, image_size)
        trunk_inputs = backbone.trunk_inputs(visual, layout.visual_mask)
        return cls(backbone, layout, embeddings, positions, trunk_inputs, encoding)

    def hidden_states(self, cache: Any = None) -> torch.Tensor:
        """Run the trunk: `(B, T, D)`, the last layer after the final norm.

        Args:
            cache: a transformers Cache that holds what precedes these rows, and is extended.

        Raises:
            ValueError: a cache with bidirectional attention, where what precedes a token depends on what follows it.
        """
        if self.encoding.is_causal:
            return self.backbone.trunk(self.embeddings, self.position_ids, cache, **self.trunk_inputs)
        if cache is not None:
            raise ValueError("attention is bidirectional, so no part of a row can run by itself; expected cache=None")
        mask = self._both_ways()
        return self.backbone.trunk(self.embeddings, self.position_ids, attention_mask=mask, **self.trunk_inputs)

    def _both_ways(self) -> torch.Tensor:
        """Return the mask with which each token sees all of its row and no padding: `(B, 1, T, T)`, 0 or -inf.

        For an LLM that attends both ways itself: `(B, T)` bool, from which transformers makes the mask of each layer.
        """
        length = self.embeddings.shape[1]
        own = attended(self.layout.summary_index, length)
        if self.backbone.attends_both_ways:
            return own
        hidden = ~own[:, None, None]  # (B, 1, 1, T)
        mask = torch.zeros_like(hidden, dtype=self.embeddings.dtype)
        mask = mask.masked_fill(hidden, torch.finfo(self.embeddings.dtype).min)
        return mask.expand(-1, 1, length, -1)

    def features(self, cache: Any = None) -> torch.Tensor:
        """Run the trunk and pool: `(B, D)` float32, or float64 for a float64 model."""
        return self.pool(self.hidden_states(cache))

    def pool(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Pool this object's `hidden_states`, as a rule at their summary tokens: `(B, D)`."""
        pool = summary_features if self.encoding.pooling == "last" else mean_features
        return pool(hidden_states, self.layout.summary_index)

    def columns(self, start: int, stop: int | None = None) -> "Rows":
        """Return the tokens `start` to `stop` of text rows, to be run with a cache that holds the ones before.

        The summary tokens are in the result unless `stop` cuts them off.
        """
        assert self.encoding.shares_beginnings, "rows can't be cut: a feature depends on all of its row"
        assert self.layout.visual_start is None, "visual tokens and what belongs to them can't be cut"
        part = slice(start, stop)
        names = ("input_ids", "soft_mask", "visual_mask")
        layout = replace(self.layout, **{name: getattr(self.layout, name)[:, part] for name in names})
        layout = replace(layout, summary_index=layout.summary_index - start)
        return replace(
            self, layout=layout, embeddings=self.embeddings[:, part], position_ids=self.position_ids[..., part]
        )


def caption_predictions(
    hidden_states: torch.Tensor, captions: Sequence[torch.Tensor | None], first: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pick the hidden states that predict captions: the token in front predicts the first id, each id the next.

    Args:
        hidden_states: `(B, T, D)` of rows that go on with captions.
        captions: B captions' ids, 1-D int64; None for a row without one.
        first: index of the token in front of the captions, the same in each row (`VisualTower.answer_index`). A
            number, so that a GPU need not be waited for.

    Returns:
        States `(K, D)` and the ids that they predict, `(K,)` int64, row by row; K = 0 without any caption.
    """
    device = hidden_states.device
    present = [(row, caption) for row, caption in enumerate(captions) if caption is not None]
    if not present:
        return hidden_states[0, :0], torch.zeros(0, dtype=torch.long, device=device)
    labels = torch.cat([caption for _, caption in present]).to(device)
    rows = torch.cat([torch.full((len(caption),), row) for row, caption in present])
    columns = torch.cat([torch.arange(len(caption)) for _, caption in present]) + first
    return hidden_states[rows.to(device), columns.to(device)], labels


def _embed(backbone: Backbone, layout: SequenceBatch, soft_prompt: SoftPrompt | None) -> torch.Tensor:
    """Look up the rows' ids, and write the soft prompt into the soft slots: `(B, T, D)`."""
    embeddings = backbone.embed_tokens(layout.input_ids)
    if soft_prompt is None:
        return embeddings
    vectors = soft_prompt.weight.repeat(layout.input_ids.shape[0], 1)  # (B * num_soft_tokens, D)
    return fill(embeddings, layout.soft_mask, vectors, "soft prompt vectors")
