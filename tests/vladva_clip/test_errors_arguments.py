"""Arguments of the factory and of tokenizers that can't be meant: refused by value, and before any weight is read."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vladva_clip
from vladva_clip.encoder import loading


@pytest.fixture
def no_weights(monkeypatch):
    """Loading stops the test: what is wrong must have been found before."""

    def fail(*_, **__):
        pytest.fail("weights were read")

    monkeypatch.setattr(loading.Backbone, "from_directory", fail)
    monkeypatch.setattr(loading.BaseFiles, "fingerprint", property(fail))
    monkeypatch.setattr(loading.BaseFiles, "headers", property(fail))


def create(directory, **options):
    return vladva_clip.create_model(f"local-dir:{directory}", **{"precision": "fp32", **options})[0]


class TestPreprocessCfg:
    @pytest.mark.parametrize(("key", "near"), [("sizee", "size"), ("interpolaton", "interpolation"), (3, "known")])
    def test_unknown_key(self, base, key, near):
        with pytest.raises(ValueError, match=f"force_preprocess_cfg .*{key!r}.*{near}"):
            create(base, force_preprocess_cfg={key: 224, "mode": "RGB"})

    @pytest.mark.parametrize("mode", ["L", "RGBA", 3])
    def test_another_mode(self, base, mode):
        with pytest.raises(ValueError, match=f"force_preprocess_cfg .*{mode!r}.*RGB"):
            create(base, force_preprocess_cfg={"mode": mode})

    @pytest.mark.parametrize("cfg", [None, {}, {"mode": "RGB"}, {"mode": None, "size": None}])
    def test_nothing_asked_for(self, base, cfg):
        assert create(base, force_preprocess_cfg=cfg).embed_dim == 32


class TestPretrainedAsAPath:
    class Elsewhere(os.PathLike):
        def __init__(self, path):
            self.path = path

        def __fspath__(self):
            return str(self.path)

    @pytest.mark.parametrize("kind", [Path, Elsewhere])
    def test_is_a_directory(self, adapter, tmp_path, kind):
        with pytest.raises(ValueError, match="made for .*vladva-2b"):  # found, and made for another base
            vladva_clip.create_model("vladva-2b", kind(adapter))
        with pytest.raises(ValueError, match="nowhere .*directory"):
            vladva_clip.create_model("vladva-2b", kind(tmp_path / "nowhere"))

    def test_is_never_a_tag(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match="training_free .*directory"):
            vladva_clip.create_model("vladva-2b", Path("training_free"))


class TestBeforeAnyWeightIsRead:
    def test_an_adapter_of_another_base(self, adapter, no_weights):
        with pytest.raises(ValueError, match="made for .*vladva-2b"):
            vladva_clip.create_model("vladva-2b", adapter)

    @pytest.mark.parametrize(
        "options",
        [{"force_preprocess_cfg": {"size": 57}}, {"force_context_length": 1}, {"force_context_length": 0}],
    )
    def test_arguments(self, adapter, base, no_weights, options):
        for directory in (adapter, base):
            with pytest.raises(ValueError, match="size=57|context_length is"):
                create(directory, **options)

    def test_a_processor_without_its_base(self, base, tmp_path, no_weights):
        shutil.copytree(base, tmp_path / "base", ignore=shutil.ignore_patterns("*processor*"))
        with pytest.raises(ValueError, match="preprocessor_config.json"):
            create(tmp_path / "base")


class TestTokenizer:
    @pytest.mark.parametrize("texts", [None, 5, 2.5, torch.tensor(3)])
    def test_no_captions(self, tokenizer, base, texts):
        with pytest.raises(ValueError, match=f"captions .*{type(texts).__name__}.*string"):
            tokenizer(texts)
        with pytest.raises(ValueError, match="captions"):
            vladva_clip.tokenize(texts, model=f"local-dir:{base}")

    @pytest.mark.parametrize("width", [0, 1, -3, 7.5, "77"])
    def test_width(self, tokenizer, base, width):
        for call in (
            lambda: tokenizer("dog", context_length=width),
            lambda: vladva_clip.get_tokenizer(f"local-dir:{base}", context_length=width),
            lambda: vladva_clip.VladvaTokenizer(str(base), context_length=width),
            lambda: vladva_clip.tokenize("dog", width, f"local-dir:{base}"),
            lambda: create(base, force_context_length=width),
        ):
            with pytest.raises(ValueError, match="context_length is .*at least 2"):
                call()

    def test_widths_that_are(self, tokenizer):
        assert tokenizer("dog", 2).shape == tokenizer("dog", np.int64(2)).shape == (1, 2)
        assert tokenizer("dog", None).shape == (1, 256)
