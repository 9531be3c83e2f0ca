"""Saves and restores the state of torch's random generators."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RandomState:
    """The state of torch's generators: the CPU's, and a CUDA device's if one is used."""

    cpu: torch.Tensor
    cuda: torch.Tensor | None
    device: torch.device

    @classmethod
    def now(cls, device: torch.device) -> "RandomState":
        """Read the generators used when computing on `device`."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), cuda, device)

    def restore(self) -> None:
        """Restore the generators."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)
