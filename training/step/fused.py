"""One forward of everything that trains: image rows with long captions in a second turn, text rows, the logit scale.

It is an nn.Module, so that DDP sees all of it; nothing outside its `forward` trains.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from peft.helpers import disable_input_dtype_casting
from torch import nn

from vladva_clip.encoder.backbones.base import Visual
from vladva_clip.encoder.rows import caption_predictions
from vladva_clip.model import VladvaCLIP
from vladva_training.config import BatchSection, LossSection
from vladva_training.losses import CONTRASTIVE
from vladva_training.losses.next_token import next_token_loss
from vladva_training.step.batches import Batch, Captions

MAX_LOGIT_SCALE = math.log(100)  # CLIP (arXiv 2103.00020, section 2.5)


@dataclass
class FusedOutput:
    """The results of one forward, all tensors, as DDP needs.

    Attributes:
        image_features, text_features: `(b, D)` and `(n, D)`, normalized; the n texts are those of `text_rows(batch)`.
        ntp_sum: the summed next-token loss, a scalar.
        scales: `(2,)`, logit scale and bias.
    """

    image_features: torch.Tensor
    text_features: torch.Tensor
    ntp_sum: torch.Tensor
    scales: torch.Tensor


def text_rows(batch: Batch) -> list[torch.Tensor]:
    """Return the captions that get text rows, in order: short, other short, hard negatives; absent ones are skipped."""
    rows = [*batch.short, *batch.other_short, *(caption for captions in batch.hard_negatives for caption in captions)]
    return [row for row in rows if row is not None]


class FusedForward(nn.Module):
    """The recipe's forward over one micro-batch (VladVA, section 3.2.3).

    Attributes: `model`; `logit_bias`, for a loss with a bias the model's own (created if missing), otherwise a constant
    0.

    Raises:
        ValueError: next-token prediction with a model that can't predict tokens (`VladvaCLIP.require_generation`).
    """

    def __init__(self, model: VladvaCLIP, loss: LossSection, batch: BatchSection) -> None:
        super().__init__()
        if loss.ntp_weight > 0:
            model.require_generation()
        self.model = model
        self.ntp_chunk = loss.ntp_chunk
        self.logit_bias = _logit_bias(model, CONTRASTIVE[loss.contrastive].bias_start)
        self.autocast_dtype = torch.bfloat16 if batch.autocast == "bf16" else None

    def forward(self, batch: Batch, visual_tokens: Visual, with_long: bool = True) -> FusedOutput:
        """Embed a micro-batch and score its long captions.

        Args:
            batch: b images with their captions.
            visual_tokens: of the b images, from `visual_tokens`.
            with_long: put the long captions after the images; if False, `ntp_sum` is 0.
        """
        with self._autocast():
            long = batch.long if with_long else (None,) * len(batch)
            image_features, ntp_sum = self._image_side(long, visual_tokens)
            text_features = self._text_side(text_rows(batch), image_features)
        scales = torch.stack([self.model.logit_scale, self.logit_bias])
        return FusedOutput(image_features, text_features, ntp_sum + self._nothing(), scales)

    @torch.no_grad()
    def visual_tokens(self, images: torch.Tensor) -> Visual:
        """Run the frozen vision tower and projector on `(b, 3, H, W)` images, without a graph."""
        visual = self.model.visual
        with self._autocast():
            return visual.backbone.visual_tokens(visual.ready(images))

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Limit the factor to 100, as CLIP does; called after each optimizer step."""
        self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)

    def _image_side(self, long: Captions, visual_tokens: Visual) -> tuple[torch.Tensor, torch.Tensor]:
        visual = self.model.visual
        rows = visual.continued_rows(visual_tokens, long)
        hidden_states = rows.hidden_states()
        return _normalized(rows.pool(hidden_states)), self._next_token_sum(hidden_states, visual.answer_index, long)

    def _next_token_sum(self, hidden_states: torch.Tensor, first: int, long: Captions) -> torch.Tensor:
        """Sum the loss of the long captions; 0 if there are none."""
        states, labels = caption_predictions(hidden_states, long, first)
        if not len(labels):
            return hidden_states.new_zeros((), dtype=torch.float32)
        backbone = self.model.visual.backbone
        frozen_head = not any(p.requires_grad for p in backbone.lvlm.get_output_embeddings().parameters())
        return next_token_loss(states, labels, backbone.head, self.ntp_chunk, frozen_head)

    def _text_side(self, captions: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
        text = self.model.text
        if not captions:
            return like.new_zeros((0, text.output_dim))
        return _normalized(text.rows(captions).features())

    def _nothing(self) -> torch.Tensor:
        """Return a zero that depends on every parameter that a micro-batch may not use: DDP waits for each gradient.

        Without short captions that is the text prompt; without long ones the head, which trains in full tuning.
        """
        head = self.model.visual.backbone.lvlm.get_output_embeddings()
        left_out = [self.model.text.soft_prompt.weight, *head.parameters()]
        return sum(weight.flatten()[:1].sum() * 0.0 for weight in left_out if weight.requires_grad)

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        """Compute matrix products in the recipe's dtype."""
        if self.autocast_dtype is None:
            yield
            return
        device = self.model.logit_scale.device.type
        with torch.autocast(device, self.autocast_dtype), self.recomputing():
            yield

    def recomputing(self) -> contextlib.AbstractContextManager:
        """Return the context for a backward pass, in which checkpointed layers recompute exactly the same values.

        Checkpointing restores autocast itself. PEFT's own cast of LoRA's inputs, which autocast would undo, is off in
        the forward and must be off here too: for another dtype, dropout draws another mask.
        """
        return disable_input_dtype_casting(self.model, active=self.autocast_dtype is not None)


def _logit_bias(model: VladvaCLIP, start: float | None) -> nn.Parameter:
    learns, device = start is not None, model.logit_scale.device
    if learns and model.logit_bias is None:
        model.logit_bias = nn.Parameter(torch.tensor(start, device=device))
    if model.logit_bias is not None:
        model.logit_bias.requires_grad_(learns)
    return model.logit_bias if learns else nn.Parameter(torch.tensor(0.0, device=device), requires_grad=False)


def _normalized(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(features, dim=-1)
