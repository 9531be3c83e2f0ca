"""A bare path or Hub id given as a model's name: the error has the spelling that works."""

import os

import open_clip
import pytest

import vladva_clip
from tests.support import adapters
from vladva_benchmarks.suites.models import find_pretrained
from vladva_clip.sources.registry import UnknownModelError
from vladva_training.cli import main as train

EMBEDDER = "Qwen/Qwen3-VL-Embedding-2B"
WAYS = {
    "create_model": vladva_clip.create_model,
    "create_model_and_transforms": vladva_clip.create_model_and_transforms,
    "create_model_from_pretrained": vladva_clip.create_model_from_pretrained,
    "get_tokenizer": vladva_clip.get_tokenizer,
    "tokenize": lambda name: vladva_clip.tokenize("a cat", model=name),
    "benchmark": lambda name: find_pretrained(name, None),
}
HOOKED = {"open_clip's create_model": open_clip.create_model, "open_clip's get_tokenizer": open_clip.get_tokenizer}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory that has two folders, one of them named like a Hub id."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("runs/7b/adapter", EMBEDDER, "org/mine", "home/x"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "file").touch()
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("runs/7b/adapter", "did you mean local-dir:runs/7b/adapter?"),
        ("./runs/7b/adapter", "did you mean local-dir:./runs/7b/adapter?"),
        ("~/x", "did you mean local-dir:~/x?"),
        ("runs", "did you mean local-dir:runs?"),
        ("./runs/x", "there is no directory {here}/runs/x"),
        ("~/y", "there is no directory {here}/home/y"),
        ("{here}/nowhere", "there is no directory {here}/nowhere"),
        ("{here}/runs", "did you mean local-dir:{here}/runs?"),
        ("./file", "{here}/file is a file"),
        ("org/mine", "did you mean local-dir:org/mine or hf-hub:org/mine?"),
        ("org/theirs", "did you mean hf-hub:org/theirs? (there is no directory org/theirs here)"),
        ("org/theirs@v1", "did you mean hf-hub:org/theirs@v1?"),
        (EMBEDDER, f"did you mean qwen3-vl-embedding-2b or local-dir:{EMBEDDER} or hf-hub:{EMBEDDER}?"),
        ("qwen/qwen2-VL-2b-instruct", "did you mean vladva-2b or hf-hub:qwen/qwen2-VL-2b-instruct?"),
        ("vladva-tiny/", "did you mean vladva-tiny?"),
        ("vladva-tinyy", "did you mean vladva-tiny"),
        ("nul\0byte/x/y", "there is no directory"),
        ("a/" * 3000, "there is no directory"),
    ],
    ids=lambda value: value[:24].replace("\0", ""),
)
def test_the_spelling_that_works(here, way, name, said):
    name, said = name.replace("{here}", str(here)), said.replace("{here}", str(here))
    with pytest.raises(UnknownModelError, match="unknown model") as caught:
        WAYS[way](name)
    assert said in str(caught.value) and isinstance(caught.value, ValueError) and isinstance(caught.value, RuntimeError)


def test_our_own_names_are_never_looked_for_on_the_hub(here):
    with pytest.raises(UnknownModelError) as caught:
        vladva_clip.create_model("vladva-7b/adapter")
    assert "hf-hub:vladva" not in str(caught.value)


def test_what_is_suggested_works(bases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapters.write_adapter(bases["llava"], tmp_path / "runs/adapter")
    with pytest.raises(UnknownModelError, match="did you mean (local-dir:runs/adapter) or") as caught:
        vladva_clip.create_model("runs/adapter")
    suggested = str(caught.value).partition("did you mean ")[2].partition(" or ")[0]
    assert (
        vladva_clip.create_model(suggested)[0].config == vladva_clip.VladvaCLIP.from_pretrained("runs/adapter").config
    )


@pytest.mark.parametrize("way", HOOKED)
def test_the_hook_knows_what_is_ours(bases, tmp_path, monkeypatch, way):
    """open_clip itself takes CLIP's tokenizer for such names, with a warning."""
    monkeypatch.chdir(tmp_path)
    adapters.write_adapter(bases["llava"], tmp_path / "runs/7b/adapter")
    for name, said in (("./runs/7b/adapter", "local-dir:./runs/7b/adapter"), (EMBEDDER, "qwen3-vl-embedding-2b")):
        with pytest.raises(UnknownModelError, match=f"did you mean {said}"):
            HOOKED[way](name)


def test_the_hook_leaves_open_clip_s_own_names_alone(here):
    os.makedirs("ViT-B/32")
    assert open_clip.get_model_config("ViT-B-32") and open_clip.get_tokenizer("ViT-B/32")(["a cat"]).shape == (1, 77)
    with pytest.raises(RuntimeError, match="not found in built-ins") as caught:
        open_clip.create_model("ViT-B/33")
    assert not isinstance(caught.value, UnknownModelError)
    with pytest.raises(UnknownModelError, match="there is no directory"):
        open_clip.create_model("./runs/x")
    assert open_clip.get_model_config("./runs/x") is None


@pytest.mark.parametrize("further", [[], ["--dry-run"]])
def test_a_recipe_s_model(here, capsys, further):
    assert train(["debug", "model.name=./runs/7b/adapter", *further]) == 2
    assert "did you mean local-dir:./runs/7b/adapter?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["./runs/x", "a/b/c", "/nowhere/at/all", "~/y"])
def test_where_bare_directories_are_taken_a_missing_one_is_said(here, name):
    with pytest.raises(ValueError, match="does not exist or is not a directory"):
        vladva_clip.VladvaCLIP.from_pretrained(name)
    with pytest.raises(ValueError, match="does not exist or is not a directory"):
        vladva_clip.export_model(name, here / "out")


@pytest.mark.parametrize("pretrained", ["hf-hub:org/adapter", "local-dir:runs"])
def test_a_source_given_as_a_tag(here, pretrained):
    with pytest.raises(ValueError, match=f"{pretrained}.*model's name"):
        vladva_clip.create_model("vladva-tiny", pretrained)
