"""A published embedder that is a LoRA alone: merged on loading as PEFT merges it, and checked as any adapter is."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLForConditionalGeneration

import vladva_clip
from tests.support import adapters
from tests.support.edits import edit_json
from tests.support.models import lora_embedders
from vladva_clip.encoder import loading
from vladva_clip.interface import extras
from vladva_clip.sources.locate import locate

TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The folders base, lora, saved and merged, and a profile, own.json."""
    root = lora_embedders.write(tmp_path_factory.mktemp("published"))
    lora_embedders.write_profile(root / "own.json", root / "base")
    return root


@pytest.fixture
def copy(published, tmp_path) -> Path:
    """The adapter's folder, to be changed."""
    return Path(shutil.copytree(published / "lora", tmp_path / "lora"))


def load(directory: Path, published: Path, **options) -> vladva_clip.VladvaCLIP:
    return adapters.load(directory, profile=published / "own.json", **options)


def change(directory: Path, change_one) -> None:
    save_file(change_one(load_file(directory / TENSORS)), directory / TENSORS)


@pytest.mark.parametrize("name", ["lora", "saved"])
def test_it_is_what_peft_merges(published, name):
    """To the bit, with old names and with today's; a directory that its user has merged is read with the profile."""
    found, merged = load(published / name, published), load(published / "merged", published)
    assert found.base_lora == published / name and merged.base_lora is None
    assert adapters.same(found, merged)
    assert not adapters.same(found, load(published / "base", published))


def test_in_bfloat16_it_is_rounded_once(published):
    """PEFT too computes the merge of bfloat16 weights in float32."""
    found = load(published / "lora", published, precision="bf16").visual.backbone.lvlm.state_dict()
    lvlm = Qwen2VLForConditionalGeneration.from_pretrained(published / "base", dtype=torch.bfloat16)
    expected = PeftModel.from_pretrained(lvlm, published / "saved").merge_and_unload().state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_base_may_be_named_by_the_adapter(published, copy, tmp_path):
    """As PEFT reads it: a place on this disk; a place that isn't there decides nothing."""
    profile = lora_embedders.write_profile(tmp_path / "own.json", "/nowhere")
    with pytest.raises(ValueError, match="the base /nowhere of the adapter .*lora is not a directory"):
        adapters.load(copy, profile=profile)
    edit_json(copy / CONFIG, base_model_name_or_path=str(published / "base"))
    assert adapters.same(adapters.load(copy, profile=profile), load(published / "lora", published))


def test_the_fingerprint_is_of_both(published, copy):
    first = load(published / "lora", published).config.base.fingerprint
    edit_json(copy / CONFIG, peft_version="0.1", base_model_name_or_path="elsewhere")
    assert load(copy, published).config.base.fingerprint == first
    edit_json(copy / CONFIG, lora_alpha=13)
    assert load(copy, published).config.base.fingerprint != first
    edit_json(copy / CONFIG, lora_alpha=12)
    change(copy, lambda tensors: {name: tensor * 1.5 for name, tensor in tensors.items()})
    others = {first, load(published / "base", published).config.base.fingerprint}
    assert load(copy, published).config.base.fingerprint not in others


def _todays(name: str) -> str:
    return name.replace(".model.layers.", ".model.language_model.layers.")


