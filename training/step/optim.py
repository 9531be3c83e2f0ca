"""AdamW with its parameter groups, its schedule, and an exponential moving average of the trained parameters."""

import contextlib
import math
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn

from vladva_training.config import OptimSection
from vladva_training.processes.sharding import is_sharded, own_part, put


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def build_optimizer(module: nn.Module, section: OptimSection) -> torch.optim.AdamW:
    """Build AdamW over what trains; scales, biases, norms and soft prompts get no weight decay."""
    groups: dict[str, list[nn.Parameter]] = {"matrices": [], "vectors": [], "soft_prompts": []}
    for name, parameter in trainable(module).items():
        kind = "soft_prompts" if "soft_prompt" in name else "matrices" if parameter.ndim >= 2 else "vectors"
        groups[kind].append(parameter)
    rates = {"soft_prompts": section.learning_rate * section.soft_prompt_rate}
    decays = {"matrices": section.weight_decay}
    return torch.optim.AdamW(
        [
            {"params": items, "lr": rates.get(kind, section.learning_rate), "weight_decay": decays.get(kind, 0.0)}
            for kind, items in groups.items()
            if items
        ],
        betas=(section.beta1, section.beta2),
    )


def build_schedule(
    optimizer: torch.optim.Optimizer, section: OptimSection, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Warm up linearly, then follow a cosine that reaches `final_share` at the end of the last step."""
    warmup = round(section.warmup_share * total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return section.final_share + (1 - section.final_share) * 0.5 * (1 + math.cos(math.pi * progress))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@torch.no_grad()
def clip_gradients(module: nn.Module, max_norm: float) -> torch.Tensor:
    """Scale the gradients of what trains so that their global norm is at most `max_norm`, as torch's function does.

    Returns:
        The norm before, a scalar; the same in all processes.
    """
    parameters = [parameter for parameter in trainable(module).values() if parameter.grad is not None]
    if not is_sharded(module):
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    norm = _sharded_norm([parameter.grad for parameter in parameters])
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        own_part(parameter.grad).mul_(factor)
    return norm


def _sharded_norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Return the norm of all elements: shards are added up over the processes, what is whole counts once."""
    squares = {True: [], False: []}
    for gradient in gradients:
        part = own_part(gradient)
        squares[part is gradient].append(torch.linalg.vector_norm(part).square())
    total = torch.stack(squares[False]).sum()
    dist.all_reduce(total)
    return torch.stack([total, *squares[True]]).sum().sqrt()


class EMA:
    """An exponential moving average of the trainable parameters, kept beside them.

    The decay grows towards `decay` as `(1 + n) / (10 + n)` over n updates, so that the start is soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.updates = module, decay, 0
        self.averages = {name: parameter.detach().clone() for name, parameter in trainable(module).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the current parameters."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in trainable(self.module).items():
            self.averages[name].lerp_(parameter.detach(), 1 - decay)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averages into the module within this block."""
        own = {name: parameter.detach().clone() for name, parameter in trainable(self.module).items()}
        try:
            self._write(self.averages)
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, parameter in trainable(self.module).items():
            parameter.copy_(tensors[name])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the averages and the number of updates, all tensors."""
        return {**self.averages, "updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Load a stored average.

        Raises:
            ValueError: its names or shapes are not those of the trainable parameters.
        """
        state = dict(state)
        self.updates = int(state.pop("updates"))
        if set(state) != set(self.averages):
            raise ValueError(
                f"the stored average has {len(state)} tensors, expected one for each of {len(self.averages)} parameters"
            )
        for name, tensor in state.items():
            found, expected = tuple(tensor.shape), tuple(self.averages[name].shape)
            if found != expected:
                raise ValueError(f"the stored average of {name} has the shape {found}, the parameter has {expected}")
            put(tensor, self.averages[name])
