"""open_clip's `forward_intermediates`, which is refused by name."""

from typing import Any, NoReturn


class IntermediatesError(NotImplementedError, ValueError):
    """`forward_intermediates` was called; the message says what to use instead."""


class NoIntermediates:
    """Refuses `forward_intermediates`, of a model and of both towers."""

    def forward_intermediates(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: an LLM's layers are no grid of patches, so open_clip's output (a map for each block) has no meaning.

        Raises:
            IntermediatesError: always.
        """
        raise IntermediatesError(
            "forward_intermediates is not offered: an LLM's layers run over a row of tokens, not over a "
            "grid of patches. For the hidden states of every layer: rows = model.visual.rows(images), then "
            "rows.backbone.trunk_module(inputs_embeds=rows.embeddings, position_ids=rows.position_ids, "
            "output_hidden_states=True, **rows.trunk_inputs).hidden_states (docs/api.md)"
        )
