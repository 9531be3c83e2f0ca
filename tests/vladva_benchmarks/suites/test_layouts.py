"""Small copies of every published layout: read, scored as clip_benchmark scores them, refused where they are wrong."""

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import clip_benchmark.cli
import pytest

from tests.support import samples
from tests.support.suites import data_copies
from tests.support.suites.data_copies import read
from vladva_benchmarks.suites import catalog, command, layouts, runner
from vladva_benchmarks.suites.pictures import Picture
from vladva_benchmarks.suites.runner import Settings
from vladva_benchmarks.suites.suite import Suite
from vladva_benchmarks.suites.tasks import Foils

SUITES = tuple(data_copies.WRITERS)


@pytest.fixture(scope="module")
def few_templates() -> Iterator[list[str]]:
    """Two of ImageNet's 80 templates in place of all, which take their time."""
    suite = catalog.SUITES["imagenet1k"]
    templates = ["a photo of a {c}.", "a bad photo of the {c}."]
    cut = replace(suite, read=lambda root: (replace(task, templates=templates) for task in suite.read(root)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalog.SUITES, "imagenet1k", cut)
        yield templates


@pytest.fixture(scope="module")
def evaluated(copies, clip_name, few_templates, tmp_path_factory) -> dict[str, dict]:
    """`paper` on the copies: data set -> result."""
    output = tmp_path_factory.mktemp("results")
    paths = runner.run(Settings(["paper"], clip_name, copies, output=output, num_workers=0, subset=True))
    assert len(paths) == len(set(paths)) == len(list(output.glob("*.json")))
    return {result["dataset"]: result for result in (json.loads(path.read_text()) for path in paths)}


class TestPaper:
    def test_every_data_set_of_the_tables_has_a_result(self, evaluated):
        retrieval = {f"{way}_retrieval_recall@{k}" for way in ("image", "text") for k in (1, 5, 10)}
        expected = dict.fromkeys(["flickr30k", "mscoco_captions", *_nocaps(), "nocaps/mean"], retrieval)
        expected["imagenet1k"] = {"acc1", "acc5", "mean_per_class_recall"}
        expected |= {f"sugar_crepe/{kind}": {"acc"} for kind in data_copies.KINDS}
        expected |= {f"sugarcrepe_pp/{kind}": {"itt", "tot"} for kind in data_copies.TRIPLE_KINDS}
        expected["winoground"] = {"text", "image", "group"}
        assert {name: set(result["metrics"]) for name, result in evaluated.items()} == expected
        assert all(result["vladva"]["subset"] for result in evaluated.values())

    def test_nocaps_mean_is_of_the_three_domains(self, evaluated):
        parts = [evaluated[name]["metrics"] for name in _nocaps()]
        for name, value in evaluated["nocaps/mean"]["metrics"].items():
            assert value == pytest.approx(sum(part[name] for part in parts) / 3)
        assert evaluated["nocaps/mean"]["vladva"]["counts"] == {"images": 15, "captions": 150}

    @pytest.mark.parametrize(("suite", "dataset"), [("flickr30k", "flickr30k"), ("sugarcrepe", "sugar_crepe/swap_att")])
    def test_clip_benchmark_finds_the_same_in_the_same_folder(
        self, evaluated, copies, clip_name, suite, dataset, theirs
    ):
        found, ours = theirs(dataset, copies / suite, "--recall_k", "1", "5", "10"), evaluated[dataset]
        assert found["task"] == ours["task"]
        ours = {"text_acc": ours["metrics"]["acc"]} if suite == "sugarcrepe" else ours["metrics"]
        assert {name: found["metrics"][name] for name in ours} == pytest.approx(ours)

    def test_and_in_imagenet(self, few_templates, theirs, clip_name, tmp_path):
        """With the first twelve classes: it takes whatever folders are there for the first."""
        data_copies.imagenet1k(tmp_path, start=0, step=1)
        options = {"output": tmp_path / "ours", "num_workers": 0, "subset": True}
        (path,) = runner.run(Settings(["imagenet1k"], clip_name, tmp_path, **options))
        templates = tmp_path / "templates.json"
        templates.write_text(json.dumps({"imagenet1k": few_templates}))
        found = theirs("imagenet1k", tmp_path / "imagenet1k", "--custom_template_file", str(templates))
        assert json.loads(path.read_text())["metrics"] == pytest.approx(found["metrics"])


@pytest.fixture
def theirs(clip_name, tmp_path, monkeypatch):
    """Run clip_benchmark's own command; returns its result."""

    def evaluate(dataset: str, place: Path, *more: str) -> dict:
        words = ["eval", "--dataset", dataset, "--dataset_root", str(place), "--model", clip_name, "--pretrained", ""]
        words += ["--num_workers", "0", "--no_amp", "--quiet", "--output", str(tmp_path / "theirs.json"), *more]
        monkeypatch.setattr(sys, "argv", ["clip_benchmark", *words])
        clip_benchmark.cli.main()
        return json.loads((tmp_path / "theirs.json").read_text())

    return evaluate


def _nocaps() -> list[str]:
    return [f"nocaps/{domain}" for domain in data_copies.DOMAINS]


class TestReaders:
    def test_imagenet_labels_are_of_all_classes(self, copies):
        """Also where only some have folders: the label is the place among the thousand, whose name belongs to it."""
        (task,) = read("imagenet1k", copies)
        wnids = data_copies.ImageNetInfo("imagenet-1k").label_names()
        assert [wnids[label] for label in task.labels] == [picture.path.parent.name for picture in task.pictures]
        assert len(task.classnames) == 1000 and len(set(task.labels)) == 12
        assert task.classnames[0] == "tench" and wnids[0] == "n01440764"

    def test_coco_takes_the_first_five_captions(self, copies):
        (task,) = read("coco", copies)
        assert task.captions[0] == [data_copies.caption(0, one) for one in range(5)]
        assert task.counts() == layouts.caption_counts(12, 5)

    def test_flickr_captions_may_hold_commas(self, copies):
        (task,) = read("flickr30k", copies)
        assert task.captions[3][2] == f"{data_copies.caption(3, 2)}, 'said \"he\"'"

    def test_winoground_pairs(self, copies):
        (task,) = read("winoground", copies)
        assert [picture.path.name for picture in task.pairs[2]] == ["ex_2_img_0.png", "ex_2_img_1.png"]
        assert task.captions[2] == (data_copies.caption(2, 3), data_copies.caption(3, 2))

    def test_winoground_captions_may_hold_other_line_ends(self, scratch):
        root = scratch("winoground")
        path = root / "winoground" / "data" / "examples.jsonl"
        path.write_text(path.read_text().replace("thing", "\u2028thing"), encoding="utf-8")
        assert "\u2028thing" in read("winoground", root)[0].captions[2][0]

    def test_nocaps_domains(self, copies):
        tasks = read("nocaps", copies)
        assert [len(task.pictures) for task in tasks] == [4, 6, 5, 15]
        assert all(len(captions) == 10 for task in tasks[:3] for captions in task.captions)


class TestCounts:
    @pytest.mark.parametrize("suite", SUITES)
    def test_a_copy_of_another_size_is_refused(self, copies, suite):
        """The published counts stand in the catalog; --subset passes over them."""
        with pytest.raises(ValueError, match="(?s)published.*:.*expected.*--subset") as caught:
            layouts.check_counts(read(suite, copies), catalog.SUITES[suite].counts)
        assert str(caught.value).count("expected") >= 1

    def test_one_caption_too_few(self, copies, scratch):
        """12 pictures with five captions each are right for a catalog that says so; a lost line is not."""
        published = {"flickr30k": layouts.caption_counts(12, 5)}
        layouts.check_counts(read("flickr30k", copies), published)
        root = scratch("flickr30k")
        path = root / "flickr30k" / "flickr30k_test_karpathy.txt"
        path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
        with pytest.raises(
            ValueError, match="(?s)captions 59, expected 60.*captions_per_image_min 4, expected 5"
        ) as caught:
            layouts.check_counts(read("flickr30k", root), published)
        assert "get the data set again" in str(caught.value)

    def test_published_counts(self):
        """Flickr30k 1000 x 5, COCO 5000 x 5, nocaps 4500 x 10, SugarCrepe 7,512 (its files: 7,511), Winoground 400."""
        counts = {name: count for suite in catalog.SUITES.values() for name, count in suite.counts.items()}
        assert counts["flickr30k"]["captions"] == 5000 and counts["mscoco_captions"]["captions"] == 25_000
        assert sum(counts[name]["captions"] for name in _nocaps()) == 45_000
        pairs = [counts[f"sugar_crepe/{kind}"]["pairs"] for kind in data_copies.KINDS]
        ends = [sum(end(count) if isinstance(count, tuple) else count for count in pairs) for end in (min, max)]
        assert ends == [7511, 7512]
        assert counts["winoground"] == {"quadruples": 400} and counts["imagenet1k"]["images"] == 50_000


HINTS = {
    "imagenet1k": ("ILSVRC2012_img_val.tar from https://image-net.org", "wget https://image-net.org/data/ILSVRC"),
    "flickr30k": ("kaggle datasets download", "wget https://github.com/mehdidc/retrieval_annotations"),
    "coco": ("wget http://images.cocodataset.org/zips/val2014.zip", "coco_test_karpathy.json -P"),
    "nocaps": ("wget https://nocaps.s3.amazonaws.com/nocaps_val_4500_captions.json -P", "https://nocaps.org/download"),
    "sugarcrepe": (
        "val2017.zip",
        "wget https://raw.githubusercontent.com/RAIVNLab/sugar-crepe/main/data/swap_obj.json",
    ),
    "sugarcrepe_pp": ("ln -s ../sugarcrepe/val2017", "Sri-Harsha/scpp/main/data/swap_obj.json"),
    "winoground": ("https://huggingface.co/datasets/facebook/winoground", "unzip"),
}


class TestWhatIsMissing:
    @pytest.mark.parametrize("suite", SUITES)
    def test_an_empty_data_root(self, suite, tmp_path):
        with pytest.raises(ValueError, match=f"{suite}: files are missing") as caught:
            read(suite, tmp_path)
        assert all(hint in str(caught.value) for hint in HINTS[suite])
        assert "{" not in str(caught.value) and str(tmp_path / suite) in str(caught.value)

    def test_the_commands_can_be_pasted_where_a_folder_has_a_space(self, tmp_path):
        (tmp_path / "my data").mkdir()
        with pytest.raises(ValueError) as caught:
            read("sugarcrepe", tmp_path / "my data")
        place = tmp_path / "my data" / "sugarcrepe"
        assert shlex.split(str(caught.value).splitlines()[-1])[-1] == str(place)
        assert f"-P '{place}' && unzip '{place}'/val2017.zip -d '{place}'" in str(caught.value)

    def test_no_data_root(self, tmp_path):
        with pytest.raises(ValueError, match="the data root .*nowhere is not there: make it, or name another"):
            read("coco", tmp_path / "nowhere")
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match="the data root .*file is not a folder: name another"):
            read("coco", tmp_path / "file")

    def test_everything_is_said_at_once_and_before_a_model_loads(self, copies, tmp_path):
        asked = ["coco", "winoground", "flickr30k"]
        shutil.copytree(copies / "flickr30k", tmp_path / "flickr30k")
        settings = Settings(asked, "local-dir:/no/model/is/here", tmp_path, output=tmp_path / "results")
        with pytest.raises(
            ValueError, match="(?s)coco: files are missing.*winoground: files are missing.*flickr30k: images 12"
        ) as caught:
            runner.run(settings)
        assert "model" not in str(caught.value)
        with pytest.raises(ValueError, match="winoground: files are missing"):
            runner.run(replace(settings, suites=["winoground"]))

    @pytest.mark.parametrize(
        ("suite", "picture", "annotations"),
        [
            ("flickr30k", "flickr30k/1007129820.jpg", "flickr30k_test_karpathy.txt"),
            ("coco", "coco/val2014/COCO_val2014_000000391895.jpg", "coco_test_karpathy.json"),
            ("nocaps", "nocaps/val/0000000000000005.jpg", "nocaps_val_4500_captions.json"),
            ("sugarcrepe", "sugarcrepe/val2017/000000085334.jpg", "replace_obj.json"),
            ("sugarcrepe_pp", "sugarcrepe_pp/val2017/000000085334.jpg", "replace_obj.json"),
            ("winoground", "winoground/data/images/ex_3_img_1.png", "examples.jsonl"),
        ],
    )
    def test_an_annotation_that_names_a_missing_picture(self, scratch, suite, picture, annotations):
        root = scratch(suite)
        (root / picture).unlink()
        with pytest.raises(ValueError, match=rf"{annotations} names 1 of \d+ pictures that are not there") as caught:
            read(suite, root)
        assert str(root / picture) in str(caught.value) and "://" in str(caught.value)


