"""Adapters over published embedders: what they keep of a profile, and what their base's files must say."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard

import vladva_clip
from tests.support import adapters, exports, hub_cache
from tests.support.edits import edit_json
from tests.support.models import embedders

FOREIGN = [{"auto_map": {"AutoModel": "modeling.Model"}}, {"model_type": "unite_qwen2_vl"}]
IDS = ["auto_map", "model_type"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[bool, Path]:
    """Without its head, or not."""
    root = tmp_path_factory.mktemp("published")
    return {headless: embedders.write_qwen(root / str(headless), headless=headless) for headless in (True, False)}


def trained(base: Path, profile: Path | str, tag: str | None = None) -> vladva_clip.VladvaCLIP:
    return adapters.with_lora(vladva_clip.create_model(f"local-dir:{base}", tag, precision="fp32", profile=profile)[0])


def foreign(base: Path, directory: Path, changes: dict) -> SimpleNamespace:
    """A base whose config.json only a profile admits, and such a profile."""
    shutil.copytree(base, directory / "base")
    edit_json(directory / "base" / "config.json", **changes)
    admits = {"model_type": changes.get("model_type"), "auto_map": "auto_map" in changes}
    profile = embedders.write_profile(directory / "own.json", headless=True, admits=admits)
    return SimpleNamespace(base=directory / "base", profile=profile)


@pytest.mark.parametrize("merge_lora", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        *({"headless": True}, {"headless": True, "positions": "plain"}, {"attention": "bidirectional"}),
        {"attention": "bidirectional", "pooling": "mean", "positions": "plain"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_saved_and_loaded(bases, tmp_path, changes, merge_lora):
    """Bit by bit; the adapter states templates and encoding, and names no profile of its user's own."""
    profile = embedders.write_profile(tmp_path / "own.json", **changes)
    model = trained(bases[changes.get("headless", False)], profile)
    model.save_pretrained(tmp_path / "adapter")
    written = json.loads((tmp_path / "adapter" / "vladva_config.json").read_text())
    assert written["base"]["profile"] is None
    assert changes.items() <= written["encoding"].items()
    again = adapters.load(tmp_path / "adapter", merge_lora=merge_lora)
    assert (again.config.encoding, again.config.prompt) == (model.config.encoding, model.config.prompt)
    assert merge_lora or adapters.same(again, model)
    for found, expected in zip(adapters.features(again), adapters.features(model), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    tokenizer = vladva_clip.get_tokenizer(f"local-dir:{tmp_path / 'adapter'}")
    own = vladva_clip.get_tokenizer(f"local-dir:{bases[True]}", profile=profile)
    assert torch.equal(tokenizer(embedders.CAPTIONS), own(embedders.CAPTIONS))


def test_over_a_query_template(bases, tmp_path):
    """The adapter of a tag reads the ids that the default tag's tokenizer writes."""
    profile = embedders.write_profile(tmp_path / "own.json")
    model, document = trained(bases[False], profile, "retrieval"), trained(bases[False], profile)
    model.save_pretrained(tmp_path / "adapter")
    again = adapters.load(tmp_path / "adapter", merge_lora=False)
    assert adapters.same(again, model)
    assert not torch.equal(adapters.features(again)[1], adapters.features(document)[1])


@pytest.mark.parametrize("changes", FOREIGN, ids=IDS)
def test_a_packaged_profile_is_named_and_admits_the_files_again(bases, tmp_path, changes):
    name = "gme-qwen2-vl-7b" if "auto_map" in changes else "unite-2b"
    base = foreign(bases["auto_map" in changes], tmp_path, changes).base
    model = trained(base, name)
    model.save_pretrained(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "vladva_config.json").read_text())["base"]["profile"] == name
    assert adapters.same(adapters.load(tmp_path / "adapter", merge_lora=False), model)


@pytest.mark.parametrize("changes", FOREIGN, ids=IDS)
def test_files_that_only_an_own_profile_admits(bases, tmp_path, changes):
    """Said on saving, checked or not, and on loading; corrected files give the same features."""
    found = foreign(bases[True], tmp_path, changes)
    model = trained(found.base, found.profile)
    match = rf"base/config\.json has .*{next(iter(changes))}.*profile.*'qwen2_vl'"
    for verify in (True, False):
        with pytest.raises(ValueError, match=match):
            model.save_pretrained(tmp_path / "adapter", verify=verify)
        assert not (tmp_path / "adapter").exists()
    foreign_config = shutil.copy(found.base / "config.json", tmp_path)
    shutil.copy(bases[True] / "config.json", found.base / "config.json")
    model.save_pretrained(tmp_path / "adapter", verify=False)
    shutil.copy(foreign_config, found.base / "config.json")
    with pytest.raises(ValueError, match=match):
        adapters.load(tmp_path / "adapter")
    shutil.copy(bases[True] / "config.json", found.base / "config.json")
    assert adapters.same(adapters.load(tmp_path / "adapter", merge_lora=False), model)


def test_over_a_repository_of_the_hub(bases, tmp_path):
    """The adapter names Hub id, revision and profile; it is found again from a repository, and by its card's words."""
    repository, cache = "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", tmp_path / "cache"
    hub_cache.put(cache, repository, bases[False])
    model, _ = vladva_clip.create_model(f"hf-hub:{repository}", precision="fp32", cache_dir=str(cache))
    adapters.with_lora(model).save_pretrained(tmp_path / "adapter")
    base = json.loads((tmp_path / "adapter" / "vladva_config.json").read_text())["base"]
    assert (base["id"], base["revision"], base["profile"]) == (repository, "a" * 40, "gme-qwen2-vl-2b")
    hub_cache.put(cache, "me/mine", tmp_path / "adapter")
    again, _ = vladva_clip.create_model("hf-hub:me/mine", precision="fp32", cache_dir=str(cache), merge_lora=False)
    assert adapters.same(again, model)
    card = ModelCard.load(tmp_path / "adapter" / "README.md")
    assert (card.data.base_model, card.data.license) == (repository, "apache-2.0")
    snippet = card.text.split("```python\n")[1].split("```")[0].replace("PATH", str(tmp_path / "adapter"))
    snippet = snippet.replace('")\n', f'", cache_dir={str(cache)!r})\n')
    names: dict = {}
    exec(snippet, names)
    tokens = names["tokenizer"](["a red circle left of a blue square"])
    assert exports.cosine(names["text_features"], model.encode_text(tokens, normalize=True)) > 0.999
