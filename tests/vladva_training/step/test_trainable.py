"""What trains: the exact names, what stays bit-equal, and how an adapter is trained further."""

import sys

import peft
import pytest
import torch
from transformers import AutoModelForImageTextToText

import vladva_clip
from tests.support import adapters
from tests.support.training.steps import (
    LOSSES,
    batch_of,
    fused_forward,
    moved,
    recipe,
    section,
    small_model,
    trainable_names,
)
from vladva_training.step.grad_cache import GlobalStep
from vladva_training.step.optim import build_optimizer
from vladva_training.step.trainable import load_trainable, set_trainable

PROJECTIONS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
ALWAYS = {"logit_scale", "text.soft_prompt.weight", "visual.soft_prompt.weight"}
LLM = "visual.backbone.lvlm.model.language_model."
OTHER = {"idefics3": "visual.backbone.lvlm.model.text_model."}  # where the LLM has another name


def lora_names(family="llava"):
    """Names of a LoRA on each linear layer of the tiny bases' two blocks."""
    llm = OTHER.get(family, LLM)
    layers = [f"{llm}layers.{block}.{layer}" for block in range(2) for layer in PROJECTIONS]
    return {f"{layer}.lora_{side}.default.weight" for layer in layers for side in "AB"}


def llm_names(base):
    """Names of the LLM: embedding, blocks, final norm and the head, unless it is tied to the embedding."""
    own_head = base.name in ("llava", "llava_next", "internvl", "idefics3")
    names = {"visual.backbone.lvlm.lm_head.weight"} if own_head else set()
    blocks = [f"layers.{block}." for block in range(2)]
    norms = (*NORMS, "self_attn.q_norm", "self_attn.k_norm") if base.name == "qwen3_vl" else NORMS
    layers = {f"{block}{name}.weight" for block in blocks for name in (*PROJECTIONS, *norms)}
    biases = {f"{block}self_attn.{name}_proj.bias" for block in blocks for name in "qkv"}
    own = {"embed_tokens.weight", "norm.weight", *layers, *(biases if base.name in BIASED else ())}
    return names | {OTHER.get(base.name, LLM) + name for name in own}


BIASED = ("qwen2_vl", "qwen2_5_vl", "internvl", "llava_onevision")
NORMS = ("input_layernorm", "post_attention_layernorm")


@pytest.mark.parametrize("soft_prompt", [True, False])
def test_what_trains_by_name(base, soft_prompt):
    always = ALWAYS if soft_prompt else {"logit_scale"}
    expected = {"lora": lora_names(base.name) | always, "full": llm_names(base) | always}
    expected |= {"none": always} if soft_prompt else {}
    for train, names in expected.items():
        model, _ = load_trainable(section(base, train=train, soft_prompt=soft_prompt))
        assert set(trainable_names(model)) == names
        assert model.training


