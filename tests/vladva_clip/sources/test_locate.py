"""Real names, resolved offline against a hand-made Hub cache of tiny models under the real ids."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

import vladva_clip
from tests.support import hub_cache
from tests.support.models import llama, tiny_bases
from vladva_clip.sources.download import NotHereError
from vladva_clip.sources.locate import locate, locate_base
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.config import BaseConfig

REAL_IDS = {"llava": "llava-hf/llava-1.5-7b-hf", "qwen2_vl": "Qwen/Qwen2-VL-2B-Instruct"}
NAMES = {"llava": "vladva-7b", "qwen2_vl": "vladva-2b"}


@pytest.fixture(scope="module")
def cache_dir(bases, tmp_path_factory):
    """Both bases under their real ids; LLaVA's weights under the older key names of the Hub."""
    root = tmp_path_factory.mktemp("hub")
    for family, repo in REAL_IDS.items():
        snapshot = hub_cache.put(root, repo, bases[family])
        if family == "llava":
            tiny_bases.rename_to_hub_llava(snapshot)
    return root


@pytest.mark.parametrize("family", sorted(NAMES))
def test_real_names_load_from_the_cache(family, cache_dir, bases):
    model, preprocess = vladva_clip.create_model(NAMES[family], cache_dir=cache_dir)
    assert (model.config.base.id, model.config.base.revision) == (REAL_IDS[family], "a" * 40)
    assert model.visual.backbone.dtype == torch.bfloat16  # the config's own, since no precision was named
    direct, _ = vladva_clip.create_model(f"local-dir:{bases[family]}", precision="bf16")
    images = preprocess(Image.new("RGB", (60, 40), "red"))[None]
    tokens = vladva_clip.get_tokenizer(NAMES[family], cache_dir=cache_dir)(["a red circle"])
    assert torch.equal(model.encode_image(images), direct.encode_image(images))
    assert torch.equal(model.encode_text(tokens), direct.encode_text(tokens))


def test_old_key_names_are_the_same_base(cache_dir, bases):
    snapshot = cache_dir / "models--llava-hf--llava-1.5-7b-hf" / "snapshots" / ("a" * 40)
    assert BaseFiles(snapshot).fingerprint == BaseFiles(bases["llava"]).fingerprint


def test_the_alias_and_the_tag_are_the_same_model(cache_dir):
    by_alias, _ = vladva_clip.create_model("vladva", "training_free", cache_dir=cache_dir)
    by_schema, _ = vladva_clip.create_model(f"hf-hub:{REAL_IDS['llava']}", cache_dir=cache_dir)
    assert by_alias.config == by_schema.config


def test_a_named_revision(cache_dir, bases, tmp_path):
    hub_cache.put(tmp_path, REAL_IDS["llava"], bases["llava"], commit="b" * 40, ref="v1")
    model, _ = vladva_clip.create_model(f"hf-hub:{REAL_IDS['llava']}@v1", cache_dir=tmp_path)
    assert model.config.base.revision == "b" * 40  # the commit, which does not move


def test_the_real_llama_tokenizer_in_the_cache(shared_data, bases, tmp_path):
    """A 7B-shaped repository as it is on the Hub: Llama's own tokenizer, old key names, 32064 rows."""
    repo = write_llava_with_llama_tokenizer(tmp_path / "repo", shared_data)
    hub_cache.put(tmp_path / "cache", REAL_IDS["llava"], repo)
    model, _ = vladva_clip.create_model("vladva-7b", cache_dir=tmp_path / "cache", precision="fp32")
    tokenizer = vladva_clip.get_tokenizer("vladva-7b", cache_dir=tmp_path / "cache")
    tokens = tokenizer(["a red circle.", "a blue square </s> <image>"])
    assert tokens[0, :6].tolist() == [263, 2654, 8607, 29889, 2, 0]  # ▁a ▁red ▁circle . </s>, then zeros
    assert (tokens[1] == 2).sum() == 1 and 32000 not in tokens[1]  # words that look special stay words
    assert model.encode_text(tokens).shape == (2, 32)
    row = model.visual.prompts.image_row(16)  # as Llama's ids are known: BOS `▁US ER :`, then `▁word : ▁` and the image
    assert row[:4] == [1, 3148, 1001, 29901] and row[: row.index(32000)][-3:] == [1734, 29901, 29871]
    snapshot = tmp_path / "cache" / "models--llava-hf--llava-1.5-7b-hf" / "snapshots" / ("a" * 40)
    rendered = model.config.prompt.rendered("image").replace("{visual}", "<image>")
    own = AutoProcessor.from_pretrained(snapshot)(text=[rendered], images=[Image.new("RGB", (56, 56))])["input_ids"][0]
    assert list(own) == model.visual.prompts.image_row(16)


