"""`vladva-benchmark run` as a whole, on drawn scenes: figures, what is kept, processes, any model."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import clip_benchmark.cli
import open_clip
import pytest
import torch
from safetensors.torch import load_file

import vladva_clip
from tests.support import adapters, damage, hooked, hub_cache
from tests.support.models import tiny_clips
from tests.support.suites.suite_results import NUM_SCENE_TASKS, computed, metrics
from vladva_benchmarks import cli
from vladva_benchmarks.suites import drawn_foils, encoding, models, runner
from vladva_clip.bulk.feature_cache import PART, NoCache
from vladva_clip.sources import profiles

NAMES = ("scenes/classification", "scenes/retrieval", *(f"scenes/{kind}" for kind in drawn_foils.KINDS))


class TestScenes:
    @pytest.mark.wide
    def test_the_packaged_model_is_above_its_floor(self, tmp_path, capsys, monkeypatch):
        """Through the command; floors for 40 pictures, where guessing gives 0.02 and, at five of 40, 0.125."""
        words = ["run", "scenes", "--model", "vladva-tiny", "--data-root", str(tmp_path / "data"), "--num-workers", "0"]
        words += ["--output", str(tmp_path / "results"), "--scene-pictures", "40"]
        assert cli.main(words) == 0
        found = sorted((tmp_path / "results").glob("*.json"))
        names = {f"scenes_{name.replace('/', '_')}_vladva-tiny_scenes.json" for name in NAMES}
        assert {path.name for path in found} == names
        results = {result["dataset"]: result for result in (json.loads(path.read_text()) for path in found)}
        classification, retrieval = (results[name] for name in NAMES[:2])
        assert classification["metrics"]["acc1"] >= 0.9 and classification["metrics"]["acc5"] >= 0.95
        assert retrieval["metrics"]["image_retrieval_recall@1"] >= 0.85
        assert retrieval["metrics"]["text_retrieval_recall@1"] >= 0.85
        assert results["scenes/replace_rel"]["metrics"]["acc"] >= 0.9
        assert results["scenes/relation_of_four"]["vladva"]["counts"]["captions_per_picture"] == 4
        ours = retrieval["vladva"]
        assert ours["training_free"] is False and ours["base"] == "vladva-tiny" and ours["format"] == 1
        assert ours["command"] == ["vladva-benchmark", *words] and ours["suite"] == "scenes"
        assert ours["counts"]["images"] == ours["images"] == 40 and ours["counts"]["captions"] == 200
        assert ours["seconds"] > 0 and ours["images_per_second"] > 0 and "torch" in ours["versions"]

    def test_clip_benchmark_itself_reads_the_shards(self, settings, monkeypatch, tmp_path):
        """Its own command and number of workers on the exported folders, and its figures for the same model."""
        ours = metrics(runner.run(settings))
        for task in ("classification", "retrieval"):
            words = [
                "eval",
                "--dataset",
                f"wds/scenes_{task}",
                "--task",
                f"zeroshot_{task}",
                "--recall_k",
                "1",
                "5",
                "10",
            ]
            words += ["--dataset_root", str(settings.data_root / "scenes" / task), "--model", settings.model]
            words += ["--pretrained", "", "--no_amp", "--quiet", "--output", f"{task}.json"]
            monkeypatch.setattr(sys, "argv", ["clip_benchmark", *words])
            monkeypatch.chdir(tmp_path)
            clip_benchmark.cli.main()
            theirs = json.loads(Path(f"{task}.json").read_text())["metrics"]
            assert ours[f"scenes/{task}"] == pytest.approx(theirs), task

    def test_build_makes_one_table(self, settings, monkeypatch, tmp_path):
        """`clip_benchmark build` over the folder of results, beside which the features lie."""
        runner.run(settings)
        table = tmp_path / "table.csv"
        monkeypatch.setattr(sys, "argv", ["clip_benchmark", "build", str(settings.output), "--output", str(table)])
        clip_benchmark.cli.main()
        assert all(name in table.read_text() for name in NAMES)

    def test_the_export_is_the_same_everywhere(self, tmp_path):
        one, other = (runner.drawn_scenes.export(tmp_path / name, 8) for name in ("one", "other"))
        files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
        assert len(files) == 6 + 2 * 8 + len(drawn_foils.KINDS) and all(
            (one / path).read_bytes() == (other / path).read_bytes() for path in files
        )

    def test_a_folder_of_something_else_is_left_alone(self, settings):
        with pytest.raises(ValueError, match="'pictures': 24.*expected.*'pictures': 12.*move it away"):
            runner.run(settings)
            runner.run(replace(settings, scene_pictures=12))


class TestAnyModel:
    def test_a_name_of_open_clips_with_a_file_of_weights(self, settings, tmp_path):
        """`--model NAME --pretrained FILE`, as for every architecture that open_clip lists."""
        torch.save(tiny_clips.build().state_dict(), tmp_path / "weights.pt")
        (tmp_path / "tiny-clip.json").write_text(json.dumps(tiny_clips.CONFIG))
        with hooked.scratch_names():
            open_clip.add_model_config(tmp_path / "tiny-clip.json")
            asked = replace(settings, model="tiny-clip", pretrained=str(tmp_path / "weights.pt"))
            paths = runner.run(asked)
        result = json.loads(paths[0].read_text())
        assert result["model"] == "tiny-clip" and result["pretrained"] == str(tmp_path / "weights.pt")
        assert result["vladva"]["training_free"] is False and result["vladva"]["base"] is None
        assert all(path.parent == settings.output for path in paths)

    def test_a_long_name(self, settings, tmp_path):
        """A file's name may have 255 bytes; a long path would lose the result after all has been computed."""
        names = [f"local-dir:{tmp_path}/{'long/' * 60}{last}" for last in ("clip", "plic")]
        for name in names:
            tiny_clips.write_directory(Path(name.removeprefix("local-dir:")))
        results = [runner.run(replace(settings, model=name)) for name in names]
        assert len({path.name for paths in results for path in paths}) == 2 * NUM_SCENE_TASKS
        assert json.loads(results[1][0].read_text())["model"] == names[1]

    def test_weights_are_never_random(self, settings):
        with pytest.raises(ValueError, match="ViT-B-32 needs --pretrained.*random.*: openai"):
            runner.run(replace(settings, model="ViT-B-32"))

    @pytest.mark.parametrize(
        ("model", "pretrained", "said"),
        [
            ("ViT-B-32", "opena1", "ViT-B-32 has no tag 'opena1'.*valid tags: .*openai"),
            ("vladva-tiny", "openai", "unknown tag 'openai' of vladva-tiny; valid tags: .*base"),
            ("ViT-B-33", None, "unknown model 'ViT-B-33'; did you mean .*ViT-B-32"),
            ("ViT-S-32-alt", None, "random.*: or a file"),
            ("ViT-S-32-alt", "tag", "valid tags: none"),
            ("local-dir:/a/model", "tag", "--pretrained 'tag' with local-dir:/a/model.*leave it out"),
        ],
    )
    def test_wrong_names_list_the_right_ones(self, settings, model, pretrained, said):
        with pytest.raises(ValueError, match=said):
            runner.run(replace(settings, model=model, pretrained=pretrained))

    @pytest.mark.parametrize("content", [b"", b"trash" * 100, "other", "list"])
    def test_a_file_of_no_such_weights(self, settings, tmp_path, content):
        """open_clip raises five kinds of errors for them, none with the file's name."""
        path = tmp_path / "weights.pt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(tiny_clips.build().state_dict() if content == "other" else [1, 2], path)
        with pytest.raises(ValueError, match="weights.pt can't be loaded as ViT-S-32-alt .*other weights"):
            runner.run(replace(settings, model="ViT-S-32-alt", pretrained=str(path)))

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"precision": "fp17"}, "precision is 'fp17', expected one of fp32"),
            ({"device": "gpu"}, "'gpu' is not available"),
            ({"device": "cuda:99"}, "'cuda:99' is not available"),
        ],
    )
    def test_no_such_precision_or_device(self, settings, changes, said):
        with pytest.raises(ValueError, match=said):
            runner.run(replace(settings, **changes))

    def test_an_adapter_is_not_training_free_and_its_base_is(self, settings, bases, tmp_path):
        base = f"local-dir:{bases['llava']}"
        adapters.with_lora(vladva_clip.create_model(base)[0]).save_pretrained(tmp_path / "adapter")
        small = replace(settings, data_root=tmp_path / "data", scene_pictures=4)
        results = {}
        for name in (base, f"local-dir:{tmp_path / 'adapter'}"):
            results[name] = json.loads(runner.run(replace(small, model=name))[1].read_text())["vladva"]
        bare, tuned = results.values()
        assert bare["training_free"] is True and tuned["training_free"] is False
        assert bare["weights"] != tuned["weights"] and bare["base"] == tuned["base"] == base

    def test_a_published_embedder_is_not_training_free(self, bases, tmp_path):
        profile = profiles.named("ops-mm-2b")
        hub_cache.put(tmp_path / "hub", profile.repository, bases["qwen2_vl"], profile.revision)
        encoder = models.load("ops-mm-2b", "default", torch.device("cpu"), "fp32", str(tmp_path / "hub"))
        assert encoder.training_free is False and encoder.base == profile.repository


