"""Files of another layout, of other types, cut or empty: each is named before a model loads."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.suites import data_copies
from tests.support.suites.data_copies import read
from vladva_benchmarks.suites import layouts, runner
from vladva_benchmarks.suites.runner import Settings


class TestWrongFiles:
    @pytest.mark.parametrize(
        ("suite", "path", "content"),
        [
            ("flickr30k", "flickr30k_test_karpathy.txt", "image,caption\n1007129820.jpg|a thing\n"),
            ("coco", "coco_test_karpathy.json", '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "id": 1}]}'),
            ("coco", "coco_test_karpathy.json", '[{"image": "val2014/a.jpg"}]'),
            ("nocaps", "nocaps_val_4500_captions.json", '{"images": [{"id": 1, "file_name": "a.jpg"}]}'),
            ("nocaps", "nocaps_val_4500_captions.json", "[]"),
            ("sugarcrepe", "swap_att.json", '{"0": {"filename": "000000085334.jpg", "caption": "a"}}'),
            ("sugarcrepe", "swap_att.json", "[1, 2]"),
            ("sugarcrepe", "swap_att.json", '{"0": {'),
            ("sugarcrepe_pp", "swap_att.json", '{"0": {"filename": "a.jpg"}}'),
            ("sugarcrepe_pp", "swap_att.json", '[{"filename": "000000085334.jpg", "caption": "a"}]'),
            ("winoground", "data/examples.jsonl", '{"image_0": "a", "image_1": "b"}\n{"image_0"'),
            ("winoground", "data/examples.jsonl", '{"image_0": "a"}\n'),
            ("imagenet1k", "meta.bin", "no archive"),
        ],
    )
    def test_a_wrong_or_cut_file_is_named(self, scratch, suite, path, content):
        root = scratch(suite)
        (root / suite / path).write_text(content)
        with pytest.raises(ValueError) as caught:
            read(suite, root)
        assert Path(path).name in str(caught.value) or "imagenet1k" in str(caught.value)
        assert "get it again" in str(caught.value) or "get the file again" in str(caught.value)

    @pytest.mark.parametrize(
        ("suite", "path", "key", "value"),
        [
            ("coco", "coco_test_karpathy.json", '"file_name"', "5"),
            ("coco", "coco_test_karpathy.json", '"caption"', "null"),
            ("nocaps", "nocaps_val_4500_captions.json", '"file_name"', "5"),
            ("nocaps", "nocaps_val_4500_captions.json", '"caption"', "5"),
            ("nocaps", "nocaps_val_4500_captions.json", '"domain"', "[1]"),
            ("nocaps", "nocaps_val_4500_captions.json", '"image_id"', "[1]"),
            ("sugarcrepe", "swap_att.json", '"filename"', "5"),
            ("sugarcrepe", "swap_att.json", '"negative_caption"', "null"),
            ("sugarcrepe_pp", "swap_att.json", '"filename"', "5"),
            ("sugarcrepe_pp", "swap_att.json", '"caption2"', "5"),
            ("winoground", "data/examples.jsonl", '"image_1"', "5"),
            ("winoground", "data/examples.jsonl", '"caption_0"', "[1]"),
        ],
    )
    def test_a_value_of_another_type(self, scratch, suite, path, key, value):
        """It would stop the run after the model has loaded, in a file of torch's."""
        root = scratch(suite)
        text = (root / suite / path).read_text()
        spoilt = re.sub(rf'{key}: ("[^"]*"|\d+)', f"{key}: {value}", text, count=1)
        assert spoilt != text
        (root / suite / path).write_text(spoilt)
        with pytest.raises(ValueError, match=rf"annotation 0 of .*{path} has \w+ for '{key[1:-1]}', expected"):
            read(suite, root)

    def test_lists_that_are_none(self, scratch):
        root = scratch("nocaps")
        (root / "nocaps" / "nocaps_val_4500_captions.json").write_text('{"images": 5, "annotations": []}')
        with pytest.raises(ValueError, match="nocaps_val_4500_captions.json has int.*list"):
            read("nocaps", root)

    def test_a_folder_for_a_file(self, scratch):
        root = scratch("winoground")
        (root / "winoground" / "data" / "examples.jsonl").unlink()
        (root / "winoground" / "data" / "examples.jsonl").mkdir()
        with pytest.raises(ValueError, match="examples.jsonl can't be read.*not a regular file"):
            read("winoground", root)

    @pytest.mark.parametrize(
        ("suite", "name", "target"),
        [
            ("imagenet1k", "ILSVRC2012_val_00000002.JPEG", "nowhere"),
            ("flickr30k", "1007129820.jpg", "nowhere"),
            ("flickr30k", "1007129820.jpg", "."),
            ("sugarcrepe_pp", "000000085334.jpg", "nowhere"),
        ],
    )
    def test_a_picture_that_is_a_link_to_nothing_or_to_a_folder(self, scratch, suite, name, target):
        root = scratch(suite)
        (picture,) = root.rglob(name)
        picture.unlink()
        picture.symlink_to(target)
        with pytest.raises(ValueError, match=r"names 1 of \d+ pictures that are not there") as caught:
            read(suite, root)
        assert str(picture) in str(caught.value)

    @pytest.mark.parametrize(
        ("suite", "path", "content"),
        [
            ("flickr30k", "flickr30k_test_karpathy.txt", "image,caption\n"),
            ("coco", "coco_test_karpathy.json", '{"images": [], "annotations": []}'),
            ("sugarcrepe", "swap_att.json", "{}"),
            ("sugarcrepe_pp", "swap_att.json", "[]"),
            ("winoground", "data/examples.jsonl", ""),
        ],
    )
    def test_nothing_is_refused_as_a_subset_too(self, scratch, suite, path, content):
        root = scratch(suite)
        (root / suite / path).write_text(content)
        with pytest.raises(ValueError, match="(?s)the annotations can't be scored:.* 0"):
            runner.run(Settings([suite], "local-dir:/no/model/is/here", root, subset=True))

    def test_a_picture_without_captions_or_twice_in_its_gallery(self, copies):
        """The one would count as never found, the other would tie with itself."""
        (task,) = read("coco", copies)
        without = replace(task, captions=[[], *task.captions[1:]])
        twice = replace(task, pictures=[task.pictures[1], *task.pictures[1:]])
        for wrong, said in ((without, "captions_per_image_min 0"), (twice, "1 pictures appear twice, .*jpg")):
            with pytest.raises(ValueError, match=f"(?s)can't be scored:.*{said}"):
                layouts.check_scorable([wrong])
        layouts.check_scorable([task, *read("winoground", copies), *read("sugarcrepe", copies)])

    def test_pictures_of_imagenet_that_lie_flat(self, scratch):
        """As torchvision leaves them when it is interrupted while it unpacks."""
        root = scratch("imagenet1k")
        for path in list((root / "imagenet1k" / "val").glob("*/*.JPEG")):
            path.rename(root / "imagenet1k" / "val" / path.name)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
        with pytest.raises(ValueError, match="val can't be read as imagenet1k .*remove .*val and .*rebuilt from ILSV"):
            read("imagenet1k", root)

    def test_a_folder_that_is_no_class(self, scratch):
        root = scratch("imagenet1k")
        data_copies.draw(root / "imagenet1k" / "val" / "n00000000" / "x.JPEG", 1)
        with pytest.raises(ValueError, match="val can't be read as imagenet1k .*n00000000"):
            read("imagenet1k", root)


