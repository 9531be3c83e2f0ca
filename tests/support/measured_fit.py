"""Peak memory of a process that embeds a batch: `python -m tests.support.measured_fit [MODEL [PRECISION]]`, on the CPU.

The figure is the largest resident set while it embeds, libraries and weights included. While files of another dtype
are loaded they are resident as well, but as mapped files, which the system drops when it needs the room.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import re, sys, threading, time
import torch
import vladva_clip

def held():
    kilobytes = re.findall(r"Rss(?:Anon|File):\\s+(\\d+)", open("/proc/self/status").read())
    return 1024 * sum(map(int, kilobytes))

name, precision, images, texts = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model, _ = vladva_clip.create_model(name, precision=precision)
tokens = vladva_clip.get_tokenizer(name)(["a red circle left of a blue square on the green dog"] * texts)
pictures = torch.zeros(images, 3, *model.visual.image_size)
peak, done = [held()], threading.Event()

def watch():
    while not done.is_set():
        peak.append(held())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
with torch.no_grad():
    model.encode_image(pictures)
    model.encode_text(tokens)
done.set()
watcher.join()
print("peak", max(peak))
"""


def peak(name: str, precision: str, images: int = 64, texts: int = 64) -> int:
    """Return the bytes, from a process of its own."""
    command = [sys.executable, "-c", SCRIPT, name, precision, str(images), str(texts)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return int(re.findall(r"peak (\d+)", ran.stdout)[-1])


if __name__ == "__main__":
    name, precision = (sys.argv[1:] + ["vladva-tiny", "fp32"][len(sys.argv) - 1 :])[:2]
    print(f"{name} {precision} cpu: {peak(name, precision):,} bytes at the peak")
