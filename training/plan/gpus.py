"""GPUs that a run can be planned for without having one: memory and peak.

Peaks are those of NVIDIA's data sheets and white paper, as public projects and sellers quote them: the documents
themselves were not opened. Memory is what public listings of nvidia-smi show.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vladva_clip.storage import json_files
from vladva_clip.storage.config import nearest

TABLE = Path(__file__).with_name("gpus.json")


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        key: how `--on` calls it.
        name: its maker's name.
        memory_gb: as its maker states it.
        total_mib: what nvidia-smi counts, in MiB: a little less, where error correction takes its part. torch counts up
            to 2% less still (23.65 GiB of an RTX 4090's 23.99).
        bf16_tflops: peak of dense matrix products in bfloat16, accumulated in float32, in TFLOP/s.
        source: of the peak.
    """

    key: str
    name: str
    memory_gb: float
    total_mib: int
    bf16_tflops: float
    source: str

    @property
    def size(self) -> int:
        """Memory in bytes."""
        return self.total_mib * 2**20

    def hours(self, operations: float, utilization: float) -> float:
        """Return the hours that so many floating-point operations take at a share of the peak."""
        return operations / (self.bf16_tflops * 1e12 * utilization) / 3600


@cache
def all_gpus() -> dict[str, Gpu]:
    """Return the GPUs of `gpus.json` by key."""
    return {key: Gpu(key, **values) for key, values in json_files.read(TABLE).items()}


def find_gpu(name: str) -> Gpu:
    """Return the GPU that a name means; case, spaces, hyphens and underscores don't matter.

    Raises:
        ValueError: not in the table; names the nearest, and all.
    """
    key = "".join(letter for letter in name.lower() if letter.isalnum())
    if key not in all_gpus():
        raise ValueError(
            f"--on is {name!r}, {nearest(key, all_gpus())}; known GPUs: {', '.join(all_gpus())}. For another one, "
            "compare the prediction with its memory and divide the operations by its speed"
        )
    return all_gpus()[key]