DEEP = b"[" * 200_000


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


WRONG = {
    "deep": lambda path: path.write_bytes(DEEP),
    "NaN": lambda path: path.write_text('{"images": NaN, "0": NaN}'),
    "a key twice": lambda path: path.write_text('{"images": [], "images": []}'),
    "a list": lambda path: path.write_text("[[1, 2], 3]"),
    "an object": lambda path: path.write_text('{"images": {"a": 1}, "0": [1]}'),
    "not utf-8": lambda path: path.write_bytes(b'{"a": "\xff"}'),
    "utf-16": lambda path: path.write_bytes(path.read_text().encode("utf-16")),
    "nul bytes": lambda path: path.write_bytes(bytes(100)),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "a pipe": _pipe,
    "a folder": _folder,
    "half a pair": lambda path: path.write_text(path.read_text().replace("a red thing", "\\ud83d thing")),
}
FILES = {
    "flickr30k": "flickr30k_test_karpathy.txt",
    "coco": "coco_test_karpathy.json",
    "nocaps": "nocaps_val_4500_captions.json",
    "sugarcrepe": "swap_att.json",
    "sugarcrepe_pp": "swap_att.json",
    "winoground": "data/examples.jsonl",
    "imagenet1k": "meta.bin",
}
# Flickr30k's file is a table: JSON in it is only a strange first line. An empty one has no pictures, which is said
TABLE = ("not utf-8", "utf-16", "a pipe", "a folder")
UNPICKLED = ("deep", "empty", "cut", "a folder", "a pipe")
CASES = [(suite, wrong) for suite in FILES for wrong in {"flickr30k": TABLE, "imagenet1k": UNPICKLED}.get(suite, WRONG)]
CASES.remove(("winoground", "empty"))


class TestDamagedFiles:
    @pytest.mark.parametrize(("suite", "wrong"), CASES)
    def test_the_file_is_named(self, scratch, suite, wrong):
        """By a ValueError, before a model loads."""
        root = scratch(suite)
        path = root / suite / FILES[suite]
        WRONG[wrong](path)
        asked = runner.Settings([suite], "local-dir:/no/model/is/here", root, subset=True)
        with pytest.raises(ValueError, match="get it again|get the file again|how to get it") as caught:
            runner.run(asked)
        assert path.name in str(caught.value)

    def test_a_byte_order_mark_and_windows_line_ends(self, scratch):
        """As spreadsheets and editors write them: the same pictures and captions."""
        for suite in ("flickr30k", "coco", "winoground"):
            root = scratch(suite)
            before = list(runner.catalog.SUITES[suite].read(root))
            path = root / suite / FILES[suite]
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
            assert list(runner.catalog.SUITES[suite].read(root)) == before

    def test_the_locale_does_not_decide(self, scratch, monkeypatch):
        root = scratch("sugarcrepe")
        path = root / "sugarcrepe" / "swap_att.json"
        path.write_text(path.read_text().replace("thing", "chöse"), encoding="utf-8")
        monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "latin-1")
        texts = [text for task in runner.catalog.SUITES["sugarcrepe"].read(root) for text in task.texts]
        assert any("chöse" in text for text in texts)

    @pytest.mark.parametrize(
        ("suite", "old", "new", "said"),
        [
            ("coco", '"id": 391902', '"id": 391895', "id 391895 twice"),
            ("nocaps", '"id": 1, "file_name"', '"id": 0, "file_name"', "id 0 twice"),
            ("flickr30k", "image,caption\n", "", "begins with .*column names"),
            ("flickr30k", "1007129816.jpg,a", "1007129816.jpg;a", "line 2 of .*expected NAME.jpg,CAPTION"),
        ],
    )
    def test_what_was_lost_in_silence(self, scratch, suite, old, new, said):
        root = scratch(suite)
        path = root / suite / FILES[suite]
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=said):
            list(runner.catalog.SUITES[suite].read(root))
