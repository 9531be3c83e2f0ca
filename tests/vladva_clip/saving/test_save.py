"""A model that is saved and loaded gives the same features, or saving is refused: whatever was done to the base."""

import copy
import shutil

import pytest
import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic
from torch.nn.utils import parametrizations, prune

import vladva_clip
from tests.support import adapters

SAVE_THE_LVLM = r"of the LVLM's tensors .*model.visual.backbone.lvlm.save_pretrained"
OTHER_FEATURES = "(image features|text features|next-token logits) .*differs"


@pytest.fixture
def fresh(model):
    """A copy of each family's training-free model, to be changed."""
    return copy.deepcopy(model)


@pytest.fixture
def one(llava):
    return copy.deepcopy(llava)


@pytest.fixture(scope="module")
def merged(bases, tmp_path_factory):
    """A model whose adapter was merged on loading."""
    directory = tmp_path_factory.mktemp("merged")
    adapters.write_adapter(bases["llava"], directory)
    return vladva_clip.create_model(f"local-dir:{directory}", precision="fp32")[0]


def last_layer(model):
    return model.visual.backbone.trunk_module.layers[-1]


def refuse(model, directory, match):
    with pytest.raises(ValueError, match=match):
        model.save_pretrained(directory / "adapter")
    assert not (directory / "adapter").exists()


def distance(model, directory, **options):
    """How far the features of the model, saved and loaded, are from its own."""
    model.save_pretrained(directory)
    loaded, _ = vladva_clip.create_model(f"local-dir:{directory}", **{"precision": "fp32", **options})
    pairs = zip(adapters.features(loaded), adapters.features(model), strict=True)
    return max((found - expected).abs().max().item() for found, expected in pairs)