def test_a_fresh_lora_changes_no_feature(base):
    plain, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    model, _ = load_trainable(section(base))
    for found, expected in zip(adapters.features(model), adapters.features(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("train", ["lora", "none"])
@pytest.mark.parametrize("micro_size", [None, 2])
def test_what_is_frozen_stays_bit_equal_and_what_trains_changes(base, train, micro_size):
    model = small_model(base, train=train)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trains = set(trainable_names(model))
    three_steps(model, recipe(base, LOSSES["info_nce"], micro_size, train=train))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == trains


def three_steps(model, whole):
    fused = fused_forward(model, whole)
    step, optimizer = GlobalStep(fused, whole), build_optimizer(fused, whole.optim)
    for seed in range(3):
        step(batch_of(model, seed=seed))
        optimizer.step()
        optimizer.zero_grad()


def test_a_merged_model_is_refused(bases, tmp_path):
    adapters.write_adapter(bases["llava"], tmp_path)
    model, _ = vladva_clip.create_model(f"local-dir:{tmp_path}", precision="fp32")
    with pytest.raises(ValueError, match="merge_lora=False"):
        set_trainable(model, section(tmp_path))


def test_a_second_lora_is_refused(bases):
    backbone = small_model(bases["llava"]).visual.backbone
    with pytest.raises(ValueError, match="already has a LoRA"):
        vladva_clip.encoder.lora.start(backbone.lvlm, backbone.trunk_module, 4, 4)


def test_an_adapter_trains_further(base, tmp_path):
    """Its own LoRA trains, with its own targets, and the features start as the adapter's."""
    written = adapters.write_adapter(base, tmp_path)
    model, _ = load_trainable(section(tmp_path, lora_rank=4, lora_alpha=8))
    for found, expected in zip(adapters.features(model), adapters.features(written), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    llm = OTHER.get(base.name, LLM)
    layers = [f"{llm}layers.{block}.self_attn.{name}_proj" for block in range(2) for name in "qv"]
    assert set(trainable_names(model)) == ALWAYS | {
        f"{name}.lora_{side}.default.weight" for name in layers for side in "AB"
    }
    three_steps(model, recipe(base, LOSSES["info_nce"]))
    model.save_pretrained(tmp_path / "again")
    again, _ = load_trainable(section(tmp_path / "again", lora_rank=4, lora_alpha=8))
    for found, expected in zip(adapters.features(again), adapters.features(model), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_rank": 8, "lora_alpha": 8}, "r 4, the recipe asks for 8; set model.lora_rank=4"),
        ({"lora_rank": 4, "lora_alpha": 4}, "lora_alpha 8, the recipe asks for 4; set model.lora_alpha=8"),
        ({"lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.0}, "lora_dropout 0.1, the recipe asks for 0.0"),
        ({"train": "full"}, "has a LoRA.*start from its base"),
    ],
)
def test_an_adapter_of_other_settings_is_refused(bases, tmp_path, settings, message):
    adapters.write_adapter(bases["llava"], tmp_path, dropout=0.1)
    with pytest.raises(ValueError, match=message):
        load_trainable(section(tmp_path, **settings))


def test_a_lora_on_the_vision_tower_is_refused(bases):
    model, _ = vladva_clip.create_model(f"local-dir:{bases['llava']}", precision="fp32")
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj"]), model.visual.backbone.lvlm
    )
    with pytest.raises(ValueError, match="LoRA on .*vision_tower.*stay frozen"):
        set_trainable(model, section(bases["llava"], lora_alpha=4))


def test_peft_reads_the_adapter_that_was_started_here(base, tmp_path):
    model = moved(small_model(base), what=("lora_",))
    model.save_pretrained(tmp_path)
    lvlm = AutoModelForImageTextToText.from_pretrained(base)
    theirs = peft.PeftModel.from_pretrained(lvlm, str(tmp_path)).eval()
    ours = model.eval().visual.backbone.lvlm
    ids = torch.arange(60, 72)[None]
    torch.testing.assert_close(theirs(input_ids=ids).logits, ours(input_ids=ids).logits, rtol=0, atol=1e-4)
    plain = AutoModelForImageTextToText.from_pretrained(base)(input_ids=ids).logits
    assert (plain - ours(input_ids=ids).logits).abs().max() > 1e-2


def test_full_training_of_a_half_precision_base_is_in_float32(base):
    model = small_model(base, train="full", precision="bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_qlora_without_bitsandbytes_says_what_is_needed(bases, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"bitsandbytes, which is not installed: .*\[qlora\]"):
        load_trainable(section(bases["llava"], train="qlora"))


@pytest.fixture
def bitsandbytes():
    return pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")


def test_qlora_changes_only_the_llm(base, bitsandbytes):
    model, _ = load_trainable(section(base, train="qlora", precision=None))
    exact, _ = load_trainable(section(base, train="lora", precision=None))
    assert set(trainable_names(model)) == lora_names() | ALWAYS
    four_bits = {name for name, p in model.named_parameters() if isinstance(p, bitsandbytes.nn.Params4bit)}
    assert four_bits == {f"{LLM}layers.{b}.{layer}.base_layer.weight" for b in range(2) for layer in PROJECTIONS}
    for name, parameter in exact.named_parameters():
        if "lora_" not in name and name not in four_bits:
            assert torch.equal(parameter, model.get_parameter(name)), name
    state = model.get_parameter(next(iter(four_bits))).quant_state
    assert (state.quant_type, state.nested) == ("nf4", True)
    for found, expected in zip(adapters.features(model), adapters.features(exact), strict=True):
        assert torch.cosine_similarity(found, expected).min() > 0.6


@pytest.mark.parametrize("micro_size", [None, 2])
def test_qlora_trains_and_its_adapter_names_the_ordinary_base(base, tmp_path, bitsandbytes, micro_size):
    model, _ = load_trainable(section(base, train="qlora", precision=None))
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    three_steps(model, recipe(base, LOSSES["info_nce"], micro_size, autocast="bf16"))
    assert all(torch.equal(model.get_parameter(name), tensor) for name, tensor in frozen.items())
    assert not any(torch.equal(model.get_parameter(name), tensor) for name, tensor in before.items())
    model.save_pretrained(tmp_path)
    adapter, _ = vladva_clip.create_model(f"local-dir:{tmp_path}", precision="fp32")
    assert adapter.config.base == small_model(base).config.base
    for found, expected in zip(adapters.features(adapter), adapters.features(model), strict=True):
        assert torch.cosine_similarity(found, expected).min() > 0.6
    again, _ = load_trainable(section(tmp_path, train="qlora", precision=None, lora_alpha=16))
    for found, expected in zip(adapters.features(again), adapters.features(model), strict=True):
        assert torch.equal(found, expected)


def test_four_bits_are_only_for_training(bases):
    with pytest.raises(ValueError, match="merge_lora=False"):
        vladva_clip.VladvaCLIP.from_pretrained(bases["llava"], four_bits_on=torch.device("cpu"))
