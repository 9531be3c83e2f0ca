"""Exports from a Hub on the loopback, with the real client: what can't be exported is not downloaded."""

import json

import pytest

import vladva_clip
from tests.support import hub_server
from tests.support.models import embedders
from vladva_clip.storage.base import CONFIG

MODEL = "org/model"


@pytest.fixture
def hub():
    with hub_server.start() as hub, hub_server.online(hub):
        yield hub


def put(hub, directory, repo: str = MODEL) -> None:
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    hub.repos[repo] = hub_server.Repo(repo, files, hub_server.COMMIT)


def weights_asked_for(hub) -> list[str]:
    return [path for path in hub.asked if "/resolve/" in path and path.endswith(".safetensors")]


@pytest.mark.parametrize("name", [f"hf-hub:{MODEL}", MODEL, "llava-onevision-0.5b"])
def test_a_family_without_an_export(hub, bases, tmp_path, name):
    put(hub, bases["llava_onevision"])
    put(hub, bases["llava_onevision"], "llava-hf/llava-onevision-qwen2-0.5b-ov-hf")
    with pytest.raises(ValueError, match="LLaVA-OneVision always cuts tiles.*through vladva_clip"):
        vladva_clip.export_model(name, tmp_path / "out", cache_dir=str(tmp_path / "cache"))
    assert hub.asked and not weights_asked_for(hub) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("setting", "value"), [("pooling", "mean"), ("positions", "plain")])
def test_a_profile_without_an_export(hub, tmp_path, setting, value):
    put(hub, embedders.write_qwen(tmp_path / "base"))
    profile = embedders.write_profile(tmp_path / "own.json", **{setting: value})
    with pytest.raises(ValueError, match=f"{setting}='{value}'"):
        vladva_clip.export_model(MODEL, tmp_path / "out", cache_dir=str(tmp_path / "cache"), profile=profile)
    assert hub.asked and not weights_asked_for(hub)


def test_an_adapter_of_such_a_family(hub, bases, tmp_path):
    """Its own config tells; of its base nothing is asked for."""
    model, _ = vladva_clip.create_model(f"local-dir:{bases['llava_onevision']}", precision="fp32")
    model.save_pretrained(tmp_path / "adapter")
    put(hub, tmp_path / "adapter")
    with pytest.raises(ValueError, match="LLaVA-OneVision always cuts tiles"):
        vladva_clip.export_model(MODEL, tmp_path / "out", cache_dir=str(tmp_path / "cache"))
    assert hub.asked and not weights_asked_for(hub)


def test_what_can_be_exported(hub, bases, tmp_path):
    """An adapter and its base, each downloaded, by the command's own function."""
    model, _ = vladva_clip.create_model(f"local-dir:{bases['llava']}", precision="fp32")
    model.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "vladva_config.json").read_text())
    config["base"]["id"] = "org/base"
    (tmp_path / "adapter" / "vladva_config.json").write_text(json.dumps(config))
    put(hub, tmp_path / "adapter")
    put(hub, bases["llava"], "org/base")
    out = vladva_clip.export_model(MODEL, tmp_path / "out", "fp32", cache_dir=str(tmp_path / "cache"))
    assert (out / CONFIG).is_file()
    again, _ = vladva_clip.create_model(f"local-dir:{out}", precision="fp32")
    assert again.visual.backbone.family == "llava"
    assert len(weights_asked_for(hub)) >= 2