def train(model, parameters, rate=1e-2):
    """One step of plain gradient descent, and all is frozen again."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    image, text = adapters.features(model)
    (image.sum() + text[:, ::2].sum()).backward()
    torch.optim.SGD(parameters, rate).step()
    return model.requires_grad_(False)


class TestTrainingOfTheBase:
    def test_then_frozen(self, fresh, tmp_path):
        train(fresh, list(last_layer(fresh).parameters()))
        refuse(fresh, tmp_path, SAVE_THE_LVLM)

    @pytest.mark.parametrize("layer", ["trunk", "vision", "embedding"])
    def test_of_one_tensor_at_a_small_rate(self, one, tmp_path, layer):
        backbone = one.visual.backbone
        weights = {
            "trunk": last_layer(one).mlp.down_proj.weight,
            "vision": backbone.vision_blocks[0].mlp.fc1.weight,
            "embedding": backbone.lvlm.get_input_embeddings().weight,
        }
        train(one, [weights[layer]], rate=1e-5)
        refuse(one, tmp_path, "^1 " + SAVE_THE_LVLM)

    def test_under_a_lora(self, one, tmp_path):
        adapters.with_lora(one)
        last_layer(one).self_attn.q_proj.base_layer.weight.data.add_(1e-5)
        refuse(one, tmp_path, SAVE_THE_LVLM)

    def test_of_a_merged_adapter(self, merged, tmp_path):
        model = copy.deepcopy(merged)
        train(model, [last_layer(model).self_attn.q_proj.weight], rate=1e-5)
        refuse(model, tmp_path, SAVE_THE_LVLM)

    def test_that_comes_by_load_state_dict(self, fresh, model, tmp_path):
        trained = copy.deepcopy(fresh)
        train(trained, list(last_layer(trained).parameters()))
        fresh.load_state_dict(trained.state_dict())
        refuse(fresh, tmp_path, SAVE_THE_LVLM)
        fresh.load_state_dict(model.state_dict())
        assert distance(fresh, tmp_path) == 0

    def test_that_is_an_average_with_a_merged_adapter(self, merged, llava, tmp_path):
        model = copy.deepcopy(merged)
        lvlms = [each.visual.backbone.lvlm.parameters() for each in (model, llava)]
        for own, other in zip(*lvlms, strict=True):
            own.data.lerp_(other, 0.5)
        refuse(model, tmp_path, SAVE_THE_LVLM)

    def test_of_one_number_of_a_norm_and_of_a_buffer(self, fresh, tmp_path):
        trunk = fresh.visual.backbone.trunk_module
        trunk.norm.weight.data[0] += 1e-5
        trunk.rotary_emb.inv_freq[-1] *= 1.01
        refuse(fresh, tmp_path, "^2 of .*norm.weight")

    def test_random_weights(self, bases, llava, tmp_path):
        random, _ = vladva_clip.create_model(f"local-dir:{bases['llava']}", precision="fp32", load_weights=False)
        refuse(random, tmp_path, SAVE_THE_LVLM)
        random.load_state_dict(llava.state_dict())
        assert distance(random, tmp_path) == 0

    def test_base_files_that_are_gone(self, bases, tmp_path):
        base = shutil.copytree(bases["llava"], tmp_path / "base")
        model, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
        (base / "model.safetensors").unlink()
        refuse(model, tmp_path, f"{base}.*compared.*model.safetensors.*save_pretrained")

    def test_beside_an_lvlm(self, one, bases, tmp_path):
        base = shutil.copytree(bases["llava"], tmp_path / "base")
        with pytest.raises(ValueError, match=f"{base} .*model.safetensors"):
            one.save_pretrained(base)
        assert not (base / "vladva_config.json").exists()


def swap_a_layer(model):
    old = last_layer(model).mlp.up_proj
    last_layer(model).mlp.up_proj = nn.Linear(old.in_features, old.out_features, bias=False).requires_grad_(False)


def swap_the_layers(model):
    layers = model.visual.backbone.trunk_module.layers
    layers[0], layers[1] = layers[1], layers[0]


def untie_the_head(model):
    head = model.visual.backbone.lvlm.lm_head
    head.weight = nn.Parameter(head.weight.detach() * 1.1, requires_grad=False)


TENSORS = {
    "a layer of its own": swap_a_layer,
    "layers in another order": swap_the_layers,
    "a layer less": lambda model: model.visual.backbone.trunk_module.layers.__delitem__(-1),
    "more tokens": lambda model: model.visual.backbone.lvlm.resize_token_embeddings(model.vocab_size + 4),
    "int8": lambda model: quantize_dynamic(model, {nn.Linear}, torch.qint8, inplace=True),
    "pruned": lambda model: prune.l1_unstructured(last_layer(model).mlp.up_proj, "weight", 0.2),
    "weight norm": lambda model: parametrizations.weight_norm(last_layer(model).mlp.up_proj),
    "another head": untie_the_head,
}


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:.*quantize_dynamic")
@pytest.mark.parametrize("what", TENSORS)
def test_other_tensors(one, tmp_path, what):
    TENSORS[what](one)
    refuse(one.requires_grad_(False), tmp_path, SAVE_THE_LVLM)


def of_another_class(model):
    class Louder(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs) * 1.1

    last_layer(model).mlp.up_proj.__class__ = Louder


def patch(owner, name, change):
    own = getattr(owner, name)
    setattr(owner, name, lambda *args, **options: change(own(*args, **options)))


BEHAVIOR = {
    "an activation": lambda model: setattr(last_layer(model).mlp, "act_fn", nn.GELU()),
    "a class": of_another_class,
    "a number of a norm": lambda model: setattr(last_layer(model).input_layernorm, "variance_epsilon", 1.0),
    "a hook": lambda model: model.visual.register_forward_hook(lambda *event: event[2].roll(1, -1)),
    "a hook before": lambda model: last_layer(model).mlp.register_forward_pre_hook(lambda _, args: (args[0] * 1.1,)),
    "a hook on the head": lambda model: model.visual.backbone.lvlm.lm_head.register_forward_hook(
        lambda *event: event[2].roll(1, -1)
    ),
    "a tower's forward": lambda model: patch(model.text, "forward", lambda features: features + 1),
    "encode_image": lambda model: patch(model, "encode_image", lambda features: features.flip(-1)),
    "a width": lambda model: setattr(model.visual, "output_dim", 16),
    "a soft prompt with NaN in its LoRA": lambda model: (
        adapters.with_lora(model)
        .visual.backbone.trunk_module.layers[0]
        .self_attn.q_proj.lora_A["default"]
        .weight.data.fill_(float("nan"))
    ),
}


@pytest.mark.parametrize("what", BEHAVIOR)
def test_other_behavior(one, tmp_path, what):
    BEHAVIOR[what](one)
    refuse(one, tmp_path, OTHER_FEATURES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m.text, "soft_prompt", nn.Identity()), r"text.soft_prompt.weight is NoneType"),
        (lambda m: setattr(m.text.soft_prompt, "weight", nn.Parameter(torch.zeros(3, 32))), r"\(3, 32\), expected \("),
        (
            lambda m: m.visual.soft_prompt.weight.data.fill_(float("inf")),
            "visual.soft_prompt.weight .*NaN",
        ),
        (
            lambda m: setattr(m, "logit_bias", nn.Parameter(torch.zeros(3))),
            r"logit_bias is \(3,\)",
        ),
        (lambda m: m.logit_scale.data.fill_(float("nan")), "logit_scale is nan"),
        (lambda m: m._tokenizer.add_tokens(["<new>"]), "vocabulary"),
        (lambda m: setattr(m.text, "context_length", 7), "text.context_length is 7, .*loaded with 256"),
        (lambda m: m.visual.preprocess_cfg.update(mean=(0.0, 0.0, 0.0)), "visual.preprocess_cfg"),
    ],
)
def test_other_parts(one, tmp_path, change, message):
    change(one)
    refuse(one, tmp_path, message)


class TestWhatMaySave:
    CASTS = {
        "half": lambda model: model.half(),
        "half and back": lambda model: model.half().float(),
        "bfloat16": lambda model: model.to(torch.bfloat16),
        "bfloat16, half and back": lambda model: model.bfloat16().half().float(),
        "double": lambda model: model.double(),
    }

    @pytest.mark.parametrize("what", CASTS)
    def test_a_cast(self, fresh, tmp_path, what):
        assert distance(self.CASTS[what](fresh), tmp_path) < (1e-6 if what == "double" else 0.05)

    @pytest.mark.parametrize("what", ["half and back", "bfloat16"])
    def test_a_cast_of_a_merged_adapter(self, merged, tmp_path, what):
        assert distance(self.CASTS[what](copy.deepcopy(merged)), tmp_path) < 0.1

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_a_merged_adapter_in_half_precision(self, merged, tmp_path, precision):
        merged.save_pretrained(tmp_path / "first")
        model, _ = vladva_clip.create_model(f"local-dir:{tmp_path / 'first'}", precision=precision)
        assert distance(model, tmp_path / "again", precision=precision) == 0

    def test_hooks_that_record(self, fresh, tmp_path):
        seen = []
        fresh.visual.register_forward_hook(lambda *event: seen.append(event[2].shape))
        assert distance(fresh, tmp_path) == 0 and seen

    def test_what_computes_the_same(self, fresh, tmp_path):
        fresh.visual.micro_batch_tokens = 64
        fresh.visual.backbone.lvlm.set_attn_implementation("eager")
        fresh.train()
        fresh.set_grad_checkpointing()
        assert distance(fresh, tmp_path) < 1e-5
        assert fresh.training

    def test_whatever_the_caller_set(self, merged, tmp_path, request):
        """An autocast would round a merge, a default device hold no values, a default dtype round the scale."""
        with torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
            merged.save_pretrained(tmp_path)
        request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
        torch.set_default_dtype(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            loaded, _ = vladva_clip.create_model(f"local-dir:{tmp_path}", precision="fp32")
        assert adapters.same(loaded, merged) and torch.equal(loaded.logit_scale, merged.logit_scale)

    @pytest.mark.slow
    def test_what_is_compiled(self, one, tmp_path):
        one.visual.backbone.trunk_module.compile(backend="eager")
        assert distance(one, tmp_path) < 1e-6

    def test_soft_prompts_that_are_computed(self, one, tmp_path):
        parametrizations.weight_norm(one.text.soft_prompt)
        one.text.soft_prompt.parametrizations.weight.original0.data.mul_(2)
        assert distance(one.requires_grad_(False), tmp_path) < 1e-6

    def test_nothing_is_drawn_and_nothing_changed(self, fresh, model, tmp_path):
        torch.manual_seed(7)
        fresh.save_pretrained(tmp_path)
        drawn = torch.rand(1)
        torch.manual_seed(7)
        assert torch.equal(drawn, torch.rand(1))
        assert all(
            torch.equal(*pair) for pair in zip(fresh.state_dict().values(), model.state_dict().values(), strict=True)
        )
