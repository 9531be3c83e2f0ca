"""The gradients of the recipe's step, computed as comparable projects do; `training_step` compares the two.

GradCache (arXiv 2101.06983) with activation checkpointing inside its micro-batches; images and texts run through the
whole model in both passes, vision tower included. Then a separate forward for next-token prediction, with the logits of
every position and transformers' own loss.

Some projects also use padding masks (unnecessary here, because attention is causal), apply the head to the contrastive
rows, or keep every layer's hidden states. None of that is done here, so that only the schemes are compared.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from vladva_clip import VladvaCLIP
from vladva_clip.interface import precision_words
from vladva_training.step.batches import Batch

IGNORE_INDEX = -100  # transformers' own


class PeerStep:
    """Adds a step's gradients of symmetric InfoNCE and next-token prediction to `.grad`, in one process.

    Args:
        model: in train mode, without dropout; the parameters to train require gradients.
        micro_size: number of images whose activations exist at a time.
        autocast: precision of the matrix products; "fp32" leaves them in the weights' dtype.
    """

    def __init__(self, model: VladvaCLIP, micro_size: int, autocast: str) -> None:
        self.model, self.micro_size = model, micro_size
        self.dtype = getattr(torch, precision_words.DTYPES[autocast])

    def __call__(self, batch: Batch) -> dict[str, float]:
        """Return the losses. Every image of the batch needs a short and a long caption."""
        micro_batches = batch.micro_batches(self.micro_size)
        with self._checkpointing():
            contrastive = self._contrastive(micro_batches)
            ntp = self._next_token(micro_batches, batch.labeled_tokens)
        return {"loss": contrastive + ntp, "contrastive": contrastive, "ntp": ntp}

    def _contrastive(self, micro_batches: list[Batch]) -> float:
        """GradCache: features without a graph, the loss's gradient at them, then each micro-batch with one."""
        with torch.no_grad():
            images = torch.cat([self._image_features(micro) for micro in micro_batches]).requires_grad_()
            texts = torch.cat([self._text_features(micro) for micro in micro_batches]).requires_grad_()
        loss = self._info_nce(images, texts)
        loss.backward()
        gradients = (leaf.grad.split(self.micro_size) for leaf in (images, texts))
        for micro, image_gradient, text_gradient in zip(micro_batches, *gradients, strict=True):
            (self._image_features(micro) * image_gradient).sum().backward()
            (self._text_features(micro) * text_gradient).sum().backward()
        return loss.item()

    def _next_token(self, micro_batches: list[Batch], labeled_tokens: int) -> float:
        total = 0.0
        for micro in micro_batches:
            loss = self._lvlm_loss(micro, labeled_tokens)
            loss.backward()
            total += loss.item()
        return total

    def _info_nce(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        logits = self.model.logit_scale.exp() * images @ texts.T
        labels = torch.arange(len(logits), device=logits.device)
        return F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)

    def _image_features(self, batch: Batch) -> torch.Tensor:
        with self._autocast():
            return F.normalize(self.model.visual(batch.images), dim=-1)

    def _text_features(self, batch: Batch) -> torch.Tensor:
        with self._autocast():
            return F.normalize(self.model.text.rows(batch.short).features(), dim=-1)

    def _lvlm_loss(self, batch: Batch, labeled_tokens: int) -> torch.Tensor:
        """Compute transformers' loss of the long captions over `(b, T, V)` logits, as a part of the batch's mean."""
        visual, backbone = self.model.visual, self.model.visual.backbone
        with self._autocast():
            rows = visual.continued_rows(backbone.visual_tokens(visual.ready(batch.images)), batch.long)
            return backbone.lvlm.loss_function(
                logits=backbone.head(rows.hidden_states()),
                labels=_labels(batch, rows.layout.input_ids, visual.answer_index + 1),
                vocab_size=backbone.vocab_size,
                num_items_in_batch=labeled_tokens,
            )

    @contextlib.contextmanager
    def _checkpointing(self) -> Iterator[None]:
        self.model.set_grad_checkpointing()
        try:
            yield
        finally:
            self.model.set_grad_checkpointing(False)

    def _autocast(self) -> contextlib.AbstractContextManager:
        device = self.model.logit_scale.device.type
        return torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32)


def _labels(batch: Batch, input_ids: torch.Tensor, start: int) -> torch.Tensor:
    """Return `(b, T)` int64 labels for the long captions from column `start` on; transformers shifts them itself."""
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    for row, caption in zip(labels, batch.long, strict=True):
        row[start : start + len(caption)] = caption
    return labels
