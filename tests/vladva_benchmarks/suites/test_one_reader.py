"""A file has the same pixels for training, captioning, the suites, the quickstart and preprocess, whatever its mode."""

import io
import json
import tarfile

import datasets
import numpy as np
import pytest
from PIL import Image, ImageOps

import vladva_clip
from tests.support.pictures import modes
from tests.support.training.pairs import write_tar
from vladva_benchmarks.suites.pictures import Picture
from vladva_clip.pictures.colors import to_rgb
from vladva_clip.pictures.files import open_file
from vladva_training.captioning.drafts import MAX_ASPECT_RATIO
from vladva_training.captioning.fill import fill_shards
from vladva_training.captioning.settings import CaptionSettings
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.specs import open_source

FORMS = {
    **dict.fromkeys(("1", "LA", "I;16", "I;16 with key", "RGBA", "P with an index as key"), "PNG"),
    **dict.fromkeys(("P with bytes as key", "L with key", "RGB with key", "RGB"), "PNG"),
    **dict.fromkeys(("L", "CMYK", "YCbCr"), "JPEG"),
    **dict.fromkeys(("LAB", "I;16B", "I to 65535"), "TIFF"),
    "P": "GIF",
}


class Describer:
    """A captioner that says what it was shown: the sum of the pixels."""

    name = "describer"

    def caption(self, images):
        assert all(image.mode == "RGB" for image in images)
        assert max(max(image.size) for image in images) < 1000  # a processor of transformers would enlarge it
        return [f"{np.asarray(image).sum()} {image.width}" for image in images]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A file of each mode; all but the GIF say that they are to be turned."""
    folder, exif = tmp_path_factory.mktemp("modes"), Image.Exif()
    exif[274] = 6
    found = {name: folder / f"{number:02}.{form.lower()}" for number, (name, form) in enumerate(FORMS.items())}
    for name, path in found.items():
        options = {} if FORMS[name] == "GIF" else {"exif": exif}
        modes.of(name).save(path, FORMS[name], **options)
    return found


@pytest.fixture(scope="module")
def expected(paths):
    """What a user gets who follows docs/api.md; every picture but the GIF is turned.

    From bytes, since Pillow 13 maps an uncompressed TIFF that it opens by path with its sides exchanged.
    """
    opened = [Image.open(io.BytesIO(path.read_bytes())) for path in paths.values()]
    found = [np.asarray(to_rgb(ImageOps.exif_transpose(image))) for image in opened]
    assert {pixels.shape[:2] for pixels in found[:-1]} == {modes.SIZE}
    assert found[-1].shape[:2] == modes.SIZE[::-1]
    return found


def sources(paths, folder):
    """The same files by way of each kind of source: by path, and as bytes in tars, tables and data sets."""
    rows = [{"image": str(path), "caption": "a"} for path in paths.values()]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    yield f"jsonl:{folder / 'a.jsonl'}"
    data = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    data = data.map(lambda row: row)  # which embeds the bytes
    data.to_parquet(folder / "a.parquet")
    yield f"parquet:{folder / 'a.parquet'}"
    data.save_to_disk(folder / "saved")
    yield f"hf:{folder / 'saved'}"
    members = {f"{number:02}.png": path.read_bytes() for number, path in enumerate(paths.values())}
    texts = {name.replace("png", "txt"): b"a" for name in members}
    write_tar(folder / "a.tar", members | texts)
    yield f"wds:{folder / 'a.tar'}"


def test_training(paths, expected, tmp_path):
    for spec in sources(paths, tmp_path):
        source = open_source(spec)
        for index, pixels in enumerate(expected):
            assert np.array_equal(source[index].image, pixels), (spec, list(paths)[index])


def test_suites_and_quickstart(paths, expected, tmp_path):
    for (name, path), pixels in zip(paths.items(), expected, strict=True):
        data = path.read_bytes()
        (tmp_path / "a.tar").write_bytes(b"x" * 512 + data + b"x")
        assert np.array_equal(Picture(name, path).open(), pixels), name
        assert np.array_equal(Picture(name, tmp_path / "a.tar", 512, len(data)).open(), pixels), name
        assert np.array_equal(open_file(path), pixels), name


def caption(spec, folder, records):
    settings = CaptionSettings(spec, records, fill="short", samples_per_shard=records, image_format="png")
    splitter = CaptionSplitter(vladva_clip.get_tokenizer("vladva-tiny"))
    fill_shards(open_source(spec), {0: "00000"}, folder, settings, splitter, {"short": Describer()})
    return json.loads((folder / "00000_stats.json").read_text())


def test_captioning(paths, expected, tmp_path):
    """The captioner sees these pixels, and its shards hold them: turned once, though they are read again."""
    rows = [{"image": str(path), "caption": ""} for path in paths.values()]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert caption(f"jsonl:{tmp_path / 'a.jsonl'}", tmp_path, len(rows))["problems"] == []
    written = open_source(f"wds:{tmp_path / '00000.tar'}")
    for index, pixels in enumerate(expected):
        assert np.array_equal(written[index].image, pixels), list(paths)[index]
        assert written[index].captions == (f"{pixels.sum()} {pixels.shape[1]}",)


def test_thin_pictures_are_problems_and_not_the_end_of_captioning(tmp_path):
    """Also where a whole batch holds no other; a caption that the source has is kept."""
    thin = io.BytesIO()
    Image.new("RGB", (MAX_ASPECT_RATIO * 15 + 1, 15)).save(thin, "PNG")
    members = {f"{number}.png": thin.getvalue() for number in range(3)} | {"2.txt": b"a line"}
    write_tar(tmp_path / "in" / "a.tar", members)
    problems = caption(f"wds:{tmp_path / 'in' / 'a.tar'}", tmp_path, 3)["problems"]
    assert [problem["reason"] for problem in problems] == ["image too thin"] * 2
    assert "3001 x 15" in problems[0]["detail"]
    with tarfile.open(tmp_path / "00000.tar") as shard:
        assert sorted(shard.getnames()) == ["000000002.json", "000000002.png"]
