"""One forward of everything that trains: image rows with their long captions behind them, text rows, logit scale.

It is an nn.Module so that DDP sees all of it; nothing trains outside its `forward`.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from peft.helpers import disable_input_dtype_casting
from torch import nn

from vladva_clip.encoder.pooling import summary_features
from vladva_clip.encoder.prompts import fill
from vladva_clip.encoder.towers import embed_with_soft_prompt, run_trunk
from vladva_clip.model import VladvaCLIP
from vladva_training.config import BatchSection, LossSection
from vladva_training.losses import CONTRASTIVE
from vladva_training.losses.next_token import next_token_loss
from vladva_training.step.batches import Batch

MAX_LOGIT_SCALE = math.log(100)  # CLIP (arXiv 2103.00020, section 2.5)


@dataclass
class FusedOutput:
    """What one forward yields; a tensor each, for DDP.

    image_features `(b, D)` and text_features `(n, D)`: normalised, the rows of `text_rows(batch)`. ntp_sum: summed
    next-token loss. scales: `(2,)`, logit scale and bias.
    """

    image_features: torch.Tensor
    text_features: torch.Tensor
    ntp_sum: torch.Tensor
    scales: torch.Tensor


def text_rows(batch: Batch) -> list[torch.Tensor]:
    """All captions that are text rows of their own, in order: short, other short, hard negatives; none is None."""
    rows = [*batch.short, *batch.other_short, *(caption for captions in batch.hard_negatives for caption in captions)]
    return [row for row in rows if row is not None]


class FusedForward(nn.Module):
    """The recipe's forward over one micro-batch (VladVA, section 3.3).

    Attributes: `model`; `logit_bias`, for a loss with a bias the model's own (added where it has none), for the others
    a constant 0.
    """

    def __init__(self, model: VladvaCLIP, loss: LossSection, batch: BatchSection) -> None:
        super().__init__()
        self.model = model
        self.ntp_chunk = loss.ntp_chunk
        self.logit_bias = _logit_bias(model, CONTRASTIVE[loss.contrastive].bias_start)
        self.autocast_dtype = torch.bfloat16 if batch.autocast == "bf16" else None

    def forward(self, batch: Batch, visual_tokens: torch.Tensor, with_long: bool = True) -> FusedOutput:
        """Embed a micro-batch and score its long captions.

        Args:
            batch: b images with their captions.
            visual_tokens: `(b, N, D)`, from `visual_tokens`.
            with_long: put the long captions behind the images; without, `ntp_sum` is 0.
        """
        with self._autocast():
            long = batch.long if with_long else (None,) * len(batch)
            image_features, ntp_sum = self._image_side(long, visual_tokens)
            text_features = self._text_side(text_rows(batch), image_features)
        scales = torch.stack([self.model.logit_scale, self.logit_bias])
        return FusedOutput(image_features, text_features, ntp_sum + self._nothing(), scales)

    @torch.no_grad()
    def visual_tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Run the frozen vision tower and projector: `(b, 3, H, W)` -> `(b, N, D)`, without a graph."""
        visual = self.model.visual
        with self._autocast():
            return visual.backbone.visual_tokens(visual.ready(images))

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep the factor at 100 or less, as CLIP does; called after each optimizer step."""
        self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)

    def _image_side(self, long: tuple, visual_tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        visual = self.model.visual
        backbone = visual.backbone
        layout = visual.prompts.continued_batch(long, visual.num_visual_tokens).to(backbone.device)
        embeddings = embed_with_soft_prompt(backbone, layout, visual.soft_prompt)
        embeddings = fill(embeddings, layout.visual_mask, visual_tokens.flatten(0, 1), "visual tokens")
        positions = backbone.position_ids(embeddings.shape[1], layout.visual_start, visual.image_size[0])
        hidden_states = backbone.trunk(embeddings, positions)
        features = _normalized(summary_features(hidden_states, layout.summary_index))
        summary = len(visual.prompts.image_row(visual.num_visual_tokens)) - 1  # as in each row; no read from a GPU
        return features, self._next_token_sum(hidden_states, summary, long)

    def _next_token_sum(self, hidden_states: torch.Tensor, summary: int, long: tuple) -> torch.Tensor:
        """Sum the loss of the long captions: the summary token predicts the first id, each id the next."""
        captions = [(row, caption) for row, caption in enumerate(long) if caption is not None]
        if not captions:
            return hidden_states.new_zeros((), dtype=torch.float32)
        labels = torch.cat([caption for _, caption in captions]).to(hidden_states.device)
        rows = torch.cat([torch.full((len(caption),), row) for row, caption in captions])
        columns = torch.cat([torch.arange(len(caption)) for _, caption in captions]) + summary
        labelled = hidden_states[rows.to(hidden_states.device), columns.to(hidden_states.device)]  # (K, D)
        backbone = self.model.visual.backbone
        frozen_head = not any(p.requires_grad for p in backbone.lvlm.get_output_embeddings().parameters())
        return next_token_loss(labelled, labels, backbone.head, self.ntp_chunk, frozen_head)

    def _text_side(self, captions: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
        text = self.model.text
        if not captions:
            return like.new_zeros((0, text.output_dim))
        layout = text.prompts.text_batch(captions).to(text.backbone.device)
        return _normalized(
            run_trunk(text.backbone, embed_with_soft_prompt(text.backbone, layout, text.soft_prompt), layout)
        )

    def _nothing(self) -> torch.Tensor:
        """Zero, but reached by every parameter that a micro-batch may leave out (DDP waits for each gradient).

        Without a short caption the text prompt is left out, without a long one the head, which trains in full tuning.
        """
        head = self.model.visual.backbone.lvlm.get_output_embeddings()
        left_out = [self.model.text.soft_prompt.weight, *head.parameters()]
        return sum(weight.flatten()[0] * 0.0 for weight in left_out if weight.requires_grad)

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        """Take products in the recipe's dtype."""
        if self.autocast_dtype is None:
            yield
            return
        device = self.model.logit_scale.device.type
        with torch.autocast(device, self.autocast_dtype), self.recomputing():
            yield

    def recomputing(self) -> contextlib.AbstractContextManager:
        """Return what a backward pass runs in, so that checkpointed layers compute again what they computed.

        Checkpointing brings autocast back itself. PEFT's own cast of LoRA's inputs, which autocast would undo, is off
        in the forward and has to be off here too: dropout draws another mask for another dtype.
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
