"""The documented pages, and a folder that holds the paths they use."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import vladva_clip
from vladva_clip import cli
from vladva_clip.quickstart.gallery import draw_gallery
from vladva_clip.scenes import scenes

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "MODEL_CARD.md"]
TINY = Path(vladva_clip.__file__).parent / "assets/vladva-tiny"


def make_place(root: Path) -> Path:
    """Fill a folder with what the pages use: adapters, bases, a result, pictures, and the pages themselves."""
    for name in ("runs/7b/adapter", "runs/tiny/adapter", "DIR"):
        shutil.copytree(TINY / "scenes", root / name)
    for name in (
        "runs/tiny-base/base",
        "runs/tiny-base-2/base",
        "runs/tiny-base-3/base",
        "runs/tiny-base-4/base",
        "runs/tiny/base",
    ):
        shutil.copytree(TINY / "base", root / name)
    shutil.copytree(ROOT / "docs", root / "docs")
    result = {"dataset": "flickr30k", "model": "vladva-7b", "pretrained": "training_free", "task": "zeroshot_retrieval"}
    (root / "results").mkdir()
    (root / "results/a.json").write_text(json.dumps(result | {"metrics": {"image_retrieval_recall@1": 0.594}}))
    draw_gallery(root / "vladva-quickstart")
    assert cli.main(["embed", str(root / "vladva-quickstart"), "--out", str(root / "scenes.npz")]) == 0
    for name, scene in zip(("cat.jpg", "dog.jpg"), scenes("test", 0, 2), strict=True):
        scene.draw(192).save(root / name)
    return root


@dataclass(frozen=True)
class Snippet:
    """A Python block: its page, the line of the page on which it begins, and its code."""

    page: Path
    line: int
    code: str

    @property
    def name(self) -> str:
        """The page, and the first line of the code."""
        return f"{self.page.relative_to(ROOT)}: {self.code.splitlines()[0]}"


def snippets(page: Path) -> list[Snippet]:
    """Return all blocks of a page that are marked as Python."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(?:python|py)\b[^\n]*\n(.*?)^```", text, re.S | re.M)
    return [Snippet(page, text[: block.start(1)].count("\n") + 1, block[1]) for block in found]
