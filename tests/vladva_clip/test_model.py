"""What the model refuses to lose, and what decoding and locking really do."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import vladva_clip
from tests.support import adapters
from vladva_clip.storage.base import BaseFiles


@pytest.fixture
def fresh(base):
    """A model of its own, to be changed."""
    return vladva_clip.create_model(f"local-dir:{base}", precision="fp32")[0]


def images_for(model, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(0))


def test_training_of_the_base_is_not_lost_in_silence(fresh, tmp_path):
    fresh.visual.backbone.trunk_module.layers[0].requires_grad_(True)
    with pytest.raises(ValueError, match=r"trainable.*layers\.0"):
        fresh.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_second_lora_over_a_merged_one_is_not_lost_in_silence(base, tmp_path):
    adapters.write_adapter(base, tmp_path / "adapter")
    merged, _ = vladva_clip.create_model(f"local-dir:{tmp_path / 'adapter'}", precision="fp32")
    adapters.with_lora(merged, seed=1)
    with pytest.raises(ValueError, match="merge_lora=False"):
        merged.save_pretrained(tmp_path / "again")


def test_soft_prompts_of_any_dtype_are_saved_readably(fresh, tmp_path):
    fresh.double().save_pretrained(tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "soft_prompt.safetensors").values()} == {torch.float32}
    vladva_clip.create_model(f"local-dir:{tmp_path}")


def test_saving_twice_with_named_chat_templates(fresh, tmp_path):
    fresh._tokenizer.chat_template = {"default": "{{ messages }}", "embed": "{{ messages[0] }}"}
    for _ in range(2):
        fresh.save_pretrained(tmp_path)
    assert vladva_clip.create_model(f"local-dir:{tmp_path}")[0].config.base == fresh.config.base


def test_decoding_in_train_mode_with_checkpointing_writes_the_same(fresh):
    images = images_for(fresh)
    expected = fresh.generate(images, max_new_tokens=8)
    fresh.set_grad_checkpointing()
    fresh.train()
    fresh.visual.backbone.vision_tower.eval()
    assert fresh.generate(images, max_new_tokens=8) == expected
    assert fresh.training and not fresh.visual.backbone.vision_tower.training  # each module has its own mode back


def test_decoding_checks_its_input(model):
    with pytest.raises(ValueError, match="tensor"):
        model.generate(["a.png"])


@pytest.mark.parametrize(
    "prompt", [["Describe it."], b"Describe it.", 1, True, {"text": "Describe it."}, torch.ones(1)]
)
def test_a_prompt_is_one_string(model, prompt):
    with pytest.raises(ValueError, match=f"prompt is {type(prompt).__name__} .*string"):
        model.generate(images_for(model), prompt)


def test_a_prompt_is_whole_unicode(model):
    with pytest.raises(ValueError, match="prompt is .*surrogate"):
        model.generate(images_for(model), "a \ud800")


@pytest.mark.parametrize("tower", ["visual", "text"])
@pytest.mark.parametrize("tokens", [0, -1, True, 1.5, "4096"])
def test_a_bound_of_micro_batches_is_a_whole_number(model, tower, tokens):
    before = getattr(model, tower).micro_batch_tokens
    with pytest.raises(ValueError, match="micro_batch_tokens is .*at least 1"):
        getattr(model, tower).micro_batch_tokens = tokens
    assert getattr(model, tower).micro_batch_tokens == before


@pytest.mark.parametrize("count", [0, -1, 2.0, True, "2", None, float("nan"), [2], torch.tensor(2)])
def test_a_number_of_tokens_is_a_whole_number(model, count):
    with pytest.raises(ValueError, match="max_new_tokens is .*at least 1"):
        model.generate(images_for(model), max_new_tokens=count)


@pytest.mark.parametrize("count", [-1, True, 1.5, "1", None])
def test_a_number_of_unlocked_blocks_is_a_whole_number(fresh, count):
    for lock, name in ((fresh.lock_image_tower, "unlocked_groups"), (fresh.lock_text_tower, "unlocked_layers")):
        with pytest.raises(ValueError, match=f"{name} is .*at least 0"):
            lock(count)


@pytest.mark.parametrize("bos", ["", "{{ bos_token }}"])
def test_a_chat_starts_with_one_bos_whoever_writes_it(bases, tmp_path, bos):
    shutil.copytree(bases["llava"], tmp_path / "base")
    path = tmp_path / "base" / "chat_template.jinja"
    path.write_text(bos + path.read_text())
    model, _ = vladva_clip.create_model(f"local-dir:{tmp_path / 'base'}", precision="fp32")
    ids = model._chat_ids("Describe it.")
    assert ids.count(model._tokenizer.bos_token_id) == 1 and ids[0] == model._tokenizer.bos_token_id


def test_an_unlocked_vision_block_is_one_that_the_features_use(fresh):
    fresh.requires_grad_(True)
    fresh.lock_text_tower()
    fresh.lock_image_tower(unlocked_groups=1)
    fresh.encode_image(images_for(fresh)).sum().backward()
    trained = [p.grad for p in fresh.visual.backbone.vision_tower.parameters() if p.requires_grad]
    assert trained and all(grad is not None and grad.abs().sum() > 0 for grad in trained)


def test_a_revision_belongs_to_a_hub_id(base):
    with pytest.raises(ValueError, match="Hub id"):
        vladva_clip.VladvaCLIP.from_pretrained(base, revision="main")


class TestTheWeightsLoadedAreTheWeightsChecked:
    def test_the_single_file_wins_over_an_index_for_both(self, bare):
        before = BaseFiles(bare).fingerprint
        tensors = load_file(bare / "model.safetensors")
        save_file(tensors, bare / "old.safetensors", metadata={"format": "pt"})
        index = {"weight_map": dict.fromkeys(tensors, "old.safetensors"), "metadata": {}}
        (bare / "model.safetensors.index.json").write_text(json.dumps(index))
        changed = {n: t * 1.5 if n.endswith("k_proj.weight") else t for n, t in tensors.items()}
        save_file(changed, bare / "model.safetensors", metadata={"format": "pt"})
        assert BaseFiles(bare).fingerprint != before
        trunk = vladva_clip.create_model(f"local-dir:{bare}", precision="fp32")[0].visual.backbone.trunk_module
        name = next(n for n in tensors if n.endswith("layers.0.self_attn.k_proj.weight") and "vision" not in n)
        assert torch.equal(trunk.layers[0].self_attn.k_proj.weight, changed[name])

    def test_a_base_that_points_to_another_base_is_refused(self, bare):
        (bare / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere", "peft_type": "LORA"}')
        with pytest.raises(ValueError, match=r"adapter_config\.json"):
            vladva_clip.create_model(f"local-dir:{bare}")

    def test_a_config_that_names_other_weights_is_refused(self, bare):
        config = json.loads((bare / "config.json").read_text())
        (bare / "config.json").write_text(json.dumps({**config, "transformers_weights": "other.safetensors"}))
        with pytest.raises(ValueError, match=r"other\.safetensors"):
            vladva_clip.create_model(f"local-dir:{bare}")
