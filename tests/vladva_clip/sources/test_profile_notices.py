"""The revision at which a published embedder is read, and the license that is said."""

import logging
from pathlib import Path

import pytest
import torch

import vladva_clip
from tests.support import adapters, hub_cache
from vladva_clip.sources import locate, notices, profiles

GME, REPO = "gme-qwen2-vl-2b", "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"
PINNED, OTHER = profiles.named(GME).revision, "b" * 40
SMALL = {"precision": "fp32", "image_size": 56}


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(locate, "_warned", set())
    monkeypatch.setattr(notices, "_announced", set())


class TestRevisions:
    @pytest.fixture
    def cache_of(self, bases, tmp_path):
        def put(**commits: str) -> Path:
            for ref, commit in commits.items():
                hub_cache.put(tmp_path / "hub", REPO, bases["qwen2_vl"], commit=commit, ref=ref)
            return tmp_path / "hub"

        return put

    @pytest.mark.parametrize("name", [GME, f"hf-hub:{REPO}", f"hf-hub:{REPO.lower()}"])
    def test_the_one_it_was_made_for_comes_first(self, cache_of, name, caplog):
        cache_dir = cache_of(main=OTHER, pinned=PINNED)
        model, _ = vladva_clip.create_model(name, cache_dir=cache_dir, **SMALL)
        assert (model.config.base.id, model.config.base.revision) == (REPO, PINNED)
        assert model.config.base.profile == GME and model.config.encoding.positions == "plain"
        assert "revision" not in caplog.text and "training-free" not in caplog.text

    def test_else_main_if_it_is_here_with_a_warning(self, cache_of, caplog):
        cache_dir = cache_of(main=OTHER)
        model, _ = vladva_clip.create_model(GME, cache_dir=cache_dir, **SMALL)
        assert model.config.base.revision == OTHER
        for word in (OTHER, PINNED, GME, REPO):
            assert word in caplog.text
        vladva_clip.get_tokenizer(GME, cache_dir=cache_dir)
        assert caplog.text.count(PINNED) == 1  # said once

    def test_one_asked_for_is_taken_and_warned_of(self, cache_of, caplog):
        cache_dir = cache_of(main=PINNED, v2=OTHER)
        model, _ = vladva_clip.create_model(f"hf-hub:{REPO}@v2", cache_dir=cache_dir, **SMALL)
        assert model.config.base.revision == OTHER and OTHER in caplog.text
        with pytest.raises(ValueError, match=REPO):
            vladva_clip.create_model(f"hf-hub:{REPO}@v3", cache_dir=cache_dir)

    def test_neither_is_here(self, tmp_path):
        with pytest.raises(ValueError, match=REPO):
            vladva_clip.create_model(GME, cache_dir=tmp_path)

    def test_an_adapter_names_the_revision_and_the_profile(self, cache_of, tmp_path):
        cache_dir = cache_of(main=OTHER, pinned=PINNED)
        model, _ = vladva_clip.create_model(GME, "retrieval", cache_dir=cache_dir, **SMALL)
        adapters.with_lora(model).save_pretrained(tmp_path / "adapter")
        again = adapters.load(tmp_path / "adapter", cache_dir=cache_dir)
        assert (again.config.base.revision, again.config.base.profile) == (PINNED, GME)
        tokens = vladva_clip.get_tokenizer(f"local-dir:{tmp_path}/adapter", cache_dir=cache_dir)(["a dog"])
        assert torch.equal(tokens, vladva_clip.get_tokenizer(GME, cache_dir=cache_dir)(["a dog"]))
        torch.testing.assert_close(again.encode_text(tokens), model.encode_text(tokens), rtol=0, atol=1e-4)


class TestLicenses:
    """One that forbids commercial use is said, once for each name."""

    def load(self, caplog, *arguments, **options) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            vladva_clip.create_model(*arguments, **options, **SMALL)
        return [record.getMessage() for record in caplog.records if "commercial" in record.getMessage()]

    def test_of_a_profile_from_the_hub(self, bases, tmp_path, caplog, monkeypatch):
        hub_cache.put(tmp_path, REPO, bases["qwen2_vl"], commit=PINNED)
        assert self.load(caplog, GME, cache_dir=tmp_path) == []
        monkeypatch.setattr(notices, "_announced", set())
        frozen = profiles.named(GME)
        monkeypatch.setitem(vars(frozen), "license", "cc-by-nc-4.0")
        (said,) = self.load(caplog, GME, cache_dir=tmp_path)
        assert "cc-by-nc-4.0" in said and REPO in said and "no commercial use" in said
        assert self.load(caplog, GME, cache_dir=tmp_path) == []

    def test_of_a_profile_for_a_directory(self, embedder, own, caplog):
        (said,) = self.load(caplog, f"local-dir:{embedder}", profile=own(license="cc-by-nc-4.0"))
        assert "cc-by-nc-4.0" in said
        assert self.load(caplog, f"local-dir:{embedder}", profile=own(license="cc-by-nc-4.0")) == []
