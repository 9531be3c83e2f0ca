"""Names of the user's own for adapters and LVLMs: `register` and VLADVA_CLIP_MODELS, here and in open_clip."""

import json
import sys
from pathlib import Path

import open_clip
import pytest

import vladva_clip
from tests.support import adapters, hooked, hub_cache
from vladva_clip.sources import registry
from vladva_clip.sources.registry import UnknownModelError


@pytest.fixture(scope="module")
def ours(written_adapter):
    return vladva_clip.create_model(f"local-dir:{written_adapter}", precision="fp32")[0]


@pytest.fixture
def names():
    with hooked.scratch_names() as patch:
        yield patch


class TestRegister:
    def test_an_adapter_by_a_name_of_its_own(self, names, adapter, ours):
        vladva_clip.register("my-run", adapter)
        assert "my-run" in vladva_clip.list_models() and "my-run" in open_clip.list_models()
        for list_pretrained in (vladva_clip.list_pretrained, open_clip.list_pretrained):
            assert [pair for pair in list_pretrained() if pair[0] == "my-run"] == [("my-run", "registered")]
        for model in (
            open_clip.create_model("my-run", precision="fp32"),
            open_clip.create_model("my-run", "registered", precision="fp32"),
            vladva_clip.create_model("my-run", precision="fp32")[0],
        ):
            assert adapters.same(model, ours)
        assert isinstance(open_clip.get_tokenizer("my-run"), vladva_clip.VladvaTokenizer)
        stored = json.loads((adapter / "open_clip_config.json").read_text())["model_cfg"]
        assert open_clip.get_model_config("my-run") == vladva_clip.get_model_config("my-run") == stored
        with pytest.raises(RuntimeError, match="'base' .*my-run.*registered"):
            open_clip.create_model("my-run", "base")

    def test_a_bare_lvlm(self, names, base, model):
        vladva_clip.register("bare", str(base))
        assert adapters.same(vladva_clip.create_model("bare", precision="fp32")[0], model)
        config = vladva_clip.get_model_config("bare")
        assert (config["embed_dim"], config["text_cfg"]["vocab_size"]) == (model.embed_dim, model.vocab_size)
        assert config["vision_cfg"]["image_size"] == model.visual.image_size[0]

    def test_a_repository(self, names, adapter, base, ours, tmp_path):
        hub_cache.put_adapter(tmp_path, "org/adapter", adapter, base)
        vladva_clip.register("published", "hf-hub:org/adapter")
        assert adapters.same(open_clip.create_model("published", precision="fp32", cache_dir=str(tmp_path)), ours)

    def test_a_relative_directory_stays_what_it_was(self, names, adapter, monkeypatch, tmp_path):
        monkeypatch.chdir(adapter.parent)
        vladva_clip.register("relative", adapter.name)
        monkeypatch.chdir(tmp_path)
        assert isinstance(vladva_clip.get_tokenizer("relative"), vladva_clip.VladvaTokenizer)

    def test_again_replaces_it(self, names, adapter, base):
        vladva_clip.register("my-run", base)
        vladva_clip.register("my-run", adapter)
        assert registry.find("my-run").source == f"local-dir:{adapter}"

    def test_after_open_clip_was_dropped(self, names, base, monkeypatch):
        """From sys.modules, as some test suites do; it is patched again when it is imported again."""
        monkeypatch.delitem(sys.modules, "open_clip.factory")
        vladva_clip.register("my-run", base)
        assert "my-run" in vladva_clip.list_models()

    @pytest.mark.parametrize("name", ["a/b", "a,b", "a b", "", "a:b", "ä", None])
    def test_a_name_that_clients_would_split(self, names, base, name):
        with pytest.raises(ValueError, match="letters, digits"):
            vladva_clip.register(name, base)

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("vladva-tiny", "'vladva-tiny' is taken.*vladva_clip"),
            ("vladva", "'vladva' is taken.*vladva_clip"),
            ("ViT-B-32", "'ViT-B-32' .*taken.*open_clip"),
            ("my-CoCa", "'my-CoCa' .*'coca'"),
        ],
    )
    def test_a_name_that_is_taken(self, names, base, name, reason):
        with pytest.raises(ValueError, match=reason):
            vladva_clip.register(name, base)
        assert (name in vladva_clip.list_models()) == name.startswith("vladva")

    @pytest.mark.parametrize("path", ["no/such", Path("no/such"), "local-dir:no/such"])
    def test_a_directory_that_is_not_there(self, names, path):
        with pytest.raises(ValueError, match="no/such .*directory.*hf-hub:ORG/REPO"):
            vladva_clip.register("my-run", path)
        assert "my-run" not in open_clip.list_models()


class TestEnvironmentVariable:
    """That open_clip lists and loads its names is tested in integrations/test_open_clip.py, in a fresh interpreter."""

    @pytest.fixture
    def reading(self, names):
        """Have the variable read anew."""
        names.setattr(registry, "_from_environment", registry._from_environment.__wrapped__)
        return lambda value: names.setenv("VLADVA_CLIP_MODELS", value)

    def test_directories_are_looked_for_when_loaded(self, reading):
        reading("gone=/no/such/directory")
        assert "gone" in vladva_clip.list_models()
        with pytest.raises(ValueError, match="/no/such/directory"):
            vladva_clip.create_model("gone")

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("nonsense", "VLADVA_CLIP_MODELS .*'nonsense'.*NAME=PATH or NAME=hf-hub:ORG/REPO"),
            ("a=", "VLADVA_CLIP_MODELS .*'a='"),
            ("a/b=/x", "VLADVA_CLIP_MODELS: .*'a/b' .*letters"),
            ("a=/x,a=/y", "VLADVA_CLIP_MODELS .*'a'.*local-dir:/x.*local-dir:/y"),
            ("vladva=/x", "VLADVA_CLIP_MODELS: .*'vladva' .*taken"),
        ],
    )
    def test_what_cannot_be_read(self, reading, value, reason):
        reading(value)
        with pytest.raises(ValueError, match=reason):
            vladva_clip.list_models()

    def test_register_goes_before_it(self, reading, base):
        reading("my-run=/no/such/directory")
        vladva_clip.register("my-run", base)
        assert registry.find("my-run").source == f"local-dir:{base}"

    def test_unknown_names_are_told_of_registered_ones(self, reading):
        reading("my-special-run=/x")
        with pytest.raises(UnknownModelError, match="did you mean my-special-run"):
            vladva_clip.create_model("my-special-rum")
