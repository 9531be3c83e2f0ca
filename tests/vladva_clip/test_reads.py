"""How often a load opens the files of a base and of an adapter: our own code once each, libraries as listed here.

The loads run in another process (this file, run as a script), under an audit hook that sees what Python opens and, on
Linux, under inotify, which also sees what native code opens.
"""

import ctypes
import json
import os
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

OURS = "vladva_clip"
BASE = {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}  # for the tokenizer
LVLM = BASE | {"generation_config.json", "model.safetensors"}
ADAPTER = {"vladva_config.json", "adapter_config.json", "adapter_model.safetensors", "soft_prompt.safetensors"}
SHARDS = {"shard-0.safetensors", "shard-1.safetensors"}
READ_ONCE = {  # load -> folder -> the files that our own code opens, each once
    "create_model": {"base": LVLM, "adapter": ADAPTER},
    "create_model of the base": {"base": LVLM | {"vladva_base.json"}},
    "get_tokenizer": {"base": BASE, "adapter": {"vladva_config.json"}},
    "from_pretrained": {"base": LVLM, "adapter": ADAPTER},
    "from_pretrained of shards": {
        "base": (LVLM - {"model.safetensors"}) | SHARDS | {"model.safetensors.index.json", "vladva_base.json"}
    },
}
# what libraries open at most: transformers the copies of the tokenizer's files that we hand it, ...
COPIES = {"tokenizer_config.json": 3, "config.json": 1, "tokenizer.json": 1, "chat_template.jinja": 1}
# ... the index of shards, which it reads by itself, ...
TRANSFORMERS = {"model.safetensors.index.json": 1}
# ... and safetensors the weight files: of a base for the fingerprint and, in transformers, for keys and tensors
SAFETENSORS = {"base": 3, "adapter": 1}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Path:
    """The base of vladva-tiny with its weights in two files."""
    from vladva_clip.sources import registry

    packaged, place = registry.packaged_base("vladva-tiny"), tmp_path_factory.mktemp("sharded")
    for path in packaged.iterdir():
        if path.suffix != ".safetensors":
            (place / path.name).write_bytes(path.read_bytes())
    tensors, where = load_file(packaged / "model.safetensors"), {}
    for number, name in enumerate(sorted(SHARDS)):
        part = dict(list(tensors.items())[number::2])
        save_file(part, place / name, metadata={"format": "pt"})
        where |= dict.fromkeys(part, name)
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return place


@pytest.fixture(scope="module")
def reports(sharded) -> dict[str, Any]:
    """What the process reports, by load."""
    command = [sys.executable, __file__, str(sharded)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(params=READ_ONCE)
def load(request, reports) -> tuple[str, dict[str, Any]]:
    """The name of a load, and what was opened."""
    return request.param, reports[request.param]


def test_our_own_code_opens_each_file_once(load):
    name, seen = load
    expected = {folder: dict.fromkeys(files, 1) for folder, files in READ_ONCE[name].items()}
    assert {folder: reads for folder, reads in seen["python"][OURS].items() if reads} == expected


def test_libraries_open_what_is_listed(load):
    name, seen = load
    others = {library: folders for library, folders in seen["python"].items() if library != OURS}
    assert set(others) == {"transformers"}  # which safetensors' native code escapes
    copies, base = Counter(others["transformers"]["copies"]), Counter(others["transformers"]["base"])
    assert copies and copies <= Counter(COPIES) and base <= Counter(TRANSFORMERS)
    assert not others["transformers"]["adapter"]


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_native_code_opens_the_weights_alone(load):
    name, seen = load
    for folder, most in SAFETENSORS.items():
        known = sum((Counter(folders[folder]) for folders in seen["python"].values()), Counter())
        native = Counter(seen["kernel"][folder]) - known
        assert set(native) == {file for file in READ_ONCE[name].get(folder, ()) if file.endswith(".safetensors")}
        assert all(count <= most for count in native.values()), native


class Watch:
    """Count how often the files of a directory are opened, by whomever (inotify)."""

    OPEN, CLOSE, DIRECTORY = 0x20, 0x18, 0x40000000

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.number = libc.inotify_init1(os.O_NONBLOCK)
        # closings too, as two equal events in a row count as one
        assert libc.inotify_add_watch(self.number, os.fsencode(directory), self.OPEN | self.CLOSE) >= 0

    def counts(self) -> Counter[str]:
        found, data, place = Counter(), self._events(), 0
        while place < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, place)
            name = data[place + 16 : place + 16 + length].rstrip(b"\0").decode()
            found[name] += bool(mask & self.OPEN and not mask & self.DIRECTORY)
            place += 16 + length
        return +found

    def _events(self) -> bytes:
        chunks = []
        try:
            while chunk := os.read(self.number, 1 << 16):
                chunks.append(chunk)
        except BlockingIOError:
            return b"".join(chunks)


def opener(frame: FrameType | None) -> str | None:
    """Whose code opens a file: the package of the innermost frame that is not Python's own."""
    ours = os.path.dirname(sys.modules[OURS].__file__)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(ours + os.sep):
            return OURS
        if "site-packages" in path:
            return path.partition("site-packages" + os.sep)[2].partition(os.sep)[0]
        frame = frame.f_back
    return None


def main(sharded: str) -> None:
    """Print, by load, how often each file was opened: by Python code, by package and folder; and by anyone."""
    import vladva_clip
    from vladva_clip import factory, model  # noqa: F401 (imported before anything is counted)
    from vladva_clip.sources.locate import locate

    adapter, base = (locate("vladva-tiny", tag).directory for tag in ("scenes", "base"))
    calls = {
        "create_model": lambda: vladva_clip.create_model("vladva-tiny"),
        "create_model of the base": lambda: vladva_clip.create_model("vladva-tiny", "base"),
        "get_tokenizer": lambda: vladva_clip.get_tokenizer("vladva-tiny"),
        "from_pretrained": lambda: vladva_clip.VladvaCLIP.from_pretrained(adapter),
        "from_pretrained of shards": lambda: vladva_clip.VladvaCLIP.from_pretrained(sharded),
    }
    found, folders = {}, {str(adapter): "adapter", str(base): "base", sharded: "base"}
    watches = {place: Watch(Path(place)) for place in folders} if sys.platform == "linux" else {}
    python: dict[str, dict[str, Counter[str]]] = {}

    def hook(event: str, args: tuple) -> None:
        if event == "open" and isinstance(args[0], str) and "w" not in (args[1] or ""):
            place, file = os.path.split(args[0])
            folder = "copies" if os.path.basename(place).startswith("vladva-base-") else folders.get(place)
            if folder and (who := opener(sys._getframe(1))):
                python.setdefault(who, {each: Counter() for each in ("base", "adapter", "copies")})[folder][file] += 1

    sys.addaudithook(hook)
    for name, call in calls.items():
        python.clear()
        call()
        kernel = {"adapter": Counter(), "base": Counter()}
        for place, watch in watches.items():
            kernel[folders[place]] += watch.counts()
        found[name] = {"python": dict(python), "kernel": kernel}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
