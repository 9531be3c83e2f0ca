"""The gradients of one step on the global batch: on one process or many, at once or in micro-batches.

First come the features, then the gradient of the gathered batch's loss at each of them, then the backward pass. With
micro-batches the first part runs without a graph (GradCache, arXiv 2101.06983); the gradients are still those of the
whole batch. Gradient checkpointing acts only where there is a graph, so only in the second pass. Every process computes
the whole loss on the gathered features, so its own rows' gradients are complete, and only the average of the
parameters' gradients crosses processes: DDP's with the last micro-batch, FSDP2's with each, because accumulating them
before would need memory for the gradients of all parameters.
"""

import contextlib
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vladva_clip.encoder.backbones.base import Visual
from vladva_training.config import Recipe
from vladva_training.processes.sharding import average_whole, is_sharded
from vladva_training.step.batches import Batch
from vladva_training.step.fused import FusedForward, FusedOutput, text_rows
from vladva_training.step.global_loss import Presence, contrastive_losses, place
from vladva_training.step.random_state import RandomState

Number = TypeVar("Number", float, torch.Tensor)


@dataclass(frozen=True)
class StepResult:
    """What a step computed, over all processes.

    losses: "loss" and its parts, global means. pairs: images. tokens: tokens of the trunk's rows, without padding.
    same_picture: rows that share their picture with another row. same_picture_elsewhere: rows of this process that
    share it only with rows of other processes. true_negatives: hard negatives of this process that are a caption of
    their picture.
    """

    losses: dict[str, float]
    pairs: int
    tokens: int
    same_picture: int = 0
    same_picture_elsewhere: int = 0
    true_negatives: int = 0

    @property
    def finite(self) -> bool:
        """Whether the loss is a number."""
        return bool(torch.tensor(self.losses["loss"]).isfinite())


@dataclass
class _Part:
    """A micro-batch between the two passes. `output` has a graph only if there is a single pass."""

    batch: Batch
    visual_tokens: Visual
    output: FusedOutput
    random_state: RandomState | None = None  # at the start of the second pass; None if there is only one
    image_leaf: torch.Tensor = field(init=False)
    text_leaf: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.image_leaf = self.output.image_features.detach().requires_grad_()
        self.text_leaf = self.output.text_features.detach().requires_grad_()