class TestTokens:
    """Rows of published embedders are up to 8192 tokens wide; those of a suite's texts are never all in memory."""

    @pytest.fixture
    def encoder(self):
        model, preprocess = vladva_clip.create_model("vladva-tiny")
        return models.in_hand(model, preprocess, vladva_clip.get_tokenizer("vladva-tiny", context_length=4096))

    def test_ours_are_cut_to_the_longest(self, encoder, monkeypatch):
        monkeypatch.setattr(encoding, "TEXTS_PER_CALL", 2)
        texts = ["a dog", "", "a red circle on the left of a dog", "two", "a large blue square above it"]
        whole, (found, width) = encoder.tokenizer(texts), encoding._tokens(encoder, texts)
        assert width == 4096 and found.shape[1] < 32
        assert torch.equal(found, whole[:, : found.shape[1]]) and not whole[:, found.shape[1] :].any()
        features = encoding.embed_texts(encoder, NoCache(), texts, 2)(texts)
        torch.testing.assert_close(features, encoder.model.encode_text(whole, normalize=True), rtol=0, atol=1e-5)

    def test_those_of_another_model_stay(self, encoder):
        found, width = encoding._tokens(replace(encoder, model=torch.nn.Identity()), ["a dog", "two"])
        assert found.shape == (2, width) == (2, 4096)


