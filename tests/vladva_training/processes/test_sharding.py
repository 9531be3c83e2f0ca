"""Sharded and whole parameters of two gloo processes: averages, parts and whole tensors."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from vladva_training.processes.sharding import average_whole, gathered, own_part, put, shard

ROWS = 5  # which two processes can't share evenly


class Scaled(nn.Module):
    """A matrix, whose rows are divided, and scalars, which are whole everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.arange(3.0 * ROWS).reshape(ROWS, 3))
        self.scale, self.idle = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(2.0))
        self.row = nn.Parameter(torch.tensor([[7.0, 8.0]]))  # fewer rows than processes


def of_process(rank: int, directory: Path) -> None:
    dist.init_process_group("gloo", store=dist.FileStore(str(directory / "store"), 2), rank=rank, world_size=2)
    try:
        module = shard(Scaled(), [], torch.device("cpu"))
        module.scale.grad = torch.tensor([1.0, 4.0][rank])
        own = torch.full_like(own_part(module.matrix), 10.0 + rank)
        module.matrix.grad = DTensor.from_local(
            own, module.matrix.device_mesh, module.matrix.placements, run_check=False, shape=(ROWS, 3), stride=(3, 1)
        )
        average_whole(module.parameters())
        found = {"scale": module.scale.grad, "idle": module.idle.grad, "matrix": gathered(module.matrix.grad)}
        for name in ("matrix", "row"):
            whole = -gathered(getattr(module, name))
            put(whole, getattr(module, name))
            found[f"put {name}"] = gathered(getattr(module, name))
        found["held"] = [len(own_part(getattr(module, name))) for name in ("matrix", "row")]
        found["kept"] = gathered(module.matrix, keep=rank == 0)
        torch.save(found, directory / f"{rank}.pt")
        dist.barrier()  # one that leaves while the other still talks to it makes that one abort
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    directory = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(of_process, (directory,), nprocs=2)
    return [torch.load(directory / f"{rank}.pt") for rank in range(2)]


def test_whole_gradients_are_averaged_and_sharded_ones_are_left_alone(found):
    for own in found:
        assert own["scale"] == 2.5 and own["idle"] is None
        assert own["matrix"][:, 0].tolist() == [10, 10, 10, 11, 11]


def test_whole_tensors_go_into_uneven_parts_and_come_back(found):
    assert [own["held"] for own in found] == [[3, 1], [2, 0]]
    for own in found:
        assert torch.equal(own["put matrix"], -torch.arange(3.0 * ROWS).reshape(ROWS, 3))
        assert own["put row"].tolist() == [[-7, -8]]
    assert found[0]["kept"] is not None and found[1]["kept"] is None
