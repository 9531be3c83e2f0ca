import os
import pickle

import torch

from vladva_clip.workers.shared_memory import SHARED_BYTES
from vladva_training.data.packing import Packed, pack, unpack


def test_everything_comes_back():
    large = torch.randn(SHARED_BYTES // 4)
    item = {"large": large, "rows": [torch.arange(3), None, torch.tensor(1.5)], "half": torch.ones(2).bfloat16()}
    packed = pack(item)
    assert len(packed.tensors) == 1 and packed.tensors[0] is large
    back = unpack(pickle.loads(pickle.dumps(packed)))
    assert torch.equal(back["large"], large) and back["rows"][1] is None
    assert torch.equal(back["rows"][0], torch.arange(3)) and back["rows"][2] == 1.5
    assert back["half"].dtype == torch.bfloat16 and back["rows"][0].dtype == torch.int64


def test_small_tensors_take_no_file_descriptor():
    rows = [torch.arange(20) for _ in range(300)]
    loader = torch.utils.data.DataLoader(
        [0, 1, 2, 3], num_workers=1, collate_fn=lambda _: pack(rows), prefetch_factor=2
    )
    before = len(os.listdir("/proc/self/fd"))
    batches = list(loader)
    assert len(os.listdir("/proc/self/fd")) - before < 100
    assert all(len(unpack(batch)) == 300 for batch in batches) and isinstance(batches[0], Packed)