class GlobalStep:
    """Computes a step's gradients into `.grad`.

    Args:
        module: the fused forward, sharded (`vladva_training.processes.sharding`) or not, or DDP around it.
        recipe: its loss and batch sections decide.
    """

    def __init__(self, module: FusedForward | DistributedDataParallel, recipe: Recipe) -> None:
        self.module = module
        self.fused: FusedForward = module.module if isinstance(module, DistributedDataParallel) else module
        self.sharded = is_sharded(self.fused)
        self.loss, self.micro_size, self.visual_cache = recipe.loss, recipe.batch.micro_size, recipe.batch.visual_cache
        self.with_long = self.loss.ntp_weight > 0
        # a caption behind the image changes the shapes that dropout draws for, so with dropout both passes need it
        self.long_in_first_pass = self.with_long and _draws(self.fused)

    def __call__(self, batch: Batch) -> StepResult:
        """Add this process's share of the global batch to the gradients, which are averaged to the global ones."""
        ntp_tokens, tokens = self._count(batch)
        micro_batches = batch.by_length().micro_batches(self.micro_size)
        parts = [self._plain(batch)] if len(micro_batches) == 1 else [self._cached(micro) for micro in micro_batches]
        values, scale_gradient, counts = self._contrastive(parts)
        ntp_sum = self._backward(parts, scale_gradient, self.loss.ntp_weight / max(1, ntp_tokens))
        losses = {name: value.item() for name, value in values.items()}  # read last, so that the GPU need not wait
        if ntp_tokens:  # of all processes; without a long caption there is no such loss, rather than one of 0
            losses["ntp"] = _sum_over_processes(ntp_sum)[0].item() / ntp_tokens
        return StepResult({"loss": self._total(losses), **losses}, len(batch) * _world_size(), tokens, *counts.tolist())

    def _plain(self, batch: Batch) -> _Part:
        visual_tokens = self.fused.visual_tokens(batch.images)
        return _Part(batch, visual_tokens, self._run(self.module, batch, visual_tokens, self.with_long))

    @torch.no_grad()
    def _cached(self, batch: Batch) -> _Part:
        visual_tokens = self.fused.visual_tokens(batch.images)
        random_state = RandomState.now(self.fused.model.visual.backbone.device)
        output = self._run(self.fused, batch, visual_tokens, self.long_in_first_pass)
        kept = visual_tokens.to("cpu") if self.visual_cache == "cpu" else visual_tokens
        with torch.enable_grad():
            return _Part(batch, kept, output, random_state)

    def _contrastive(self, parts: list[_Part]) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Put the loss's gradients at this process's features into the parts' leaves.

        Returns:
            The losses, the gradient of the scales, and `Presence.counts`.
        """
        count, masks = self.loss.hard_negatives, self.loss.false_negatives
        presences = [Presence.of(part.batch, count, near=masks == "near", known=masks == "known") for part in parts]
        placed = [place(part.image_leaf, part.text_leaf, own) for part, own in zip(parts, presences, strict=True)]
        features = _gather(torch.cat(placed))
        packed = torch.cat([presence.pack() for presence in presences]).to(features.device)
        scales = parts[0].output.scales.detach().requires_grad_()
        presence = Presence.unpack(_gather(packed), count)
        losses = contrastive_losses(features, presence, scales, self.loss)
        self._total(losses).backward()
        return {name: value.detach() for name, value in losses.items()}, scales.grad, presence.counts(_own(packed))

    def _backward(self, parts: list[_Part], scale_gradient: torch.Tensor, ntp_factor: float) -> torch.Tensor:
        """Carry the features' gradients and next-token prediction back; return the summed next-token loss `(1,)`."""
        ntp_sums = []
        for part in parts:
            last = part is parts[-1]
            with contextlib.nullcontext() if last else self._no_sync():
                output = part.output if part.random_state is None else self._second_pass(part)
                surrogate = (output.image_features * part.image_leaf.grad).sum() + ntp_factor * output.ntp_sum
                surrogate = surrogate + self._text_surrogate(output, part)
                # the mean is taken over processes, and each has only its own rows' part of the global loss;
                # the scales' gradient is the same on all of them and counts once, with the last micro-batch
                scales = (output.scales * scale_gradient).sum() * last
                with self.fused.recomputing():
                    (surrogate * _world_size() + scales).backward()
            ntp_sums.append(output.ntp_sum.detach())
        if self.sharded:
            average_whole(self.fused.parameters())
        return torch.stack(ntp_sums).double().sum(0, keepdim=True)

    def _second_pass(self, part: _Part) -> FusedOutput:
        part.random_state.restore()
        visual_tokens = part.visual_tokens.to(part.image_leaf.device)
        return self._run(self.module, part.batch, visual_tokens, self.with_long)

    def _run(self, module: nn.Module, batch: Batch, visual_tokens: Visual, with_long: bool) -> FusedOutput:
        """Run the forward. Sharded layers must run equally often in all processes: a batch without texts gets one."""
        if not self.sharded or text_rows(batch):
            return module(batch, visual_tokens, with_long)
        stand_in = torch.zeros(1, dtype=torch.long)
        output = module(replace(batch, short=(stand_in, *batch.short[1:])), visual_tokens, with_long)
        return replace(output, text_features=output.text_features[:0])

    def _text_surrogate(self, output: FusedOutput, part: _Part) -> torch.Tensor | float:
        """Return what has the texts' gradient. Sharded layers must also run backward equally often, so it may be 0."""
        gradient = part.text_leaf.grad
        if gradient is None and not self.sharded:
            return 0.0
        return (output.text_features * (torch.zeros_like(part.text_leaf) if gradient is None else gradient)).sum()

    def _no_sync(self) -> contextlib.AbstractContextManager:
        return self.module.no_sync() if isinstance(self.module, DistributedDataParallel) else contextlib.nullcontext()

    def _count(self, batch: Batch) -> tuple[int, int]:
        """Labeled tokens and tokens of all rows, over all processes."""
        visual, text = self.fused.model.visual, self.fused.model.text
        ntp_tokens = batch.labeled_tokens if self.with_long else 0
        image_tokens = len(batch) * len(visual.prompts.image_row(visual.num_visual_tokens))
        text_tokens = sum(text.prompts.text_length(len(caption)) for caption in text_rows(batch))
        turns = sum(caption is not None for caption in batch.long) if self.with_long else 0
        image_tokens += ntp_tokens + turns * len(visual.prompts.second_turn)
        counts = _sum_over_processes(torch.tensor([ntp_tokens, image_tokens + text_tokens]))
        return int(counts[0]), int(counts[1])

    def _total(self, losses: dict[str, Number]) -> Number:
        """Weigh and add up those parts of the loss that there are."""
        weights = self.loss.weights
        return sum(weights[name] * value for name, value in losses.items())


def _draws(module: torch.nn.Module) -> bool:
    """Whether a forward in train mode draws random numbers, for the LoRA's dropout or the base's."""
    layers = any(isinstance(layer, torch.nn.Dropout) and layer.p > 0 for layer in module.modules())
    return layers or any(getattr(layer, "attention_dropout", 0.0) for layer in module.modules())


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _gather(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate `(b, ...)` of all processes in rank order: `(B, ...)`. Gradients reach this process's rows only."""
    if _world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(_world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[dist.get_rank()] = rows
    return torch.cat(parts)


def _own(rows: torch.Tensor) -> slice:
    """Where `_gather` puts this process's rows; all processes have the same number."""
    start = dist.get_rank() * len(rows) if _world_size() > 1 else 0
    return slice(start, start + len(rows))


def _sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    if _world_size() > 1:
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        values = values.to(device)
        dist.all_reduce(values)
    return values.cpu()