class TestRefused:
    @pytest.mark.parametrize(
        ("change_one", "match"),
        [
            (lambda all_: dict(list(all_.items())[1:]), "1 missing, such as model.language_model.*expected"),
            (lambda all_: {name: tensor for name, tensor in all_.items() if "magnitude" not in name}, "missing"),
            (
                lambda all_: {**all_, "base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.ones(3, 32)},
                "9",
            ),
            (lambda all_: {**all_, "model.norm.weight": torch.ones(32)}, "1 unexpected tensors, such as model.norm"),
            (lambda all_: {name: tensor.double() for name, tensor in all_.items()}, "float64, expected float32"),
            (lambda all_: {name: tensor * float("nan") for name, tensor in all_.items()}, "NaN or infinity"),
            (lambda all_: {name: tensor[..., :-1].contiguous() for name, tensor in all_.items()}, "of another shape"),
            (lambda all_: all_ | {_todays(name): tensor.clone() for name, tensor in all_.items()}, "under two names"),
        ],
    )
    def test_tensors(self, published, copy, change_one, match):
        change(copy, change_one)
        with pytest.raises(ValueError, match=match) as error:
            load(copy, published)
        assert str(copy) in str(error.value)

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"r": 4}, "found rank 3, expected 4|another shape"),
            ({"use_dora": False}, "unexpected"),
            ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
            ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
            ({"target_modules": ["q_proj", "v_proj", "down_proj", "fc1", "up_proj"]}, "missing"),
        ],
    )
    def test_settings(self, published, copy, changes, match):
        edit_json(copy / CONFIG, **changes)
        with pytest.raises(ValueError, match=match):
            load(copy, published)

    def test_a_pickle(self, published, copy):
        (copy / TENSORS).rename(copy / "adapter_model.bin")
        with pytest.raises(ValueError, match=r"found adapter_model.bin, a pickle.*Save it again with PEFT"):
            load(copy, published)

    def test_a_link_out_of_the_directory(self, published, copy):
        (copy / TENSORS).unlink()
        (copy / TENSORS).symlink_to(published / "lora" / TENSORS)
        with pytest.raises(ValueError, match="is a link to .* outside"):
            load(copy, published)

    def test_whole_weights_beside_it(self, published, copy):
        shutil.copy(published / "merged" / "model.safetensors", copy)
        with pytest.raises(ValueError, match="an adapter .* and whole weights .*two directories"):
            load(copy, published)

    def test_another_base(self, copy):
        edit_json(copy / CONFIG, base_model_name_or_path="Qwen/Qwen2-VL-7B-Instruct")
        with pytest.raises(ValueError, match="base Qwen/Qwen2-VL-7B-Instruct, but .* on Qwen/Qwen2-VL-2B-Instruct"):
            adapters.load(copy, profile="vlm2vec-v2")

    def test_without_a_profile(self, published):
        with pytest.raises(ValueError, match="holds no model.*PEFT adapter alone is read with profile="):
            adapters.load(published / "lora")

    def test_in_four_bits(self, published, monkeypatch):
        """Said before any weights are read, so without bitsandbytes too."""
        monkeypatch.setattr(extras, "require", lambda *names, purpose: None)
        source = locate(f"local-dir:{published / 'lora'}", profile=published / "own.json")
        with pytest.raises(ValueError, match="published as an adapter.*expected model.train=lora"):
            loading.load_parts(source, merge_lora=False, four_bits_on=torch.device("cpu"))

    @pytest.mark.parametrize("adapter", [{"base": 3}, {"revision": "main"}, {"base": "a/b", "on": "c"}, "a/b"])
    def test_a_profile_that_does_not_say_the_base(self, published, tmp_path, adapter):
        data = json.loads((published / "own.json").read_text())
        (tmp_path / "own.json").write_text(json.dumps({**data, "adapter": adapter}))
        with pytest.raises(ValueError, match="adapter is .*expected an object with base"):
            adapters.load(published / "lora", profile=tmp_path / "own.json")


def test_what_is_trained_over_a_profile_of_ones_own_is_not_saved(published, tmp_path):
    model = adapters.with_lora(load(published / "lora", published))
    with pytest.raises(ValueError, match="is an adapter, and only the profile says.*save_pretrained"):
        model.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.wide
@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_biases_of_the_base_that_it_replaces(tmp_path, bias):
    """Also where tensors are read one by one, to save an adapter over them; patterns are on the names of its time."""
    targets = r"model\.(language_model\.layers|visual\.blocks)\.\d+\..*(q_proj|fc1)"
    root = lora_embedders.write(tmp_path, bias=bias, target_modules=targets)
    old = r"(model\.layers|visual\.blocks)\.\d+\..*(q_proj|fc1)"
    edit_json(root / "lora" / CONFIG, base_model_name_or_path=str(root / "base"), target_modules=old)
    model = adapters.load(root / "lora", profile="vlm2vec-v2", image_size=56)
    assert adapters.same(model, adapters.load(root / "merged", profile="vlm2vec-v2", image_size=56))
    adapters.with_lora(model).save_pretrained(tmp_path / "adapter")
    assert adapters.same(adapters.load(tmp_path / "adapter", merge_lora=False), model)


@pytest.mark.wide
@pytest.mark.parametrize("merge_lora", [True, False])
def test_an_adapter_over_it(published, copy, tmp_path, merge_lora):
    """Over the packaged profile it names it, and gives the same features again; over another base it is refused."""
    edit_json(copy / CONFIG, base_model_name_or_path=str(published / "base"))
    model = adapters.with_lora(adapters.load(copy, profile="vlm2vec-v2", image_size=56))
    model.save_pretrained(tmp_path / "adapter")
    stated = json.loads((tmp_path / "adapter" / "vladva_config.json").read_text())["base"]
    assert (stated["id"], stated["profile"]) == (f"local-dir:{copy}", "vlm2vec-v2")
    again = adapters.load(tmp_path / "adapter", merge_lora=merge_lora)
    for found, expected in zip(adapters.features(again), adapters.features(model), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0 if not merge_lora else 1e-5)
    again.save_pretrained(tmp_path / "twice")
    assert adapters.same(adapters.load(tmp_path / "twice", merge_lora=merge_lora), again)
    change(copy, lambda tensors: {name: tensor * 1.5 for name, tensor in tensors.items()})
    with pytest.raises(ValueError, match="was trained on the base .* with fingerprint"):
        adapters.load(tmp_path / "adapter")


def test_exported_merged(published, tmp_path):
    """Where the positions are the family's, an export holds both LoRAs; plain ones no reader computes."""
    vladva_clip.export_model(published / "lora", tmp_path / "out", "fp32", profile=published / "own.json")
    model, again = load(published / "lora", published), adapters.load(tmp_path / "out")
    for found, expected in zip(adapters.features(again), adapters.features(model), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    plain = lora_embedders.write_profile(tmp_path / "plain.json", published / "base", positions="plain")
    with pytest.raises(ValueError, match="positions='plain'"):
        vladva_clip.export_model(published / "lora", tmp_path / "plain", profile=plain)
