"""Directories that strangers hand out: honest bases and adapters, laid out anew for each case and then damaged."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vladva_clip
from tests.support import adapters, mutations
from tests.support.models import tiny_bases
from tests.support.suites import result_files
from vladva_clip.hub import card

WRITERS = {"llava": tiny_bases.write_llava, "qwen2_vl": tiny_bases.write_qwen}
FAMILIES = tuple(WRITERS)
HUB_BASE = "org/base"
UNREAD = (1, 2)  # times of access and change: reading a file that was changed since moves the first
RECORD = {"recipe": {"name": "tiny", "data.train": ["scenes"]}, "state": {"step": 3, "pairs": 24}, "world_size": 1}


@dataclass(frozen=True)
class Attack:
    """One thing that a stranger does to a directory.

    side: "base" or "adapter", whose files it changes. apply: changes them. expect: "any" for ValueError or finite
    features, "same" for ValueError or the honest features, "refused" for ValueError alone. entry: the one it is meant
    for, any of its side's for None. families: whose files have what it changes.
    """

    name: str
    side: str
    apply: Callable[["Case"], Any]
    expect: str = "any"
    entry: str | None = None
    families: tuple[str, ...] = FAMILIES


@dataclass(frozen=True)
class Case:
    """Where the files of one case lie: `root/base` and `root/adapter`, as links to the honest ones until changed."""

    root: Path
    family: str
    honest: Path  # of the family: base, sharded, adapter, unpinned, hub
    outside: Path  # holds secret.json, which is not to be read, and `sprung` once a trap has sprung

    def lay_out(self, adapter: str = "adapter") -> "Case":
        """Begin anew, with the adapter of that name; returns the case."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.copy("base", "base")
        self.copy(adapter, "adapter")
        return self

    def copy(self, name: str, place: str) -> None:
        """Put an honest directory in place of what stands there."""
        shutil.rmtree(self.root / place, ignore_errors=True)
        shutil.copytree(self.honest / name, self.root / place, copy_function=os.link)

    def read(self, file: str) -> Any:
        """A JSON file, by its name in the case such as "base/config.json"; an empty object for one that isn't there."""
        path = self.root / file
        return json.loads(path.read_text()) if path.is_file() else {}

    def put(self, file: str, data: Any) -> None:
        """Write bytes, text or JSON in place of a file, which may be a link to the honest one."""
        path = self.root / file
        path.unlink(missing_ok=True)
        content = data if isinstance(data, bytes | str) else json.dumps(data)
        path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))

    def set(self, file: str, *changes: tuple[str, Any]) -> None:
        """Set values in a JSON file by keys with dots between; `text.` and `vision.` are the family's own places."""
        data = self.read(file)
        for key, value in changes:
            parts = self.place(key).split(".")
            part = data
            for name in parts[:-1]:
                part = part.setdefault(name, {})
            part[parts[-1]] = value
        self.put(file, data)

    def trap(self) -> bytes:
        """A pickle that leaves a file `sprung` outside when it is read."""
        return pickle.dumps(mutations.Trap(self.outside / "sprung"))

    def place(self, key: str) -> str:
        """The key as the family spells it: Qwen2-VL's text settings stand at the top of its config.json."""
        text = "text_config." if self.family == "llava" else ""
        return key.replace("text.", text, 1).replace("vision.", "vision_config.", 1)


def write_honest(work: Path) -> None:
    """Write both families' bases and adapters under `work/honest`; the adapters name the base `work/case/base`."""
    for family, write in WRITERS.items():
        place, case = work / "honest" / family, work / "case"
        shutil.rmtree(case, ignore_errors=True)
        write(case / "base")
        shutil.copytree(case / "base", place / "base")
        shutil.copytree(case / "base", place / "sharded")
        tiny_bases.split(place / "sharded", 3)
        _write_adapter(case / "base", place / "adapter")
        _variant(place, "unpinned", fingerprint=None)
        _variant(place, "hub", fingerprint=None, id=HUB_BASE)
    shutil.rmtree(work / "case")


def _write_adapter(base: Path, directory: Path) -> None:
    model, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32", force_image_size=56)
    adapters.with_lora(model).save_pretrained(directory)
    (directory / card.NOTES).write_text("An adapter of nobody's.\n\n## Limits\n\nIt is tiny.\n")
    (directory / card.RECORD).write_text(json.dumps(RECORD))
    result_files.put(directory / card.RESULTS)


def _variant(place: Path, name: str, **base: str | None) -> None:
    shutil.copytree(place / "adapter", place / name)
    path = place / name / "vladva_config.json"
    data = json.loads(path.read_text())
    data["base"] |= base
    path.write_text(json.dumps(data))
