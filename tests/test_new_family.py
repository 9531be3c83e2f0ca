"""A family with feature maps for early layers beside its visual tokens: one class and one line in a table, all here."""

import contextlib
import json
import shutil
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file

import vladva_clip
from tests.support.training.pairs import ListSource
from tests.support.training.steps import (
    LOSSES,
    assert_equal,
    batch_of,
    double_model,
    fused_forward,
    images_of,
    one_step,
    recipe,
    small_model,
)
from vladva_clip.encoder import backbones
from vladva_clip.encoder.backbones.llava import LlavaBackbone
from vladva_clip.storage.fields import one_of
from vladva_clip.zero_shot import shared_prefix
from vladva_training.data.captions import CaptionSplitter
from vladva_training.plan.architecture import find_base
from vladva_training.plan.memory import Lengths, Share, predict_memory
from vladva_training.run.evaluation import evaluate, evaluating, long_caption_loss

CAPTIONS = ["a red circle", "a red square left of the dog", "a red", "the small cat", ""]


@dataclass(frozen=True)
class TokensAndMaps:
    """Visual tokens `(B, N, D)`, and as many vectors for the output of each of the first layers."""

    tokens: torch.Tensor
    maps: tuple[torch.Tensor, ...]

    def to(self, device):
        return TokensAndMaps(self.tokens.to(device), tuple(one.to(device) for one in self.maps))


class DeepBackbone(LlavaBackbone):
    """LLaVA whose early layers see the image again, as Qwen3-VL's do ("deepstack")."""

    family = "deep_llava"
    config_fields = {**LlavaBackbone.config_fields, "model_type": one_of("deep_llava")}

    def visual_tokens(self, images):
        states = self.vision_tower(images, output_hidden_states=True, return_dict=True).hidden_states
        project = self.lvlm.model.multi_modal_projector
        return TokensAndMaps(super().visual_tokens(images), tuple(project(states[n][:, 1:]) for n in (0, 1)))

    def slot_vectors(self, visual):
        return visual.tokens

    def trunk_inputs(self, visual, visual_mask):
        return {"maps": visual.maps, "visual_mask": visual_mask}

    def visual_size(self, num_visual_tokens):
        return 3 * super().visual_size(num_visual_tokens)

    def trunk(self, embeddings, position_ids, cache=None, maps=(), visual_mask=None):
        with adding(self.trunk_module.layers, maps, visual_mask):
            return super().trunk(embeddings, position_ids, cache)


@contextlib.contextmanager
def adding(layers, maps, visual_mask):
    """Add a map to what each of the first layers puts into the visual slots."""

    def hook_of(vectors):
        def add(_, __, hidden_states):
            shape = torch.zeros_like(hidden_states)
            return hidden_states + shape.masked_scatter(visual_mask[..., None], vectors.to(shape.dtype))

        return add

    hooks = [layer.register_forward_hook(hook_of(one)) for layer, one in zip(layers, maps, strict=False)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.fixture(scope="module")
def deep(bases, tmp_path_factory):
    """The base of the new family: LLaVA's files under another model_type."""
    directory = shutil.copytree(bases["llava"], tmp_path_factory.mktemp("deep") / "base")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "model_type": "deep_llava"}))
    weights = load_file(directory / "model.safetensors")  # transformers maps older names for the types that it knows
    weights = {name.replace("language_model.lm_head", "lm_head"): tensor for name, tensor in weights.items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.FAMILIES, "deep_llava", (__name__, "DeepBackbone"))
        yield directory


@pytest.fixture(scope="module")
def model(deep):
    return vladva_clip.create_model(f"local-dir:{deep}", precision="fp32")[0]


@pytest.fixture(scope="module")
def tokenizer(deep):
    return vladva_clip.get_tokenizer(f"local-dir:{deep}")


def of_transformers(model, ids, images, **more):
    """transformers' own forward on ids and pixels, with the maps added by the hooks alone."""
    backbone = model.visual.backbone
    mask = ids == backbone.lvlm.config.image_token_index
    with torch.no_grad(), adding(backbone.trunk_module.layers, backbone.visual_tokens(images).maps, mask):
        return backbone.lvlm(input_ids=ids, pixel_values=images, use_cache=False, output_hidden_states=True, **more)


def image_ids(model, count, behind=()):
    return torch.tensor([[*model.visual.prompts.image_row(model.visual.num_visual_tokens), *behind]] * count)


