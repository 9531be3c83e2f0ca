"""`vladva models`: every name and tag with license, size and origin; what the installed transformers lacks is said."""

import re

import pytest

import vladva_clip
from vladva_clip import cli
from vladva_clip.sources import profiles, registry


@pytest.fixture
def listed(capsys) -> dict[str, list[str]]:
    assert cli.main(["models"]) == 0
    rows = [re.split(r" {2,}", line) for line in capsys.readouterr().out.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_each_name_and_tag_with_license_size_and_origin(listed):
    assert list(listed) == ["model:tag", *vladva_clip.list_pretrained(as_str=True)]
    assert listed["vladva-7b:training_free"] == ["llama2", "7.06B", "llava-hf/llava-1.5-7b-hf"]
    assert listed["vladva-tiny:scenes"] == ["apache-2.0", "6.5M", "the package"]
    for profile in profiles.packaged():
        for tag in profile.tags:
            license, size, origin = listed[f"{profile.name}:{tag}"]
            assert (license, origin) == (profile.license, profile.repository)
            assert float(size.removesuffix("B")) == pytest.approx(profile.num_parameters / 1e9, abs=0.006)


def test_a_registered_name_shows_its_place(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(registry, "_registered", {})
    vladva_clip.register("of-my-own", tmp_path)
    assert cli.main(["models"]) == 0
    assert f"local-dir:{tmp_path}" in capsys.readouterr().out


def test_what_an_older_transformers_lacks(monkeypatch, capsys):
    versions = {"transformers": "5.0.1rc1"}
    monkeypatch.setattr(profiles.metadata, "version", versions.__getitem__)
    wanting = {**vars(profiles.named("ops-mm-2b")), "transformers": "5.3"}
    monkeypatch.setitem(profiles._packaged(), "ops-mm-2b", profiles.Profile(**wanting))
    entry = registry.MODELS["ops-mm-2b"]
    newer = registry.replace(entry, profile=profiles.named("ops-mm-2b"))
    monkeypatch.setitem(registry.MODELS, "ops-mm-2b", newer)
    assert cli.main(["models"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("ops-mm-2b:default"))
    assert "unavailable: needs transformers 5.3 or later" in line
    with pytest.raises(ValueError, match="ops-mm-2b needs transformers 5.3 .*5.0.1rc1.*pip install"):
        vladva_clip.create_model("ops-mm-2b")
    versions["transformers"] = "5.3.0"
    assert profiles.missing_release(profiles.named("ops-mm-2b")) is None
