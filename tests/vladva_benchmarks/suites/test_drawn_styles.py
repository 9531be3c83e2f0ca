"""The suites of drawn scenes in other styles: what is drawn, what is asked, and what counts as right."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import clip_benchmark.cli
import pytest
import torch

from tests.support.saying_truth import Reading
from tests.support.suites.suite_results import NUM_SCENE_TASKS, metrics
from vladva_benchmarks.suites import catalog, drawn_foils, drawn_scenes, drawn_truth, results, runner
from vladva_benchmarks.suites.tasks import Retrieval
from vladva_clip.metrics import recall_at_k
from vladva_clip.scenes import COLORS, SHAPES, Mention, scenes

STYLES = ("varied", "unseen")
COUNT = 48  # the sixth family is of one object


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A data root with the suites of both styles."""
    place = tmp_path_factory.mktemp("styles")
    for style in STYLES:
        drawn_scenes.export(place, COUNT, style)
    return place


@pytest.fixture
def spoilt(tmp_path) -> Path:
    """A small suite of its own, to be spoilt."""
    return drawn_scenes.export(tmp_path, 8, "varied")


def tasks(root: Path, style: str) -> dict:
    return {task.name.split("/")[1]: task for task in drawn_scenes.read(root, style)}


@pytest.mark.parametrize("style", STYLES)
class TestEachStyle:
    def test_retrieval_is_of_whole_families_as_they_are_drawn(self, root, style):
        pictures = [picture.open() for picture in tasks(root, style)["retrieval"].pictures]
        drawn = [one.draw(drawn_scenes.IMAGE_SIZE) for one in scenes("test", 0, COUNT, style)]
        assert [one.tobytes() for one in pictures] == [one.tobytes() for one in drawn]

    def test_pictures_are_not_all_square(self, root, style):
        sizes = {picture.open().size for picture in tasks(root, style)["classification"].pictures}
        assert {min(size) for size in sizes} == {64} and sizes - {(64, 64)}

    def test_truth_is_what_an_independent_reader_of_the_captions_finds(self, root, style):
        task, drawn = tasks(root, style)["retrieval"], scenes("test", 0, COUNT, style)
        for text, found in zip(task.texts, task.labels, strict=True):
            assert found == [number for number, one in enumerate(drawn) if Reading(text).true_of(one)], text
        assert sum(len(found) > 1 for found in task.labels) > 0.2 * len(task.labels)

    def test_classification_shows_different_objects_alone(self, root, style):
        task = tasks(root, style)["classification"]
        assert task.classnames == [Mention(color, shape).phrase for color in COLORS for shape in SHAPES]
        assert len({picture.sha256() for picture in task.pictures}) == COUNT and len(set(task.labels)) > 20
        first = scenes("test", 40, 1, style)[0]  # of one object, which is drawn as it is
        assert task.pictures[5].open().tobytes() == first.draw(64).tobytes()
        assert task.classnames[task.labels[5]] == Mention(*first.objects[0].pair).phrase

    def test_every_kind_of_foil_is_asked_and_false(self, root, style):
        found, drawn = tasks(root, style), scenes("test", 0, COUNT, style)
        assert set(found) == {"classification", "retrieval", *drawn_foils.KINDS}
        numbers = {picture: number for number, picture in enumerate(found["retrieval"].pictures)}
        for kind in drawn_foils.KINDS:
            task = found[kind]
            for picture, caption, false in zip(task.pictures, task.captions, task.negatives, strict=True):
                one = drawn[numbers[picture]]
                assert Reading(caption).true_of(one) and not any(Reading(text).true_of(one) for text in false), kind
        singles = [len(found[kind].pictures) for kind in ("replace_obj", "replace_count", "swap_obj")]
        assert singles[0] == singles[1] == COUNT and singles[2] < COUNT - 6

    def test_the_export_is_the_same_everywhere(self, root, style, tmp_path):
        place, other = root / drawn_scenes.FOLDERS[style], drawn_scenes.export(tmp_path, COUNT, style)
        files = {path.relative_to(place) for path in place.rglob("*") if path.is_file()}
        assert Path("retrieval/truth.json") in files
        assert all((place / path).read_bytes() == (other / path).read_bytes() for path in files)


