"""Damaged pictures and strange texts by the thousand: each gives a finite feature or a ValueError, soon."""

import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vladva_clip

ROOT = Path(__file__).parents[2]
COUNT = 2000
SPECIAL = ("</s>", "<s>", "<unk>", "<image>", "<|image_pad|>", "<|im_start|>", "<|endoftext|>", "[INST]", "USER:")

pytestmark = pytest.mark.wide


def test_pictures():
    command = [sys.executable, "-m", "tests.support.mutated_pictures", str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert not report["wrong"], "\n".join(report["wrong"][:10])
    assert sum(report["outcomes"].values()) == COUNT
    assert min(report["outcomes"]["read"], report["outcomes"]["refused"]) > COUNT / 10  # the damage is real, not total
    assert report["longest"] < 10 and report["memory"] < 1 << 30
    assert report["warnings"] < COUNT / 20  # no storm: Pillow says of some damaged metadata what is wrong
    assert len(done.stderr.splitlines()) < COUNT / 100


TEXTS = st.one_of(
    st.text(st.characters(), max_size=200),  # surrogates and control characters too
    st.lists(st.sampled_from([*SPECIAL, *" a\0\u202e\U0001f600\u200d\n\ud800"]), max_size=40).map("".join),
    st.builds(lambda text, count: text * count, st.text(max_size=10), st.sampled_from([1, 10, 100, 1000, 10_000])),
)


@pytest.fixture(scope="module")
def tiny():
    return vladva_clip.create_model("vladva-tiny")[0], vladva_clip.get_tokenizer("vladva-tiny")


def test_texts(tiny):
    (model, tokenizer), image = tiny, tiny[0].visual.prompts.visual_slot
    seen = 0

    @settings(max_examples=COUNT, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(TEXTS)
    def try_one(text: str) -> None:
        nonlocal seen
        start = time.perf_counter()
        tokens = tokenizer([text])
        with torch.no_grad():
            features = model.encode_text(tokens, normalize=True)
        assert features.isfinite().all() and abs(features.norm() - 1) < 1e-4
        assert image not in tokens
        assert time.perf_counter() - start < 10
        seen += 1

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try_one()
    assert seen >= COUNT and len(said) < COUNT / 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
