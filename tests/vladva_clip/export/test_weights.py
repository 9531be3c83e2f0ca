"""The export's tensors: LoRA of every kind merged as in memory, vocabulary rows, dtypes, shards."""

import json
import shutil
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoTokenizer, LlavaForConditionalGeneration

import vladva_clip
from tests.support import adapters, exports
from tests.support.models import tiny_bases
from vladva_clip.storage.tensor_names import EMBEDDING, HEAD, canonical

LINEAR = r".*language_model.*\.(q_proj|k_proj|o_proj|down_proj)"
SHAKEN = {"bias": "lora_only", "target_modules": LINEAR}
KINDS = {
    "plain": ("llava", {}),
    "patterns": ("llava", {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"v_proj": 3}}),
    "rslora": ("qwen2_vl", {"use_rslora": True, "target_modules": LINEAR}),
    "dora": ("llava", {"use_dora": True}),
    "biases": ("qwen2_vl", SHAKEN),
    "lora with biases": ("qwen2_vl", {"lora_bias": True}),
    "head": ("llava", {"target_modules": r"lm_head|.*language_model.*\.q_proj"}),
    "vision": ("llava", {"target_modules": r".*(vision_tower|language_model).*\.q_proj|.*linear_1"}),
}


def stored(directory) -> dict[str, torch.Tensor]:
    return {canonical(name): t for path in directory.glob("*.safetensors") for name, t in load_file(path).items()}


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("kind", KINDS)
def test_lora_is_merged_to_the_bit_as_in_memory(bases, tmp_path, kind, precision, dtype):
    family, settings = KINDS[kind]
    adapters.write_adapter(bases[family], tmp_path / "adapter", **settings)
    if "bias" in settings:
        _shake_biases(tmp_path / "adapter")
    model, _ = vladva_clip.create_model(f"local-dir:{tmp_path / 'adapter'}", precision=precision)
    found = stored(vladva_clip.export_model(tmp_path / "adapter", tmp_path / "out", precision))
    expected = {canonical(name): t for name, t in model.visual.backbone.lvlm.named_parameters()}
    used = len(AutoTokenizer.from_pretrained(bases[family]))
    assert set(found) == set(expected)
    base = stored(bases[family])
    changed = {name for name, t in expected.items() if not torch.equal(t, base[name].to(t.dtype))}
    assert {name.rpartition(".")[2] for name in changed} == ({"weight", "bias"} if "bias" in kind else {"weight"})
    for name, tensor in expected.items():
        rows = used if name == EMBEDDING else None
        assert found[name].dtype == dtype
        assert torch.equal(found[name][:rows], tensor[:rows]), name


def _shake_biases(adapter) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    biases = [name for name in tensors if name.endswith(".bias")]
    if not biases:
        pytest.skip("this release of PEFT stores no biases of an injected LoRA")
    save_file(
        {name: t + 0.5 if name in biases else t for name, t in tensors.items()}, adapter / "adapter_model.safetensors"
    )


