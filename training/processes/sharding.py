"""Weights that are spread over a run's processes (FSDP2), for training what one GPU can't hold.

What trains is sharded along its first dimension: each layer is a unit that is gathered when it runs, and a root unit
has the rest (embedding, final norm, head, soft prompts). Frozen weights and scalars are whole in every process. torch's
own `fully_shard` is called: Accelerate's `prepare` shards on accelerators only, and can't leave out single parameters,
although `fully_shard` refuses scalars.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

T = TypeVar("T")
SUM_ONLY = "set_force_sum_reduction_for_comms"


def require_torch(device: torch.device) -> None:
    """Check that torch can shard as this module does.

    Raises:
        ValueError: a torch that is too old; says what it lacks.
    """
    lacks = [] if "ignored_params" in inspect.signature(fully_shard).parameters else ["fully_shard's ignored_params"]
    if device.type == "cpu" and not hasattr(FSDPModule, SUM_ONLY):
        lacks.append(f"FSDPModule.{SUM_ONLY}, which a CPU needs")
    if lacks:
        raise ValueError(
            f"torch {torch.__version__} is too old for model.train=full on several processes, which spreads weights "
            f"over them: it lacks {' and '.join(lacks)}; upgrade torch, or train on one process"
        )


def shard(root: nn.Module, layers: Iterable[nn.Module], device: torch.device) -> nn.Module:
    """Spread what trains in a module over all processes, in place; the weights become those of rank 0.

    Args:
        root: on a CPU or on `device`; ends on `device`. Parameters may only be used while its forward runs, or in
            `gathered_call`. Every process must run each layer equally often.
        layers: modules in it, each of which is gathered by itself.
        device: of this process.

    Returns:
        `root`, whose trained parameters (of one dimension or more) are now DTensors.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    whole = {parameter for parameter in root.parameters() if not _is_spread(parameter)}
    with torch.no_grad():
        _take_from_rank_0(root, device)
        for parameter in whole:  # fully_shard moves all others
            parameter.data = parameter.data.to(device)
    for module in (*layers, root):
        fully_shard(module, mesh=mesh, ignored_params=whole)
    if device.type == "cpu":  # gloo's averages are wrong in some releases (pytorch/pytorch#162338)
        for module in _units(root):
            getattr(module, SUM_ONLY)(True)
    root.gathered_call = lambda work: work()
    register_fsdp_forward_method(root, "gathered_call")
    return root


def is_sharded(module: nn.Module) -> bool:
    """Return whether a module went through `shard`."""
    return isinstance(module, FSDPModule)


def gathered_call(root: nn.Module, work: Callable[[], T]) -> T:
    """Run `work` with the root unit's parameters whole, and each layer's while it runs; return its result.

    All processes must call it with work that runs the same layers. For a module that is not sharded it is `work()`.
    """
    if not is_sharded(root):
        return work()
    result, failure = root.gathered_call(lambda: _caught(work))  # after an error too, the root's forward has to end
    for module in _units(root):
        module.reshard()
    if failure is not None:
        raise failure
    return result


def _caught(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:
        return None, error


def gathered(tensor: torch.Tensor, keep: bool = True) -> torch.Tensor | None:
    """Return a tensor on the CPU, gathered from all processes if it is sharded; they must all call this.

    Args:
        tensor: sharded or not.
        keep: False returns None: this process only contributes.
    """
    found = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found.detach().cpu().contiguous() if keep else None


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor; all of it if it isn't sharded. It shares the tensor's memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor sharded as `other` of the same shape is; every process must have the whole one."""
    if not isinstance(other, DTensor):
        return tensor
    start, rows = 0, -(-len(tensor) // other.device_mesh.size())
    start = min(len(tensor), other.device_mesh.get_local_rank() * rows)
    part = tensor[start : start + rows].to(other.device, copy=True)
    return DTensor.from_local(
        part, other.device_mesh, other.placements, run_check=False, shape=other.shape, stride=other.stride()
    )


@torch.no_grad()
def put(tensor: torch.Tensor, target: torch.Tensor) -> None:
    """Write a whole tensor into one of the same shape, which may be sharded; every process must have the whole one."""
    own_part(target).copy_(own_part(like(tensor, target)))


@torch.no_grad()
def average_whole(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of the parameters that are whole in every process; FSDP2 averages those of the others."""
    for parameter in parameters:
        if parameter.grad is not None and not isinstance(parameter, DTensor):
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def _is_spread(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.ndim > 0


def _units(root: nn.Module) -> Iterator[nn.Module]:
    return (module for module in root.modules() if isinstance(module, FSDPModule))


def _take_from_rank_0(root: nn.Module, device: torch.device) -> None:
    """Copy rank 0's parameters, one at a time."""
    for parameter in root.parameters():
        sent = parameter.detach().to(device).contiguous()
        dist.broadcast(sent, 0)
        parameter.copy_(sent)
