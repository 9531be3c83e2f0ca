"""The processes of a run, through Accelerate: a single one, or as many as torchrun started."""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from vladva_clip.interface import extras
from vladva_training.processes.errors import RunError

T = TypeVar("T")
TIMEOUT = timedelta(hours=2)
"""How long the processes wait for the first one, the only one that evaluates and writes."""


@dataclass(frozen=True)
class Processes:
    """This process and the others of its run.

    Attributes: `device` (this process's), `rank`, `world_size`.
    """

    accelerator: Any
    device: torch.device
    rank: int
    world_size: int

    @classmethod
    def start(cls, device: torch.device | None = None) -> "Processes":
        """Join the run's processes, with nccl on CUDA and gloo on a CPU; without torchrun there is only this one.

        Args:
            device: from `devices.resolve`; None for CUDA if available, else the CPU.

        Raises:
            ExtraError: accelerate is not installed.
        """
        extras.require("accelerate", purpose="the recipe")
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

        ddp = DistributedDataParallelKwargs(broadcast_buffers=False)  # frozen, and the same everywhere
        accelerator = Accelerator(
            # otherwise Accelerate does not find torchrun's processes on a CPU
            cpu=not torch.cuda.is_available() if device is None else device.type == "cpu",
            mixed_precision="no",  # the fused forward has its own autocast
            kwargs_handlers=[ddp, InitProcessGroupKwargs(timeout=TIMEOUT)],
        )
        if device is None or device.index is None:  # each of torchrun's processes has its own GPU
            device = torch.device("cpu") if accelerator.device.type == "cpu" else accelerator.device
        return cls(accelerator, device, accelerator.process_index, accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that evaluates and writes."""
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """Return the number of images of a global batch that this process computes.

        Raises:
            ValueError: the batch can't be divided evenly.
        """
        if batch_size % self.world_size:
            lower = batch_size // self.world_size * self.world_size
            raise ValueError(
                f"batch.size is {batch_size}, which {self.world_size} processes can't share evenly; use "
                + " or ".join(str(size) for size in (lower, lower + self.world_size) if size)
            )
        return batch_size // self.world_size

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap a module in DDP if there are several processes; its weights become those of rank 0."""
        if self.world_size == 1:
            return module
        with warnings.catch_warnings():
            # torch 2.15 renamed it; older releases don't know the new name
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return self.accelerator.prepare_model(module, device_placement=False)

    def largest(self, value: int) -> int:
        """Return the largest of the processes' values, the same in all of them."""
        if self.world_size == 1:
            return value
        tensor = torch.tensor(value, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def collect(self, items: list) -> list:
        """Return the processes' lists as one, in rank order."""
        if self.world_size == 1:
            return items
        parts: list[list] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def from_main(self, work: Callable[[], T]) -> T:
        """Run `work` in the first process, and return its result in all of them; it must be picklable.

        Raises:
            Exception: in the first process, whatever `work` raised.
            RunError: in the others if it failed, so that none waits forever.
        """
        result = self.on_main(work)
        if self.world_size == 1:
            return result
        sent = [result]
        dist.broadcast_object_list(sent, src=0, device=self.device)
        return sent[0]

    def on_main(self, work: Callable[[], T]) -> T | None:
        """Run `work` in the first process while the others wait. Return its result there, and None in the others.

        Raises:
            Exception: in the first process, whatever `work` raised.
            RunError: in the others if it failed, so that none waits forever.
        """
        result, failure = None, None
        if self.is_main:
            try:
                result = work()
            except Exception as error:
                failure = error
        if failure is not None:
            with contextlib.suppress(RuntimeError):  # the others may be gone, and the failure matters more
                self.largest(1)
            raise failure
        if self.largest(0):
            raise RunError("process 0 can't continue; its own message says why")
        return result

    def wait(self) -> None:
        """Return when all processes have called this."""
        self.accelerator.wait_for_everyone()

    def end(self) -> None:
        """Leave the run's processes, once all of them have called this."""
        if self.world_size > 1:
            self.wait()  # one that leaves while another still talks to it may make that one abort
            dist.destroy_process_group()