class TestNames:
    def test_paper_is_all_but_the_drawn_scenes(self):
        assert [suite.name for suite in catalog.find(["paper"])] == list(SUITES)
        assert [suite.name for suite in catalog.find(["coco", "paper", "scenes"])][0::7] == ["coco", "scenes"]

    def test_an_unknown_suite_names_the_nearest(self):
        with pytest.raises(ValueError, match="unknown suite 'flickr'; did you mean flickr30k"):
            catalog.find(["flickr"])

    def test_a_suite_prepares_its_own_data_and_says_whether_it_is_in_the_paper(
        self, settings, monkeypatch, tmp_path, capsys
    ):
        """All that a new suite needs is its file, which defines a `Suite`, and a line in the catalog."""
        asked = []

        def prepare(root: Path, pictures: int) -> None:
            asked.append((root, pictures))
            samples.picture(1).save(root / "one.png")

        def read(root: Path) -> Iterator[Foils]:
            yield Foils("new/one", [Picture("one.png", root / "one.png")], ["a thing"], ["another thing"])

        monkeypatch.setitem(catalog.SUITES, "new", Suite("new", read, {}, in_paper=False, prepare=prepare))
        paths = runner.run(replace(settings, suites=["new"], data_root=tmp_path))
        assert asked == [(tmp_path, settings.scene_pictures)]
        assert [json.loads(path.read_text())["vladva"]["suite"] for path in paths] == ["new"]
        assert "new" not in [suite.name for suite in catalog.find(["paper"])]
        with pytest.raises(SystemExit):
            command.parse(["--help"])
        assert "all but scenes, scenes_varied, scenes_unseen, new" in " ".join(capsys.readouterr().out.split())
