"""A directory or a Hub snapshot without a model is refused, whichever way it is given: what was found and expected."""

import shutil

import pytest

import vladva_clip
from tests.support import adapters, hub_cache
from vladva_clip.cli import main
from vladva_training.cli import main as train

WAYS = {
    "create_model": lambda place: vladva_clip.create_model(f"local-dir:{place}"),
    "without weights": lambda place: vladva_clip.create_model(f"local-dir:{place}", load_weights=False),
    "get_tokenizer": lambda place: vladva_clip.get_tokenizer(f"local-dir:{place}"),
    "pretrained": lambda place: vladva_clip.create_model("vladva-tiny", str(place)),
    "pretrained, a path": lambda place: vladva_clip.create_model("vladva-tiny", place),
    "profile": lambda place: vladva_clip.create_model(f"local-dir:{place}", profile="qwen3-vl-embedding-2b"),
    "from_pretrained": vladva_clip.VladvaCLIP.from_pretrained,
    "export": lambda place: vladva_clip.export_model(place, place.with_name("out")),
    "card": vladva_clip.write_card,
    "push": lambda place: vladva_clip.push_to_hub(place, "org/name"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("files", "found"),
    [((), "found an empty directory"), (("README.md", "checkpoints/step_1.pt"), "found README.md, checkpoints/")],
    ids=["empty", "other files"],
)
def test_what_was_found_and_expected(tmp_path, way, files, found):
    place = tmp_path / "given"
    place.mkdir()
    for file in files:
        (place / file).parent.mkdir(exist_ok=True)
        (place / file).touch()
    with pytest.raises(ValueError, match="vladva_config.json") as caught:
        WAYS[way](place)
    assert str(place) in str(caught.value) and found in str(caught.value).replace("checkpoints, R", "R")
    assert not (tmp_path / "out").exists()


def test_many_files_are_not_all_listed(tmp_path):
    for number in range(20):
        (tmp_path / f"{number:02d}.jpg").touch()
    with pytest.raises(ValueError, match=r"found 00.jpg, .*07.jpg and 12 more"):
        vladva_clip.create_model(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("way", ["create_model", "from_pretrained", "card", "export"])
def test_a_run_s_folder_names_the_adapter_inside(bases, tmp_path, way):
    adapters.write_adapter(bases["llava"], tmp_path / "run/adapter")
    (tmp_path / "run/metrics.jsonl").touch()
    with pytest.raises(ValueError, match=f"did you mean local-dir:{tmp_path}/run/adapter"):
        WAYS[way](tmp_path / "run")


@pytest.mark.parametrize("name", ["{}", "vladva-tiny:{}"], ids=["name", "pretrained"])
@pytest.mark.parametrize("further", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_a_recipe(tmp_path, capsys, monkeypatch, name, further):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    asked = f"model.pretrained={tmp_path}/empty" if ":" in name else f"model.name=local-dir:{tmp_path}/empty"
    assert train(["debug", asked, "output_dir=out", *further]) == 2
    assert "empty holds no model: expected vladva_config.json" in capsys.readouterr().err


def test_the_command_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for command in (["export", f"{tmp_path}/empty", f"{tmp_path}/out"], ["card", f"{tmp_path}/empty"]):
        assert main(command) == 2
        assert "found an empty directory" in capsys.readouterr().err


def test_a_snapshot_of_the_hub(bases, tmp_path):
    """Weights without a config, as a repository of another program may have them: the Hub id is named."""
    place = hub_cache.put(tmp_path / "cache", "org/other", bases["llava"])
    for file in place.glob("*.json"):
        file.unlink()
    with pytest.raises(ValueError, match=r"org/other \(.*\) holds no model: expected .*, found .*safetensors"):
        vladva_clip.create_model("hf-hub:org/other", cache_dir=str(tmp_path / "cache"))


def test_a_tokenizer_s_files_are_enough_for_a_tokenizer(bases, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bases["llava"] / name, tmp_path)
    tokens = vladva_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a cat"])
    assert tokens.shape == (1, 256)
    with pytest.raises(ValueError, match=r"holds no model: .*found tokenizer.json"):
        vladva_clip.create_model(f"local-dir:{tmp_path}")