def write_llava_with_llama_tokenizer(directory, shared_data):
    tiny_bases.write_llava(directory)
    config = json.loads((directory / "config.json").read_text())
    processor = json.loads((directory / "preprocessor_config.json").read_text())
    config["image_token_index"], config["text_config"]["vocab_size"] = 32000, 32064
    tokenizer = llama.llava_tokenizer(shared_data, directory)
    chat = tiny_bases.LLAVA_CHAT
    tiny_bases.write_base(directory, LlavaForConditionalGeneration, tokenizer, config, processor, chat)
    tiny_bases.rename_to_hub_llava(directory)
    return directory


def test_cold_cache_without_network_names_the_ways_out(tmp_path):
    with pytest.raises(ValueError, match="vladva-tiny.*local-dir") as caught:
        vladva_clip.create_model("vladva-13b", cache_dir=tmp_path)
    assert "llava-hf/llava-1.5-13b-hf" in str(caught.value)
    assert isinstance(caught.value, RuntimeError)  # what open_clip's callers catch


def test_a_wrong_hub_id_is_said_so(tmp_path):
    with pytest.raises(ValueError, match="ORG/REPO"):
        vladva_clip.create_model("hf-hub:not a repo", cache_dir=tmp_path)


class TestWithoutDownloading:
    @pytest.fixture(autouse=True)
    def no_network(self, monkeypatch):
        """Whoever asks the Hub fails: it would be asked if HF_HUB_OFFLINE were not set."""
        monkeypatch.setattr("vladva_clip.sources.download.snapshot_download", None)

    @pytest.mark.parametrize("name", ["vladva-7b", f"hf-hub:{REAL_IDS['llava']}"])
    def test_what_the_cache_has(self, cache_dir, name):
        source = locate(name, cache_dir=cache_dir, download=False)
        assert (source.base_id, source.revision) == (REAL_IDS["llava"], "a" * 40) and source.files.has("config.json")
        base = BaseConfig(REAL_IDS["llava"], "llava", "a" * 40)
        assert locate_base(base, cache_dir, download=False).directory == source.directory

    @pytest.mark.parametrize("name", ["vladva-7b", f"hf-hub:{REAL_IDS['llava']}", f"hf-hub:{REAL_IDS['llava']}@v9"])
    def test_what_it_lacks_is_named(self, cache_dir, tmp_path, name):
        with pytest.raises(NotHereError, match="download=False") as caught:
            locate(name, cache_dir=cache_dir if "@" in name else tmp_path, download=False)
        assert caught.value.repo == REAL_IDS["llava"]

    def test_what_is_no_ones_on_the_hub(self, tmp_path):
        assert locate("vladva-tiny", cache_dir=tmp_path, download=False).is_adapter
        with pytest.raises(ValueError, match="vladva-tiny"):
            locate("hf-hub:vladva-tiny", cache_dir=tmp_path, download=False)


def test_a_source_reads_its_config_once(bases, tmp_path):
    """Also while the files change: what was checked is what is used."""
    directory = Path(shutil.copytree(bases["llava"], tmp_path / "base"))
    source = locate(f"local-dir:{directory}")
    before = dict(source.files.config)
    (directory / "config.json").write_text("{}")
    assert source.files.config == before and locate(f"local-dir:{directory}").files.config == {}
