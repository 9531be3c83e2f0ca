"""An adapter is saved to a directory of its own: nothing of anyone else's is replaced, deleted or mixed with it."""

import os

import pytest

import vladva_clip
from vladva_clip import cli
from vladva_clip.interface import arguments
from vladva_clip.storage import foreign_files


@pytest.fixture(scope="module")
def model():
    return vladva_clip.create_model("vladva-tiny")[0]


def contents(directory) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def put(directory, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"mine: {name}")


@pytest.mark.parametrize(
    "names",
    [
        ("holiday.jpg",),
        ("README.md", "thesis.tex"),
        ("holidays/2024.jpg",),
        ("notes.txt", ".git/config"),
        ("config.json",),
        ("pytorch_model.bin", "README.md"),
        ("a.png", "b.png", "c.png", "d.png"),
    ],
)
def test_saving_among_other_files_has_to_be_asked_for(model, tmp_path, names):
    put(tmp_path, *names)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="force=True") as caught:
        model.save_pretrained(tmp_path, verify=False)
    assert str(tmp_path) in str(caught.value) and contents(tmp_path) == before
    assert len(names) < 4 or "'c.png' and 1 more" in str(caught.value)
    model.save_pretrained(tmp_path, verify=False, force=True)
    assert (tmp_path / "vladva_config.json").exists() and contents(tmp_path).items() >= before.items()


@pytest.mark.parametrize(
    "names",
    [("adapter_config.json", "adapter_model.safetensors"), ("tokenizer.json",), ("additional_chat_templates/a.jinja",)],
)
@pytest.mark.parametrize("force", [False, True])
def test_another_programs_files_of_the_same_names_are_never_replaced(model, tmp_path, names, force):
    put(tmp_path, *names)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"{names[0].split('.')[0]}.*replace"):
        model.save_pretrained(tmp_path, verify=False, force=force)
    assert contents(tmp_path) == before


def test_an_adapters_directory_and_a_clone_of_the_hub_are_saved_into(model, tmp_path):
    put(tmp_path, ".git/config", ".gitattributes", ".cache/x", "README.md", "LICENSE", "card.md", "results/a.json")
    before = contents(tmp_path)
    for _ in range(2):
        model.save_pretrained(tmp_path, verify=False)
    assert contents(tmp_path).items() >= before.items()
    put(tmp_path, "additional_chat_templates/notes.txt")  # in a folder that a save may replace as a whole
    with pytest.raises(ValueError, match="additional_chat_templates/notes.txt"):
        model.save_pretrained(tmp_path, verify=False)


def test_what_a_save_makes_anew_is_none_of_the_others(model, tmp_path):
    model.save_pretrained(tmp_path, verify=False)
    assert foreign_files.others(tmp_path) == [] == foreign_files.others(tmp_path / "none")
    put(tmp_path, "README.md", "notes.txt", "results/a.json", ".git/config")
    assert [path.name for path in foreign_files.others(tmp_path)] == [".git", "README.md", "notes.txt", "results"]


def test_the_home_directory_is_expanded_everywhere(model, tmp_path, monkeypatch, capsys):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    model.save_pretrained("~/a", verify=False)
    assert cli.main(["card", "~/a", "--output=~/card.md"]) == 0 and (tmp_path / "card.md").is_file()
    assert cli.main(["export", "~/a", "~/b"]) == 0
    assert {"a", "b"} < set(os.listdir(tmp_path)) and os.listdir() == []
    with pytest.raises(ValueError, match="none does not exist"):
        vladva_clip.VladvaCLIP.from_pretrained("~/none")
    with pytest.raises(ValueError, match="~nobody-of-that-name/a.*can't be found"):
        model.save_pretrained("~nobody-of-that-name/a")
    assert cli.main(["pull", "org/name", "--output=~nobody-of-that-name/a"]) == 2
    assert "~nobody-of-that-name/a" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["", None, 3, b"adapter"])
def test_what_is_no_path(value):
    with pytest.raises(ValueError, match="path is"):
        arguments.user_path(value)
