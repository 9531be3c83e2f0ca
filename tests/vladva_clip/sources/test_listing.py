"""`vladva models`: every name with tags, size, license and origin, and whether its weights are on this machine."""

import json
import re
import subprocess
import sys

import pytest

import vladva_clip
from tests.support import hub_cache
from tests.support.models import tiny_bases
from vladva_clip import cli
from vladva_clip.sources import listing, profiles, registry, weights_here


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache."""
    monkeypatch.setattr(weights_here.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def listed(capsys) -> dict[str, list[str]]:
    assert cli.main(["models"]) == 0
    lines = [re.split(r" {2,}", line) for line in capsys.readouterr().out.splitlines()]
    return {line[0]: line[1:] for line in lines if len(line) > 1}


def here(name: str) -> str:
    return next(row.here for row in listing.rows() if row.name == name)


def test_each_name_with_its_tags_size_license_and_origin(listed):
    names = [name for shown in listed for name in shown.split(", ")]
    assert sorted(names) == sorted(["model", *vladva_clip.list_models()])
    assert listed["vladva-7b, vladva"] == ["training_free", "7.06B", "4096", "llama2", "no", "llava-hf/llava-1.5-7b-hf"]
    assert listed["vladva-tiny"] == ["base, scenes*", "6.5M", "256", "apache-2.0", "packaged", "the package"]
    for profile in profiles.packaged():
        tags, size, width, license, _, origin = listed[profile.name]
        assert (license, origin, int(width)) == (
            profile.license or "-",
            profile.repository,
            profile.config["embed_dim"],
        )
        assert float(size.removesuffix("B")) == pytest.approx(profile.num_parameters / 1e9, abs=0.006)
        if len(profile.tags) <= listing.MOST_TAGS:
            assert tags.replace("*", "").split(", ") == list(profile.tags)
        else:
            assert tags == f"{len(profile.tags)} tags, {profile.default_tag}*"


def test_many_tags_stand_below_the_table():
    (profile,) = (one for one in profiles.packaged() if len(one.tags) > listing.MOST_TAGS)
    assert f"tags of {profile.name}: {', '.join(profile.tags)}*" in " ".join(listing.lines())


def test_the_default_tag_is_the_one_that_is_used():
    for row in listing.rows():
        assert row.default_tag == registry.find(row.name).default_tag


def test_lines_are_short_enough_for_a_terminal(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})  # other tests register names with long paths
    assert max(map(len, listing.lines())) <= 124  # the longest Hub id has 40


def test_json_data_holds_the_same():
    data = json.loads(json.dumps(listing.json_rows()))
    assert [row["name"] for row in data] == [row.name for row in listing.rows()]
    assert {row["name"]: row["default_tag"] for row in data}["vladva-tiny"] == "scenes"


def test_it_needs_no_torch_and_no_network():
    code = (
        "import sys; from vladva_clip import cli; cli.main(['models']);"
        "heavy = {'torch', 'transformers', 'numpy', 'open_clip'} & set(sys.modules); assert not heavy, heavy"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


class TestWeightsHere:
    def test_whole_in_part_and_small_files_alone(self, cache, bases, tmp_path):
        profile = profiles.named("ops-mm-2b")
        snapshot = hub_cache.put(cache, profile.repository, bases["qwen2_vl"], commit=profile.revision)
        assert here("ops-mm-2b") == "yes" and here("ops-mm-7b") == "no"
        tiny_bases.split(snapshot, 3)
        assert here("ops-mm-2b") == "yes"
        shards = sorted(snapshot.glob("*.safetensors"))
        shards[0].unlink()
        assert here("ops-mm-2b") == "in part"
        for shard in shards[1:]:
            shard.unlink()
        assert here("ops-mm-2b") == "no"

    def test_a_link_whose_file_is_gone(self, cache, bases):
        snapshot = hub_cache.put(cache, "llava-hf/llava-1.5-7b-hf", bases["llava"])
        assert here("vladva-7b") == "yes"
        (snapshot / "model.safetensors").unlink()
        (snapshot / "model.safetensors").symlink_to("../../blobs/gone")
        assert here("vladva-7b") == "no"

    def test_registered_names(self, monkeypatch, cache, bases, tmp_path, capsys):
        monkeypatch.setattr(registry, "_registered", {})
        (tmp_path / "own").mkdir()
        vladva_clip.register("of-my-own", tmp_path / "own")
        vladva_clip.register("of-the-hub", "hf-hub:org/base@main")
        assert (here("of-my-own"), here("of-the-hub")) == ("yes", "no")
        (tmp_path / "own").rmdir()
        hub_cache.put(cache, "org/base", bases["llava"])
        assert (here("of-my-own"), here("of-the-hub")) == ("no", "yes")
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
    assert "ops-mm-2b is unavailable: needs transformers 5.3 or later" in capsys.readouterr().out
    with pytest.raises(ValueError, match="ops-mm-2b needs transformers 5.3 .*5.0.1rc1.*pip install"):
        vladva_clip.create_model("ops-mm-2b")
    versions["transformers"] = "5.3.0"
    assert profiles.missing_release(profiles.named("ops-mm-2b")) is None


@pytest.mark.parametrize("index", ["[]", '{"weight_map": []}', '{"weight_map": {"a": ["b"]}}', "{", '"text"'])
def test_a_damaged_index_of_weights_is_a_part(tmp_path, index):
    """The list of models must not fail because of a file in the Hub's cache; loading reports what is wrong with it."""
    (tmp_path / "model.safetensors.index.json").write_text(index)
    (tmp_path / "model.safetensors").touch()
    assert not weights_here.is_whole(tmp_path)
