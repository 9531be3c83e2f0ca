"""An export holds one shard at a time, whatever the size of the model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlavaForConditionalGeneration

from tests.support import adapters
from tests.support.models import tiny_bases

SHARD = 6  # MB

# the peak of what the process holds beside mapped files, above what it held after a first, small export
SCRIPT = """
import re, sys, threading, time
import vladva_clip

def held():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024  # MB

small, large, out, size = sys.argv[1:]
vladva_clip.export_model(small, out + "-small", "fp32")
before, peaks, done = held(), [], threading.Event()

def watch():
    while not done.is_set():
        peaks.append(held())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
vladva_clip.export_model(large, out, "bf16", max_shard_size=size)
done.set()
watcher.join()
print(len(peaks), max(peaks) - before)
"""


@pytest.mark.wide
def test_peak_memory_is_a_shard_not_the_model(bases, tmp_path):
    base, tokenizer = tmp_path / "base", tiny_bases.llava_tokenizer()
    config = tiny_bases.llava_config(tokenizer, width=512, depth=12)
    config["text_config"]["intermediate_size"] = 1536
    processor = json.loads((bases["llava"] / "preprocessor_config.json").read_text())
    tiny_bases.write_base(base, LlavaForConditionalGeneration, tokenizer, config, processor, tiny_bases.LLAVA_CHAT)
    (base / "processor_config.json").write_bytes((bases["llava"] / "processor_config.json").read_bytes())
    tiny_bases.rename_to_hub_llava(base)
    tiny_bases.split(base, 30)
    adapters.write_adapter(base, tmp_path / "adapter")
    model_size = sum(path.stat().st_size for path in base.glob("*.safetensors")) / 1e6
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, bases["llava"], tmp_path / "adapter", tmp_path / "out", f"{SHARD}MB"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    samples, peak = map(int, ran.stdout.split()[-2:])
    shards = list(Path(tmp_path / "out").glob("model-*.safetensors"))
    assert len(shards) > 10 and model_size > 150 and samples > 20
    # a shard, the float32 matrices under a merge, and the reader's own buffers
    assert peak < 5 * SHARD, f"{peak} MB beside the mapped base of {model_size:.0f} MB"
