"""A model that computes otherwise never gets a classifier from disk that was kept for what it was before."""

import copy
import logging
import types

import open_clip
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import vladva_clip
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.zero_shot import classifier_cache, encoder_identity, shared_prefix
from vladva_clip.zero_shot.builder import build_zero_shot_classifier

NAMES, TEMPLATES = ["red circle", "dog", "cat on the left", "blue dog"], ["a {}", "the {} on the left", "{}"]


@pytest.fixture(scope="module")
def loaded(source):
    return vladva_clip.create_model(source, precision="fp32")[0]


@pytest.fixture
def model(loaded):
    """A model of the test's own, which it may change."""
    return copy.deepcopy(loaded)


@pytest.fixture
def tokenizer(source):
    return vladva_clip.get_tokenizer(source)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(shared_prefix, "MIN_ROWS", 3)


def layer(model, number: int = 0) -> nn.Module:
    return model.visual.backbone.trunk_module.layers[number]


def doubled(module, inputs, output):
    return (output[0] * 1.5, *output[1:]) if isinstance(output, tuple) else output * 1.5


class Squared(nn.Module):
    def forward(self, x):
        return x * x


class Negated(nn.Module):
    def forward(self, x):
        return -x


def hook(model, monkeypatch):
    layer(model).register_forward_hook(doubled)


def hook_at_a_place(model, monkeypatch):
    """It sees the row's first token, which `shared_prefix` runs apart."""

    def first_token_only(module, inputs, output):
        return torch.cat([output[:, :1] * 3, output[:, 1:]], dim=1)

    layer(model).mlp.register_forward_hook(first_token_only)


def pre_hook(model, monkeypatch):
    layer(model).mlp.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.5,))


def hook_of_all_modules(model, monkeypatch):
    return nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: output * 2 if isinstance(module, nn.Embedding) else None
    )


def hook_of_the_tower(model, monkeypatch):
    model.text.register_forward_hook(lambda module, inputs, output: output.roll(1, dims=1))


def activation(model, monkeypatch):
    layer(model, 1).mlp.act_fn = nn.Identity()


def module_of_the_user(model, monkeypatch):
    layer(model).mlp.act_fn = Squared()


def forward_of_an_instance(model, monkeypatch):
    mlp = layer(model).mlp
    mlp.forward = types.MethodType(lambda self, x: x, mlp)


def method_of_a_class(model, monkeypatch):
    kind = type(layer(model).mlp)
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: forward(self, x) * 0.5)


def encode_text(model, monkeypatch):
    inner = model.encode_text
    model.encode_text = lambda tokens, normalize=False: -inner(tokens, normalize)


def function_of_the_library(model, monkeypatch):
    attention = ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(
        ALL_ATTENTION_FUNCTIONS, "sdpa", lambda m, q, k, v, *a, **options: attention(m, q, k * 0.5, v, *a, **options)
    )


def setting(model, monkeypatch):
    layer(model).self_attn.scaling *= 4


def config(model, monkeypatch):
    layer(model).input_layernorm.variance_epsilon = 10.0


def order_of_layers(model, monkeypatch):
    layers = model.visual.backbone.trunk_module.layers
    layers._modules = dict(zip(layers._modules, reversed(list(layers._modules.values())), strict=True))


def int8(model):
    trunk = model.visual.backbone.trunk_module
    trunk.layers = torch.ao.quantization.quantize_dynamic(trunk.layers, {nn.Linear}, dtype=torch.qint8)


def compiled_by_a_wrong_backend(model, monkeypatch):
    def backend(graph, inputs):
        return lambda *given: [2 * out if torch.is_tensor(out) else out for out in graph(*given)]

    layer(model).mlp.compile(backend=backend)


def parametrization(model, monkeypatch):
    parametrize.register_parametrization(layer(model).mlp.down_proj, "weight", Negated())


def parametrization_of_torch(model, monkeypatch):
    parametrizations.weight_norm(layer(model).mlp.down_proj)
    layer(model).mlp.down_proj.parametrizations.weight.original0.data *= 2


