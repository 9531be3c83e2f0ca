"""Small WebDataset folders in clip_benchmark's layout, of drawn pictures."""

import io
import tarfile
from pathlib import Path

from PIL import Image

from tests.support import samples

CLASSES = ["red square", "green square", "blue square", "yellow square", "circle", "cat"]
TEMPLATES = ["a {c}", "a picture of a {c}"]


def classification(root: Path, count: int = 12) -> tuple[list[Image.Image], list[int]]:
    """Write a folder of labelled pictures; returns what it holds, in its order."""
    pictures = [samples.picture(seed, (90 + seed, 80)) for seed in range(count)]
    labels = [seed % len(CLASSES) for seed in range(count)]
    write_shard(root, pictures, [("cls", str(label)) for label in labels])
    (root / "classnames.txt").write_text("\n".join(CLASSES))
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES))
    return pictures, labels


def retrieval(root: Path, count: int = 8) -> tuple[list[Image.Image], list[list[str]]]:
    """Write a folder of pictures with two captions each; returns what it holds, in its order."""
    pictures = [samples.picture(seed, (90, 80 + seed)) for seed in range(count)]
    captions = [[f"picture {seed} of squares", f"squares, number {seed}"] for seed in range(count)]
    write_shard(root, pictures, [("txt", "\n".join(texts)) for texts in captions])
    (root / "dataset_type.txt").write_text("retrieval")
    return pictures, captions


def write_shard(root: Path, pictures: list[Image.Image], others: list[tuple[str, str]]) -> None:
    """Write `test/0.tar`: for each picture a PNG and one more file, given as (extension, text)."""
    (root / "test").mkdir(parents=True)
    (root / "test" / "nshards.txt").write_text("1")
    with tarfile.open(root / "test" / "0.tar", "w") as shard:
        for row, (picture, (extension, text)) in enumerate(zip(pictures, others, strict=True)):
            png = io.BytesIO()
            picture.save(png, "PNG")
            for name, data in ((f"{row:03}.png", png.getvalue()), (f"{row:03}.{extension}", text.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