class TestTruth:
    @pytest.fixture
    def features(self):
        """Random features for any task, the same for equal items."""

        def lookup(items) -> torch.Tensor:
            seeds = {item: number for number, item in enumerate(dict.fromkeys(items))}
            rows = torch.randn(len(seeds), 6, generator=torch.Generator().manual_seed(len(seeds)))
            return torch.nn.functional.normalize(rows, dim=1)[[seeds[item] for item in items]]

        return lookup

    @pytest.mark.parametrize("block", [1, 500, 1 << 24])
    def test_scores_are_recall_by_its_plain_definition(self, root, features, monkeypatch, block):
        monkeypatch.setattr(drawn_truth.scoring, "BLOCK", block)
        task = tasks(root, "varied")["retrieval"]
        similarity = features(task.texts) @ features(task.pictures).T
        right = torch.tensor([[number in own for number in range(COUNT)] for own in task.labels])
        found = task.score(features, features)
        for k in (1, 5, 10):
            assert found[f"image_retrieval_recall@{k}"] == pytest.approx(recall_at_k(similarity, right, k))
            assert found[f"text_retrieval_recall@{k}"] == pytest.approx(recall_at_k(similarity.T, right.T, k))
        alone = Retrieval(task.name, task.pictures, task.captions).score(features, features)
        assert all(found[name] >= alone[name] for name in found)
        assert found["image_retrieval_recall@1"] > alone["image_retrieval_recall@1"]

    def test_another_truth_is_other_data(self, root):
        task = tasks(root, "varied")["retrieval"]
        other = replace(task, labels=[[0], *task.labels[1:]])
        assert task.labels[0] != [0] and results.data_fingerprint(other) != results.data_fingerprint(task)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda truth, text: truth.pop(text), "has None for"),
            (lambda truth, text: truth.update({text: [0, 8]}), r"has \[0, 8\] for .*numbers of the 8 pictures"),
            (lambda truth, text: truth.update({text: [0, True]}), r"has \[0, True\] for"),
            (lambda truth, text: truth.update({text: [1]}), "is not true of picture 0, whose caption it is"),
        ],
    )
    def test_a_file_that_says_something_else(self, spoilt, change, said):
        path = spoilt / "retrieval" / "truth.json"
        truth = json.loads(path.read_text())
        change(truth, next(iter(truth)))
        path.write_text(json.dumps(truth))
        with pytest.raises(ValueError, match=f"(?s)truth.json .*{said}.*remove it, and run again to redraw it"):
            tasks(spoilt.parent, "varied")

    def test_a_changed_or_lost_file_is_noticed_before_it_is_read(self, spoilt):
        (spoilt / "retrieval" / "truth.json").unlink()
        with pytest.raises(ValueError, match="changed or missing files: retrieval/truth.json"):
            drawn_scenes.export(spoilt.parent, 8, "varied")
        with pytest.raises(ValueError, match="scenes_varied can't be read .*truth.json"):
            tasks(spoilt.parent, "varied")


class TestRuns:
    def test_clip_benchmark_reads_the_shards_and_finds_less(self, settings, root, monkeypatch, tmp_path):
        """The same in classification; in retrieval it takes only a picture's own captions for right."""
        asked = replace(settings, suites=["scenes_varied"], data_root=root, scene_pictures=COUNT)
        ours, theirs = metrics(runner.run(asked)), {}
        assert len(ours) == NUM_SCENE_TASKS
        for task in ("classification", "retrieval"):
            place = root / "scenes_varied" / task
            words = ["eval", "--dataset", f"wds/scenes_varied_{task}", "--dataset_root", str(place)]
            words += ["--task", f"zeroshot_{task}", "--recall_k", "1", "5", "10", "--model", settings.model]
            words += ["--pretrained", "", "--no_amp", "--quiet", "--output", str(tmp_path / "theirs.json")]
            monkeypatch.setattr(sys, "argv", ["clip_benchmark", *words])
            clip_benchmark.cli.main()
            theirs[task] = json.loads((tmp_path / "theirs.json").read_text())["metrics"]
        assert ours["scenes_varied/classification"] == pytest.approx(theirs["classification"])
        found = ours["scenes_varied/retrieval"]
        assert all(found[name] >= value - 1e-6 for name, value in theirs["retrieval"].items())
        assert found["image_retrieval_recall@10"] > theirs["retrieval"]["image_retrieval_recall@10"]

    def test_a_cut_family_is_refused_and_the_classic_scenes_run(self, settings, tmp_path):
        asked = replace(settings, suites=["scenes_unseen", "scenes"], data_root=tmp_path, scene_pictures=12)
        with pytest.raises(ValueError, match="scenes_unseen: found 12 pictures .*families of 8.*such as 16"):
            runner.run(asked)
        assert {path.name for path in tmp_path.iterdir() if path.is_dir()} >= {"scenes"}
        assert not (tmp_path / "scenes_unseen").exists()
        assert len(list(settings.output.glob("scenes_scenes_*.json"))) == NUM_SCENE_TASKS

    def test_a_folder_of_another_style_is_left_alone(self, spoilt):
        spoilt.rename(spoilt.parent / "scenes_unseen")
        with pytest.raises(ValueError, match="'style': 'varied'.*expected.*'style': 'unseen'.*move it away"):
            drawn_scenes.export(spoilt.parent, 8, "unseen")

    def test_they_run_when_they_are_named(self):
        assert not {"scenes_varied", "scenes_unseen"} & {suite.name for suite in catalog.find(["paper"])}
        assert [suite.name for suite in catalog.find(["scenes_unseen"])] == ["scenes_unseen"]