def test_image_features_hold_the_maps_whatever_the_micro_batch(model, bases):
    images = images_of(model, 5)
    expected = of_transformers(model, image_ids(model, 5), images).hidden_states[-1][:, -1]
    found = model.encode_image(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    plain, _ = vladva_clip.create_model(f"local-dir:{bases['llava']}", precision="fp32")
    assert not torch.allclose(found, plain.encode_image(images), atol=0.1)  # the same weights without the maps
    model.visual.micro_batch_tokens = 2 * model.visual.row_length
    try:
        torch.testing.assert_close(model.encode_image(images), found, rtol=0, atol=1e-5)
    finally:
        model.visual.micro_batch_tokens = None


def test_a_chat_holds_the_maps(model):
    images, visual = images_of(model, 2), model.visual
    rows = visual.chat_rows(images, model._chat_ids("Describe it."))
    expected = of_transformers(model, rows.layout.input_ids, images).hidden_states[-1]
    with torch.no_grad():
        torch.testing.assert_close(rows.hidden_states(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prompt", [None, "Describe it."])
def test_generate_sees_the_maps_at_the_prompt(model, prompt):
    """The first three tokens, each from transformers' forward over the whole row."""
    images = images_of(model, 8)
    found = model.generate(images, prompt, max_new_tokens=3)
    for text, image in zip(found, images, strict=True):
        visual = model.visual
        ids = [*visual.prompts.image_row(visual.num_visual_tokens), *visual.prompts.second_turn]
        if prompt is not None:
            chat = visual.prompts.chat_batch(1, visual.num_visual_tokens, model._chat_ids(prompt))
            ids = chat.input_ids[0].tolist()
        written = []
        while len(written) < 3:
            logits = of_transformers(model, torch.tensor([[*ids, *written]]), image[None]).logits
            written.append(int(logits[0, -1].argmax()))
            if written[-1] in model._stop_ids()[0]:
                break
        assert text == model._tokenizer.decode(written, skip_special_tokens=True).strip()


@pytest.mark.parametrize("name", ["info_nce", "sigmoid"])
@pytest.mark.parametrize("visual_cache", ["device", "cpu"])
def test_gradients_of_micro_batches_are_those_of_the_whole_batch(deep, bases, name, visual_cache):
    model = double_model(deep)
    batch, whole = batch_of(model), recipe(deep, LOSSES[name])
    expected, expected_losses = one_step(fused_forward(model, whole), whole, batch)
    for micro_size in (1, 4):
        cut = recipe(deep, LOSSES[name], micro_size, visual_cache=visual_cache)
        found, losses = one_step(fused_forward(model, cut), cut, batch)
        assert_equal(found, expected)
        assert losses == pytest.approx(expected_losses, rel=1e-9)
    plain = double_model(bases["llava"])
    other, _ = one_step(fused_forward(plain, whole), whole, batch)
    assert not torch.allclose(other["model.visual.soft_prompt.weight"], expected["model.visual.soft_prompt.weight"])


def test_next_token_gradients_are_transformers_own(deep):
    model = small_model(deep)
    batch, backbone = batch_of(model), model.visual.backbone
    fused = fused_forward(model, recipe(deep, LOSSES["plain"]))
    row = next(row for row, caption in enumerate(batch.long) if caption is not None)
    caption, image = batch.long[row].tolist(), batch.images[row : row + 1]
    ids = image_ids(model, 1, [*model.visual.prompts.second_turn, *caption])
    labels = ids.clone()
    labels[:, : -len(caption)] = -100
    with adding(backbone.trunk_module.layers, fused.visual_tokens(image).maps, ids == model.visual.prompts.visual_slot):
        (backbone.lvlm(input_ids=ids, pixel_values=image, labels=labels).loss * len(caption)).backward()
    expected = {name: grad for name, grad in of_lora(fused).items()}
    (one,) = [micro for micro in batch.micro_batches(1) if micro.keys == (batch.keys[row],)]
    fused(one, fused.visual_tokens(one.images)).ntp_sum.backward()
    assert_equal(of_lora(fused), expected, 1e-4)


def of_lora(fused):
    found = {name: p.grad for name, p in fused.named_parameters() if "lora_" in name}
    fused.zero_grad(set_to_none=True)
    return found


def test_evaluation_while_training(model, tokenizer):
    images, captions = images_of(model, 3), [torch.tensor(ids) for ids in tokenizer.ids(CAPTIONS[:3])]
    expected = 0.0
    for image, caption in zip(images, captions, strict=True):
        answer = [*caption.tolist(), tokenizer.eot_token_id]
        ids = image_ids(model, 1, [*model.visual.prompts.second_turn, *answer])
        labels = ids.clone()
        labels[:, : -len(answer)] = -100
        expected += of_transformers(model, ids, image[None], labels=labels).loss.item() * len(answer)
    with evaluating(model):
        assert long_caption_loss(model, images, captions)[0] == pytest.approx(expected, rel=1e-5)


def test_evaluation_of_a_source(deep):
    model, preprocess = vladva_clip.create_model(f"local-dir:{deep}", precision="fp32")
    splitter = CaptionSplitter(vladva_clip.get_tokenizer(f"local-dir:{deep}"), short_max_tokens=20)
    figures = evaluate(model, ListSource(count=4), splitter, preprocess, 4)
    assert figures["records"] == 4 and figures["ntp_loss"] > 0 and 0 <= figures["text_to_image_R@1"] <= 1


def test_texts_that_begin_alike(model, tokenizer, monkeypatch):
    monkeypatch.setattr(shared_prefix, "MIN_ROWS", 2)
    captions = [tuple(ids) for ids in tokenizer.ids(CAPTIONS)]
    expected = model.encode_text(tokenizer(CAPTIONS))
    with model.evaluating():
        for rows, features in shared_prefix.encode_in_groups(model.text, captions):
            torch.testing.assert_close(features, expected[rows], rtol=0, atol=1e-4)


def test_an_adapter_is_saved_and_loaded(deep, tmp_path):
    model = small_model(deep)
    model.save_pretrained(tmp_path / "adapter")
    again, _ = vladva_clip.create_model(f"local-dir:{tmp_path / 'adapter'}", precision="fp32", merge_lora=False)
    images = images_of(model, 2)
    assert again.config.base.family == "deep_llava"
    assert torch.equal(again.encode_image(images), model.eval().encode_image(images))


def test_the_planned_memory_counts_the_maps(deep):
    whole = recipe(deep, LOSSES["plain"], 2, autocast="fp32")
    base = find_base(whole.model)
    planned = predict_memory(whole, base.backbone, Share.of(whole), Lengths(20, 10, 9), base.num_visual_tokens, 0)
    value = base.backbone.visual_size(base.num_visual_tokens)
    assert planned.visual_tokens == whole.batch.size * 4 * value and value == 3 * 16 * 32


class NarrowBackbone(LlavaBackbone):
    """LLaVA whose trunk ends in a projection, as EmbeddingGemma's does; here it keeps the last half of the states."""

    family = "narrow_llava"
    config_fields = {**LlavaBackbone.config_fields, "model_type": one_of("narrow_llava")}
    projects = True

    @property
    def embed_dim(self):
        return self.hidden_dim // 2

    @classmethod
    def width_of(cls, base_config):
        return super().width_of(base_config) // 2

    def trunk(self, embeddings, position_ids, cache=None, **trunk_inputs):
        return super().trunk(embeddings, position_ids, cache, **trunk_inputs)[..., self.embed_dim :]


def test_a_family_whose_features_have_another_width(deep, bases, tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.FAMILIES, "narrow_llava", (__name__, "NarrowBackbone"))
    narrow = shutil.copytree(deep, tmp_path / "narrow")
    config = json.loads((narrow / "config.json").read_text())
    (narrow / "config.json").write_text(json.dumps({**config, "model_type": "narrow_llava"}))
    model, _ = vladva_clip.create_model(f"local-dir:{narrow}", precision="fp32")
    plain, _ = vladva_clip.create_model(f"local-dir:{bases['llava']}", precision="fp32")
    tokens, width = vladva_clip.get_tokenizer(f"local-dir:{narrow}")(CAPTIONS * 4), plain.embed_dim // 2
    assert model.config.encoding.projection == "trunk" and model.embed_dim == width == model.config.embed_dim
    torch.testing.assert_close(model.encode_text(tokens), plain.encode_text(tokens)[:, width:])
    images = images_of(model, 2)
    torch.testing.assert_close(model.encode_image(images), plain.encode_image(images)[:, width:])
    with pytest.raises(ValueError, match="ends in a projection.*ntp_weight=0"):
        model.generate(images)
    model.save_pretrained(tmp_path / "adapter")
    again, _ = vladva_clip.create_model(f"local-dir:{tmp_path / 'adapter'}", precision="fp32")
    assert torch.equal(again.encode_text(tokens), model.encode_text(tokens))
    monkeypatch.setattr(NarrowBackbone, "projects", False)
    with pytest.raises(ValueError, match="projection 'trunk'.*does not end in a projection"):
        vladva_clip.create_model(f"local-dir:{tmp_path / 'adapter'}", precision="fp32")