def tensor_that_is_no_parameter(model, monkeypatch):
    linear = layer(model).mlp.down_proj
    weight = -linear.weight.data
    del linear.weight
    linear.weight = weight


def trunk_of_the_backbone(model, monkeypatch):
    trunk = Backbone.trunk
    monkeypatch.setattr(Backbone, "trunk", lambda *given: trunk(*given).flip(-1))


ALTERATIONS = [
    *(hook, hook_at_a_place, pre_hook, hook_of_the_tower, activation, module_of_the_user, forward_of_an_instance),
    *(method_of_a_class, encode_text, function_of_the_library, setting, config, order_of_layers),
    *(compiled_by_a_wrong_backend, parametrization, parametrization_of_torch, tensor_that_is_no_parameter),
    *(trunk_of_the_backbone, hook_of_all_modules),
]


@pytest.mark.parametrize("alter", ALTERATIONS, ids=lambda alter: alter.__name__)
def test_an_altered_model_has_a_classifier_of_its_own(model, tokenizer, monkeypatch, tmp_path, alter):
    before = build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path)
    handle = alter(model, monkeypatch)
    try:
        found = [build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path) for _ in range(2)]
        expected = open_clip.build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES)
    finally:
        if handle is not None:
            handle.remove()
    assert (before - expected).abs().max() > 1e-4  # it is another one
    for one in found:
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_int8_models_of_other_weights(model, tokenizer, tmp_path):
    built = []
    for factor in (1, -1):
        changed = copy.deepcopy(model)
        layer(changed).mlp.down_proj.weight.data *= factor
        int8(changed)
        built.append(build_zero_shot_classifier(changed, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path))
    assert (built[0] - built[1]).abs().max() > 1e-3 and not list(tmp_path.iterdir())


def test_a_model_that_computes_otherwise_under_the_same_name_is_reported(
    model, tokenizer, monkeypatch, tmp_path, caplog
):
    build = build_zero_shot_classifier
    first = build(model, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path)
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        method_of_a_class(model, patched)
        build(model, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    assert str(path) in caplog.text and "built again" in caplog.text
    assert torch.equal(build(model, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path), first)


@pytest.mark.parametrize("way", ["function", "lambda", "method", "subclass", "truncation"])
def test_an_altered_tokenizer_has_a_classifier_of_its_own(model, tokenizer, monkeypatch, tmp_path, way):
    before = build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path)
    if way == "function":
        monkeypatch.setattr(type(tokenizer), "ids", lambda self, texts: [[9 + len(text) % 7] for text in texts])
    elif way == "lambda":
        tokenizer.clean_fn = lambda text: text[::-1]
    elif way == "method":
        tokenizer.ids = lambda texts: [[9 + len(text) % 7] for text in texts]
    elif way == "subclass":
        tokenizer.tokenizer.__class__ = type("Other", (type(tokenizer.tokenizer),), {})
        tokenizer.clean_fn = str.upper
    else:
        tokenizer.tokenizer.backend_tokenizer.enable_truncation(1)
        tokenizer.context_length = 3
    found = build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path)
    expected = build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES, cache=False)
    assert (before - expected).abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_compiled_model_that_is_called_as_before_is_found_again(model, tokenizer, tmp_path):
    build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path)
    model.compile(backend="eager")
    build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_not_finite_is_not_kept(model, tokenizer, tmp_path):
    model.text.soft_prompt.weight.data.fill_(float("nan"))
    assert build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES, cache_dir=tmp_path).isnan().all()
    assert not list(tmp_path.iterdir())


def test_texts_that_tell_a_model_from_others():
    texts = [f"a photo of number {number}" for number in range(1000)] + ["x", "a photo " * 9, "last"]
    chosen = classifier_cache.probes(texts, "5" * 64)
    assert len(chosen) == 16 and {texts[0], "x", "a photo " * 9, "last"} <= set(chosen)
    assert classifier_cache.probes(["a", "a"], "5" * 64) == ["a"]


def test_a_function_that_was_put_back_is_no_alteration(model):
    layer(model).forward = layer(model).forward
    assert not encoder_identity.is_altered(model)
    layer(model).forward = layer(model).mlp.forward
    assert encoder_identity.is_altered(model)
