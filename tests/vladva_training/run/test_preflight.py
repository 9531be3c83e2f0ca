"""What is wrong with a run is found before a weight is read, all of it at once, and in every process alike."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.training import runs
from vladva_training import cli
from vladva_training.data.probe import require_readable
from vladva_training.data.specs import open_source
from vladva_training.train import train

BAD = {  # settings -> what is said; `{0}` is a folder with an empty file `file`, an empty folder `empty` and bad data
    "data.train=wds:{0}/no/{{000..003}}.tar": "4 of 4 files are missing",
    "data.train=wds:{0}/empty": "holds no *.tar files",
    "data.train=jsonl:{0}/no.jsonl": "there is no file",
    "data.train=csv:{0}/no.csv": "there is no file",
    "data.train=parquet:{0}/no.parquet": "1 of 1 files are missing",
    "data.train=hf:{0}/no:train": "",
    "data.train=scenes:nosplit": "expected one of train, validation, test, heldout",
    "data.train=nokind:x": "unknown form",
    "data.train=scenes:train:800,jsonl:{0}/no.jsonl": "there is no file",
    "data.train=jsonl:{0}/gone.jsonl": "line 1: missing image",
    "data.evaluation=jsonl:{0}/no.jsonl": "there is no file",
    "data.evaluation=jsonl:{0}/gone.jsonl": "none of its 3 records",
    "run.best_metric=recall": "run.best_metric is 'recall'",
    "run.best_metric=foils data.evaluation=none": "data.evaluation",
    "output_dir={0}/file/run": "output_dir {0}/file/run can't be written",
}
ONLY_IN_A_RUN = {"batch.size=100000": "larger than the", "data.train=scenes:train:8 batch.size=16": "larger than the 8"}


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "gone.jsonl").write_text('{"image_path": "gone.png", "caption": "a red circle"}\n' * 3)
    return tmp_path


@pytest.fixture
def without_weights(bases, tmp_path) -> Path:
    """A base without its weights, with pairs beside it: whatever reads them fails, and says so."""
    place = tmp_path / "bases" / "llava"
    shutil.copytree(bases["llava"], place, ignore=shutil.ignore_patterns("*.safetensors*"))
    runs.write_pairs(place.parent / "pairs.jsonl")
    return place


def settings(words: str, place: Path) -> list[str]:
    words = words.format(place).split()
    return words if any(word.startswith("output_dir") for word in words) else [*words, f"output_dir={place}/run"]


@pytest.mark.parametrize("words", [*BAD, *ONLY_IN_A_RUN])
def test_a_run_is_refused_without_its_weights(words, place, bases, without_weights, capsys):
    model = [f"model.name=local-dir:{without_weights}", "model.pretrained=none"]
    assert cli.main(["debug", *model, *settings(words, place)]) == 2
    said = capsys.readouterr().err
    assert (BAD | ONLY_IN_A_RUN)[words].format(place) in said and said.count("\n") == 1
    assert "safetensors" not in said


def test_with_nothing_else_wrong_the_weights_are_what_is_missing(without_weights, tmp_path):
    with pytest.raises(ValueError, match="weights|safetensors"):
        train(runs.small_recipe(without_weights, tmp_path / "run"))


@pytest.mark.parametrize("words", BAD)
def test_a_dry_run_finds_the_same_and_changes_nothing(words, place, capsys):
    before = sorted(place.rglob("*"))
    assert cli.main(["debug", *settings(words, place), "--dry-run"]) == 2
    said = capsys.readouterr()
    assert BAD[words].format(place) in said.err and said.err.count("\n") == 1
    assert said.out.startswith("Recipe debug") and sorted(place.rglob("*")) == before


def test_a_dry_run_knows_that_a_recipe_s_own_data_is_somewhere_else(capsys):
    assert cli.main(["llava15_7b", "--dry-run"]) == 0
    assert capsys.readouterr().err == ""


def test_all_is_found_at_once(place, without_weights, capsys):
    words = [f"data.train=jsonl:{place}/no.jsonl", f"data.evaluation=csv:{place}/no.csv", f"output_dir={place}/run"]
    (place / "run" / "adapter").mkdir(parents=True)
    assert cli.main(["debug", *words, f"model.name=local-dir:{without_weights}", "model.pretrained=none"]) == 2
    said = capsys.readouterr().err
    assert "3 problems must be fixed first: (1) " in said
    assert all(part in said for part in ("no.jsonl", "no.csv", "run/adapter exists"))


@pytest.mark.parametrize(
    ("changes", "said"), [({"seed": 5}, "seed: 0 in the checkpoint, 5 now"), ({}, "can't be read")]
)
def test_what_does_not_go_on_is_found_without_the_weights(bases, without_weights, tmp_path, changes, said):
    """Settings that may not differ, and a checkpoint's tensors that were cut."""
    runs.write_pairs(bases["llava"].parent / "pairs.jsonl")
    run = {"steps": 1, "evaluate_every": 0}
    begun = runs.small_recipe(bases["llava"], tmp_path / "run", run=run)
    assert train(begun) == 0
    record = tmp_path / "run/checkpoints/step-00000001/trainer.json"
    text = json.loads(record.read_text())
    text["setting"] |= {"model.name": f"local-dir:{without_weights}"}
    text["setting"] |= {"data.train": [f"jsonl:{without_weights.parent / 'pairs.jsonl'}"]}
    record.write_text(json.dumps(text))
    if not changes:
        (record.parent / "trainer.safetensors").write_bytes((record.parent / "trainer.safetensors").read_bytes()[:-9])
    with pytest.raises(ValueError, match=said):
        train(runs.small_recipe(without_weights, tmp_path / "run", run=run, resume=True, **changes))


@pytest.mark.slow
def test_what_the_first_process_alone_finds_ends_all(without_weights, tmp_path):
    """It alone opens `data.evaluation`; the other must not wait for it."""
    recipe = runs.small_recipe(without_weights, tmp_path / "run", data={"evaluation": f"jsonl:{tmp_path}/no.jsonl"})
    group = runs.start_group(recipe, 2)
    for process in group:
        process.join(60)
    exits = [process.exitcode for process in group]
    for process in group:
        process.kill()
    assert exits == [1, 1]
    assert all("there is no file" in Path(f"{recipe.output_dir}.log{rank}").read_text() for rank in ("", "1"))


def test_one_record_that_can_be_read_is_enough(place):
    (place / "good.jsonl").write_text('{"image_path": "gone.png"}\n' * 2 + '{"image_path": "here.png"}\n')
    runs.Image.new("RGB", (8, 8)).save(place / "here.png")
    require_readable(open_source(f"jsonl:{place}/good.jsonl"))