class TestCache:
    def test_features_are_computed_once(self, settings, capsys, tmp_path):
        """A second output folder, the same features; the cost that is reported is that of the first time."""
        first = runner.run(replace(settings, features=tmp_path / "features"))
        assert len(computed(capsys.readouterr().out)) == 3
        again = runner.run(replace(settings, features=tmp_path / "features", output=tmp_path / "other"))
        assert not computed(capsys.readouterr().out)
        assert metrics(first) == metrics(again)
        costs = [json.loads(path.read_text())["vladva"]["seconds"] for path in (first[0], again[0])]
        assert costs[0] == costs[1] > 0

    def test_finished_results_are_left_alone(self, settings, capsys):
        paths = runner.run(settings)
        before = [path.stat().st_mtime_ns for path in paths]
        capsys.readouterr()
        assert runner.run(settings) == paths and [path.stat().st_mtime_ns for path in paths] == before
        assert capsys.readouterr().out.count("is there already") == NUM_SCENE_TASKS

    def test_one_lost_result_is_scored_again_from_the_features(self, settings, capsys):
        paths = runner.run(settings)
        before = metrics(paths)
        paths[1].unlink()
        capsys.readouterr()
        assert metrics(runner.run(settings)) == before
        assert not computed(capsys.readouterr().out)

    def test_other_weights_under_the_same_name(self, settings, tmp_path):
        """A result is not written over, which is said before anything is computed; features are computed anew."""
        name = tiny_clips.write_directory(tmp_path / "clip")
        (path, *others) = runner.run(replace(settings, model=name))
        before = metrics([path])
        tiny_clips.write_directory(tmp_path / "clip", seed=1)
        path.unlink()
        with pytest.raises(
            ValueError,
            match="scenes_retrieval.*holds figures of other weights or of another precision .*another --output",
        ):
            runner.run(replace(settings, model=name))
        assert not path.exists()
        for other in others:
            other.unlink()
        assert metrics(runner.run(replace(settings, model=name))[:1]) != before

    @pytest.mark.parametrize("harm", [damage.cut, damage.rows_exchanged, damage.bit_of_the_end])
    def test_a_spoilt_file_changes_no_figure(self, settings, expected, capsys, harm):
        runner.run(settings)
        path = next((settings.output / "features").glob("images-*.safetensors"))
        harm(path)
        for result in settings.output.glob("*.json"):
            result.unlink()
        capsys.readouterr()
        assert metrics(runner.run(settings)) == expected
        assert f"images: {path} is damaged" in capsys.readouterr().out

    @pytest.mark.parametrize("content", ["{}", '{"dataset": "x"}', "[]", '{"vladva": {"format": 0}}'])
    def test_a_result_of_another_version_stops_before_the_model_loads(self, settings, content, tmp_path):
        name = f"local-dir:{tmp_path / 'no-model-is-here'}"
        place = runner.results.path(settings.output, "scenes", NAMES[0], name, "")
        place.parent.mkdir()
        place.write_text(content)
        with pytest.raises(ValueError, match=f"{place} .*format"):
            runner.run(replace(settings, model=name))
        assert place.read_text() == content


class TestSameFigures:
    @pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 5, "part": 256}, {"num_workers": 2}])
    def test_for_any_batch_size_part_and_number_of_workers(self, settings, expected, changes):
        assert metrics(runner.run(replace(settings, **changes))) == expected

    @pytest.mark.slow
    def test_for_several_processes(self, settings, tmp_path):
        """torchrun's processes share the parts, two of pictures and three of texts, and the first one scores."""
        alone = runner.run(replace(settings, data_root=tmp_path, scene_pictures=136, part=PART))
        words = ["run", "scenes", "--model", settings.model, "--data-root", str(tmp_path), "--num-workers", "0"]
        words += ["--output", str(tmp_path / "two"), "--scene-pictures", "136"]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "vladva_benchmarks.cli", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        assert metrics([tmp_path / "two" / path.name for path in alone]) == metrics(alone)
        features = {path.name: path for path in (settings.output / "features").glob("*.safetensors")}
        assert sum(name.startswith("images") for name in features) == 2  # parts of 272 pictures
        assert len(features) >= 2 + 1 + 3  # and of 48 classes, 680 captions and the foils
        for path in (tmp_path / "two" / "features").glob("*.safetensors"):
            assert torch.equal(*(_tensor(one) for one in (path, features.pop(path.name))))
        assert not features


def _tensor(path: Path) -> torch.Tensor:
    return load_file(path)["features"]