def _base_with_rows(tmp_path, family: str, free: int):
    """A base whose embedding has `free` rows beyond its tokenizer's tokens."""
    if family == "llava":
        directory = tiny_bases.write_llava(tmp_path / "base")
    else:
        directory = tiny_bases.write_qwen(tmp_path / "base")
    rows = len(AutoTokenizer.from_pretrained(directory)) + free
    config = json.loads((directory / "config.json").read_text())
    config.get("text_config", config)["vocab_size"] = rows
    (directory / "config.json").write_text(json.dumps(config))
    tensors = load_file(directory / "model.safetensors")
    cut = {name: t[:rows].clone() if canonical(name) in (EMBEDDING, HEAD) else t for name, t in tensors.items()}
    save_file(cut, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_the_vocabulary_grows_only_when_its_free_rows_run_out(family, tmp_path):
    """Grown, untied and tied heads alike still give our features and texts in plain transformers."""
    base = _base_with_rows(tmp_path, family, free=5)
    exported = exports.export_adapter(base, tmp_path)
    plain = exports.PlainTransformers(exported.directory)
    before, after = exported.model.vocab_size, plain.lvlm.get_input_embeddings().weight.shape[0]
    prompts = exported.model.visual.prompts
    slots = len(prompts.image.ids) + len(prompts.text.ids)
    assert before - 5 + slots <= after < before - 5 + slots + 64 and after % 64 == 0
    assert plain.lvlm.get_output_embeddings().weight.shape[0] == plain.lvlm.config.get_text_config().vocab_size == after
    images, texts = exported.features()
    assert exports.cosine(plain.features(exported.images), images) > 0.99999
    assert exports.cosine(plain.features(exports.CAPTIONS), texts) > 0.99999
    image = exported.images[0]
    suppressed = plain.lvlm.generation_config.suppress_tokens
    exported.model.visual.backbone.lvlm.generation_config.suppress_tokens = [i for i in suppressed if i < before]
    ours = exported.model.generate(exported.preprocess(image)[None], "Describe it.", 8)
    assert [plain.generate(image, "Describe it.", 8)] == ours


def test_a_slot_that_would_win_is_never_chosen(bases, tmp_path):
    """With a tied head a slot's vector is an output direction: here the largest, by far."""
    plain = exports.PlainTransformers(vladva_clip.export_model(bases["qwen2_vl"], tmp_path / "out", "fp32"))
    slot = plain.processor.tokenizer.convert_tokens_to_ids("<|vladva_text_0|>")
    prompt = torch.tensor([[70, 71, 72]])
    with torch.no_grad():
        state = plain.lvlm.model(input_ids=prompt).last_hidden_state[0, -1]
        plain.lvlm.get_input_embeddings().weight[slot] = 100 * state
        assert plain.lvlm(input_ids=prompt).logits[0, -1].argmax() == slot
    ids = plain.lvlm.generate(input_ids=prompt, max_new_tokens=3, do_sample=False)[0, 3:].tolist()
    assert ids and not set(ids) & set(plain.lvlm.generation_config.suppress_tokens)


def test_more_tokens_than_rows_are_refused(tmp_path):
    base = _base_with_rows(tmp_path, "llava", free=-3)
    with pytest.raises(ValueError, match="ids up to .* embedding .* rows"):
        vladva_clip.export_model(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tied_head_that_is_stored_too_must_be_the_embedding(bases, tmp_path):
    base = shutil.copytree(bases["qwen2_vl"], tmp_path / "base")
    tensors = {name: t.clone() for name, t in load_file(base / "model.safetensors").items()}  # written to twice
    embedding = next(t for name, t in tensors.items() if canonical(name) == EMBEDDING)
    save_file({**tensors, "lm_head.weight": embedding.clone()}, base / "model.safetensors", metadata={"format": "pt"})
    assert HEAD not in stored(vladva_clip.export_model(base, tmp_path / "out"))
    save_file({**tensors, "lm_head.weight": embedding + 1}, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="tie_word_embeddings"):
        vladva_clip.export_model(base, tmp_path / "other")


def test_the_precision_is_the_checkpoints_own_unless_asked(bases, tmp_path):
    out = vladva_clip.export_model(bases["llava"], tmp_path / "out")
    assert AutoModelForImageTextToText.from_pretrained(out).dtype == torch.bfloat16
    assert {t.dtype for t in stored(out).values()} == {torch.bfloat16}
    half = vladva_clip.export_model(bases["llava"], tmp_path / "half", "fp16")
    assert AutoModelForImageTextToText.from_pretrained(half).dtype == torch.float16
    model, _ = vladva_clip.create_model(f"local-dir:{half}")
    assert model.visual.backbone.dtype == torch.float16


def test_float16_that_overflows_is_refused(tmp_path):
    base = tiny_bases.write_llava(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    name = next(name for name in tensors if canonical(name).endswith("mlp.up_proj.weight"))
    tensors[name][0, 0] = 1e6
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{name} .*float16.*bf16"):
        vladva_clip.export_model(base, tmp_path / "out", "fp16")
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*out*"))


def test_thirty_shards_with_the_hubs_old_names_open_in_stock_transformers(tmp_path):
    tiny_bases.write_llava(tmp_path / "base")
    tiny_bases.rename_to_hub_llava(tmp_path / "base")
    tiny_bases.split(tmp_path / "base", 30)
    exported = exports.export_adapter(tmp_path / "base", tmp_path / "one")
    out = vladva_clip.export_model(tmp_path / "one" / "adapter", tmp_path / "out", "fp32", max_shard_size="10KB")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 10 and not (out / "model.safetensors").exists()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in stored(out).values())
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir() if path.is_file()} == {0o644}
    whole, cut = stored(exported.directory), stored(out)
    assert set(whole) == set(cut) and all(torch.equal(whole[name], cut[name]) for name in whole)
    lvlm, info = LlavaForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
    plain = exports.PlainTransformers(out)
    assert exports.cosine(plain.features(exported.images), exported.features()[0]) > 0.99999


@pytest.mark.parametrize("size", ["10", "5G B", "-1GB", "0GB", "much", 0, -5])
def test_a_shard_size_that_is_none_is_refused(bases, tmp_path, size):
    with pytest.raises(ValueError, match=r"max_shard_size is .*5GB"):
        vladva_clip.export_model(bases["llava"], tmp_path / "out", max_shard_size=size)
    assert not (tmp_path / "out").exists()
