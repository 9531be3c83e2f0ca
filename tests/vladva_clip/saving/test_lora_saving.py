"""A LoRA that the user put on with PEFT is saved as it takes part in the features, or refused with its name."""

import copy
import re

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoraConfig,
    get_peft_model,
    inject_adapter_in_model,
)
from peft.tuners.lora import LoraLayer

import vladva_clip
from tests.support import adapters

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`", "ignore:.*tied")


@pytest.fixture
def fresh(model):
    return copy.deepcopy(model)


@pytest.fixture
def one(llava):
    return copy.deepcopy(llava)


def lora_of(rank=4, **settings):
    """Of random values, on the LLM alone unless targets are given."""
    return LoraConfig(**{"r": rank, "target_modules": adapters.TARGETS, "init_lora_weights": False, **settings})


def lvlm(model):
    return model.visual.backbone.lvlm


def layers(model):
    return [module for module in lvlm(model).modules() if isinstance(module, LoraLayer)]


def with_two(model, **settings):
    inject_adapter_in_model(lora_of(), lvlm(model))
    inject_adapter_in_model(lora_of(3, lora_alpha=9, **settings), lvlm(model), adapter_name="second")
    return layers(model)


def for_each(model, method, *args):
    for layer in layers(model):
        getattr(layer, method)(*args)


def check(model, bare, directory):
    """Saved and loaded, merged and unmerged, the features are the model's, which the LoRA has moved."""
    model.eval().save_pretrained(directory)
    expected = adapters.features(model)
    for merge_lora in (True, False):
        loaded, _ = vladva_clip.create_model(f"local-dir:{directory}", precision="fp32", merge_lora=merge_lora)
        for found, features in zip(adapters.features(loaded), expected, strict=True):
            torch.testing.assert_close(found, features, rtol=0, atol=1e-5)
    pairs = zip(expected, adapters.features(bare), strict=True)
    assert max((one - other).abs().max().item() for one, other in pairs) > 1e-3


PATTERNS = {"rank_pattern": {r"visual\.backbone.*layers\.0.*q_proj": 2}, "alpha_pattern": {r".*v_proj": 32}}
PUT_ON = {
    "injected": lambda m: inject_adapter_in_model(lora_of(), lvlm(m)),
    "by get_peft_model over the model": lambda m: get_peft_model(m, lora_of()),
    "of another name": lambda m: get_peft_model(m, lora_of(), adapter_name="mine"),
    "over the LVLM": lambda m: get_peft_model(lvlm(m), lora_of(target_modules="all-linear")),
    "over a tower": lambda m: get_peft_model(m.visual, lora_of(target_modules=["q_proj", "up_proj"])),
    "over the LLM": lambda m: get_peft_model(
        m.visual.backbone.trunk_module, lora_of(target_modules=r"layers\.0\..*q_proj")
    ),
    "with ranks by names of the model's": lambda m: get_peft_model(m, lora_of(**PATTERNS)),
    "rslora": lambda m: get_peft_model(m, lora_of(use_rslora=True)),
    "dora": lambda m: get_peft_model(m, lora_of(use_dora=True)),
}


@pytest.mark.parametrize("how", PUT_ON)
def test_whoever_put_it_on(fresh, model, tmp_path, how):
    PUT_ON[how](fresh)
    check(fresh, model, tmp_path)


def test_two_with_different_roots(one, tmp_path):
    backbone, bare = one.visual.backbone, copy.deepcopy(one)
    inject_adapter_in_model(lora_of(2, target_modules=["q_proj"]), backbone.trunk_module)
    inject_adapter_in_model(lora_of(3, lora_alpha=5, target_modules=["fc1"]), backbone.vision_tower)
    check(one, bare, tmp_path)


def of_two_the(name, model):
    with_two(model)
    for_each(model, "set_adapter", name)


def a_mixture(model):
    peft = get_peft_model(model, lora_of())
    peft.add_adapter("other", lora_of(2))
    peft.add_weighted_adapter(["default", "other"], [0.5, 0.5], "mix", combination_type="svd")
    peft.set_adapter("mix")


def scaled_in_one_layer(model):
    inject_adapter_in_model(lora_of(use_rslora=True), lvlm(model))
    layers(model)[0].set_scale("default", 3)


def scaled(model):
    inject_adapter_in_model(lora_of(), lvlm(model))
    for_each(model, "scale_layer", 0.37)


def merged_and_back(model, **settings):
    peft = get_peft_model(model, lora_of(**settings))
    peft.merge_adapter()
    peft.unmerge_adapter()


AS_IT_IS = {
    "the first of two": lambda m: of_two_the("default", m),
    "the second of two": lambda m: of_two_the("second", m),
    "a mixture of two": a_mixture,
    "scaled": scaled,
    "scaled in one layer": scaled_in_one_layer,
    "merged in place": lambda m: get_peft_model(m, lora_of()).merge_adapter(),
    "merged and back": merged_and_back,
    "dora, merged and back": lambda m: merged_and_back(m, use_dora=True),
    "with a pattern that loading refuses": lambda m: inject_adapter_in_model(
        lora_of(rank_pattern={r"^model\..*layers\.[01]\..*q_proj$": 7}), lvlm(m)
    ),
    "in double": lambda m: inject_adapter_in_model(lora_of(), lvlm(m.double())) and m.double(),
}


@pytest.mark.parametrize("how", AS_IT_IS)
def test_it_is_saved_as_it_takes_part(one, tmp_path, how):
    bare = copy.deepcopy(one)
    AS_IT_IS[how](one)
    check(one, bare, tmp_path)


def test_the_other_adapters_are_named(one, tmp_path, caplog):
    of_two_the("second", one)
    one.save_pretrained(tmp_path)
    assert re.search("default, second.*active.*second$", caplog.messages[-1])
    assert sorted(lvlm(one).peft_config) == ["default", "second"]


def test_one_that_is_loaded_and_scaled(bases, tmp_path):
    adapters.write_adapter(bases["llava"], tmp_path / "first")
    model, _ = vladva_clip.create_model(f"local-dir:{tmp_path / 'first'}", precision="fp32", merge_lora=False)
    bare = copy.deepcopy(model)
    for_each(model, "scale_layer", 0.5)
    check(model, bare, tmp_path / "again")


@pytest.mark.slow
def test_one_in_a_compiled_layer(one, tmp_path):
    bare, blocks = copy.deepcopy(one), one.visual.backbone.trunk_module.layers
    inject_adapter_in_model(lora_of(), lvlm(one))
    blocks[0] = torch.compile(blocks[0], backend="eager")
    check(one, bare, tmp_path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_one_that_is_merged_in_place_in_half_precision(bases, tmp_path, precision):
    """PEFT's merge_adapter adds it otherwise than loading does: by a rounding."""
    model, _ = vladva_clip.create_model(f"local-dir:{bases['llava']}", precision=precision)
    get_peft_model(model, lora_of()).merge_adapter()
    model.save_pretrained(tmp_path / "adapter")
    layers(model)[0].get_base_layer().weight.data[0, 0] += 1
    with pytest.raises(ValueError, match="1 of the LVLM's tensors"):
        model.save_pretrained(tmp_path / "other")


def test_biases_that_it_trained(bases, tmp_path):
    """They stand in the adapter, and are no training of the base that would be lost."""
    model, _ = vladva_clip.create_model(f"local-dir:{bases['qwen2_vl']}", precision="fp32")
    bare = copy.deepcopy(model)
    inject_adapter_in_model(lora_of(bias="all"), lvlm(model))
    for name, parameter in lvlm(model).named_parameters():
        if name.endswith("bias"):
            parameter.data.add_(0.1)
    check(model, bare, tmp_path)


def partly_disabled(model):
    inject_adapter_in_model(lora_of(), lvlm(model))
    layers(model)[0].enable_adapters(False)


def partly_merged(model):
    inject_adapter_in_model(lora_of(), lvlm(model))
    layers(model)[0].merge()


def merged_then_scaled(model):
    get_peft_model(model, lora_of()).merge_adapter()
    for_each(model, "scale_layer", 0.5)


def disabled(model):
    inject_adapter_in_model(lora_of(), lvlm(model))
    for_each(model, "enable_adapters", False)


def hooked(model):
    inject_adapter_in_model(lora_of(), lvlm(model))
    layers(model)[0].register_forward_hook(lambda *event: event[2] * 1.1)


def wrapped(model):
    model.visual.backbone.lvlm = get_peft_model(lvlm(model), lora_of())


REFUSED = {
    "disabled": (disabled, "default.* none .*active"),
    "off in one layer": (partly_disabled, r"LoRA default .*off in 1 of .*4 layers.*q_proj"),
    "merged in one layer": (partly_merged, r"LoRA default .*merged in 1 of .*4 layers"),
    "merged, then scaled": (merged_then_scaled, "4 of the LVLM's tensors"),
    "both active": (lambda m: of_two_the(["default", "second"], m), "default, second .*active"),
    "with a hook": (hooked, "image features"),
    "with a head of its own": (lambda m: get_peft_model(m, lora_of(modules_to_save=["lm_head"])), "ModulesToSave"),
    "with tokens": (lambda m: get_peft_model(lvlm(m), lora_of(trainable_token_indices=[5])), "TrainableTokens"),
    "a PeftModel in the LVLM's place": (wrapped, "PeftModel.*get_base_model"),
    "IA3": (lambda m: get_peft_model(m, IA3Config(target_modules=["k_proj"], feedforward_modules=[])), "k_proj.*ia3"),
    "LoHa": (lambda m: get_peft_model(m, LoHaConfig(target_modules=["k_proj"])), "k_proj.*loha"),
    "AdaLoRA": (lambda m: get_peft_model(m, AdaLoraConfig(target_modules=["k_proj"], total_step=10)), "adalora"),
    "norms": (lambda m: get_peft_model(m, LNTuningConfig(target_modules=["norm"])), "norm .*ln_tuning"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(one, tmp_path, what):
    change, message = REFUSED[what]
    change(one)
    with pytest.raises(ValueError, match=message):
        one.requires_grad_(False).save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_merged_and_unloaded_it_is_training_of_the_base(one, tmp_path):
    peft = get_peft_model(one, lora_of())
    with pytest.raises(ValueError, match="4 of the LVLM's tensors.*merged into"):
        peft.merge_and_unload().save_pretrained(tmp_path)


def test_a_bias_that_can_not_be_merged_says_how_it_is_loaded(one, tmp_path):
    inject_adapter_in_model(lora_of(lora_bias=True), lvlm(one))
    one.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"merge.*q_proj.*merge_lora=False"):
        vladva_clip.create_model(f"local-dir:{tmp_path}", precision="fp32")
    loaded, _ = vladva_clip.create_model(f"local-dir:{tmp_path}", precision="fp32", merge_lora=False)
    assert adapters.same(loaded, one)
