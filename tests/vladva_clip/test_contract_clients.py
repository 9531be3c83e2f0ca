"""What clients rely on in the model object: members, towers called through hooks, one registration, locks."""

import json

import open_clip
import pytest
import torch
from torch import nn

import vladva_clip
from tests.support import samples


@pytest.fixture(scope="module")
def own(base):
    """A model that a test may change."""
    return vladva_clip.create_model(f"local-dir:{base}", precision="fp32")[0]


class TestModelObject:
    def test_members(self, model, base):
        visual, text = model.visual, model.text
        sides = dict.fromkeys(("llava", "llava_next", "llava_onevision", "internvl"), 56)
        sides |= {"qwen3_vl": 512, "idefics3": 112}
        side = sides.get(model.config.base.family, 448)
        assert isinstance(visual, nn.Module) and isinstance(text, nn.Module)
        assert visual.image_size == (side, side) and isinstance(visual.image_size, tuple)
        stated = json.loads((base / "preprocessor_config.json").read_text())
        assert visual.image_mean == tuple(stated["image_mean"]) and visual.image_std == tuple(stated["image_std"])
        assert set(visual.preprocess_cfg) == set(open_clip.transform.PreprocessCfg.__dataclass_fields__)
        assert visual.preprocess_cfg["size"] == side and visual.preprocess_cfg["mean"] == visual.image_mean
        assert visual.output_dim == text.output_dim == model.embed_dim == 32
        assert model.vocab_size == text.vocab_size == visual.backbone.vocab_size
        assert isinstance(model.logit_scale, nn.Parameter) and model.logit_scale.shape == ()
        assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)
        assert model.logit_bias is None and model.output_dict is False

    def test_the_lvlm_is_registered_once(self, model):
        names = list(model.state_dict())
        assert len(set(names)) == len(names)
        assert all(name.startswith(("visual.", "text.soft_prompt.", "logit_scale")) for name in names)
        assert [name for name, _ in model.named_modules(remove_duplicate=False) if name.endswith("lvlm")] == [
            "visual.backbone.lvlm"
        ]
        assert set(model.text.state_dict()) == {"soft_prompt.weight"}
        lvlm = dict(model.visual.backbone.lvlm.named_parameters())
        assert len(list(model.parameters())) == len(lvlm) + 3  # and two soft prompts, logit scale
        assert model.text.backbone is model.visual.backbone

    def test_visual_is_called_once_through_call(self, model):
        seen = []
        hook = dict(model.named_modules())["visual"].register_forward_hook(lambda *event: seen.append(event))
        images = samples.image_batch(model, 5)
        try:
            features, normalised = model.encode_image(images), model(image=images)[0]
        finally:
            hook.remove()
        assert len(seen) == 2
        assert torch.equal(seen[0][2], features) and seen[0][2].dtype == torch.float32
        torch.testing.assert_close(nn.functional.normalize(seen[1][2], dim=-1), normalised)

    def test_text_is_called_through_call(self, model, tokenizer):
        seen = []
        hook = dict(model.named_modules())["text"].register_forward_hook(lambda *event: seen.append(event[2]))
        try:
            features = model.encode_text(tokenizer(samples.CAPTIONS))
        finally:
            hook.remove()
        assert len(seen) == 1 and torch.equal(seen[0], features)

    def test_forward(self, model, tokenizer):
        images, tokens = samples.image_batch(model, 2), tokenizer(samples.CAPTIONS)
        image_features, text_features, scale = model(images, tokens)
        for features, encode, inputs in (
            (image_features, model.encode_image, images),
            (text_features, model.encode_text, tokens),
        ):
            assert torch.equal(features, encode(inputs, normalize=True))
            torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))
            raw = encode(inputs)
            torch.testing.assert_close(raw / raw.norm(dim=1, keepdim=True), features)
            assert (raw.norm(dim=1) - 1).abs().min() > 0.1  # raw by default
        assert scale == model.logit_scale.exp()
        only_image, only_text = model(image=images), model(text=tokens)
        assert torch.equal(only_image[0], image_features) and only_image[1] is None
        assert only_text[0] is None and torch.equal(only_text[1], text_features)
        assert len(only_image) == len(only_text) == 3

    def test_forward_as_a_dict(self, base, tokenizer):
        model, _, _ = vladva_clip.create_model_and_transforms(f"local-dir:{base}", precision="fp32", output_dict=True)
        images, tokens = samples.image_batch(model, 2), tokenizer(samples.CAPTIONS)
        result = model(images, tokens)
        assert list(result) == ["image_features", "text_features", "logit_scale"]  # a bias would break losses
        assert torch.equal(result["image_features"], model.encode_image(images, normalize=True))
        assert torch.equal(model(text=tokens)["text_features"], result["text_features"])
        model.output_dict = False
        assert isinstance(model(text=tokens), tuple)

    def test_get_logits(self, model, tokenizer):
        images, tokens = samples.image_batch(model, 2), tokenizer(samples.CAPTIONS)
        image_features, text_features, scale = model(images, tokens)
        image_logits, text_logits = model.get_logits(images, tokens)
        torch.testing.assert_close(image_logits, scale * image_features @ text_features.T)
        assert torch.equal(text_logits, image_logits.T) and image_logits.shape == (2, len(samples.CAPTIONS))

    def test_a_bias_stands_where_open_clips_does(self, base, tokenizer):
        model, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32", output_dict=True)
        model.logit_bias = nn.Parameter(torch.tensor(-10.0))
        text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
        vision = {"image_size": 32, "patch_size": 16, "width": 16, "head_width": 8, "layers": 1}
        theirs = open_clip.model.CLIP(8, vision, text, init_logit_bias=-10.0, output_dict=True)
        images, tokens = samples.image_batch(model, 2), tokenizer(samples.CAPTIONS)
        found = model(images, tokens), theirs(torch.randn(2, 3, 32, 32), torch.randint(1, 64, (2, 8)))
        assert list(found[0]) == list(found[1]) and found[0]["logit_bias"] is model.logit_bias
        model.output_dict = theirs.output_dict = False
        assert (
            len(model(images)) == len(theirs(torch.randn(2, 3, 32, 32))) == 4 and model(images)[3] is model.logit_bias
        )
        similarity = found[0]["image_features"] @ found[0]["text_features"].T
        for logits, expected in zip(model.get_logits(images, tokens), (similarity, similarity.T), strict=True):
            torch.testing.assert_close(logits, model.logit_scale.exp() * expected - 10)
        assert "logit_bias" in model.no_weight_decay()

    def test_the_text_tower_of_clip_is_not_pretended(self, model):
        for name in ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection"):
            with pytest.raises(AttributeError, match=name):
                getattr(model, name)


class TestLocks:
    def trainable(self, model):
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    def test_image_tower(self, own):
        vision = tuple(f"visual.backbone.lvlm.model.{name}." for name in ("vision_tower", "visual", "vision_model"))
        tower = {name for name, _ in own.named_parameters() if name.startswith(vision)}
        last = len(own.visual.backbone.vision_blocks) - 1
        own.requires_grad_(True)
        everything = self.trainable(own)
        own.lock_image_tower()
        assert tower and self.trainable(own) == everything - tower
        own.requires_grad_(True)
        own.lock_image_tower(unlocked_groups=1, freeze_bn_stats=True)
        unlocked = self.trainable(own) & tower
        assert unlocked and all(f".{last}." in name for name in unlocked)
        own.lock_image_tower(unlocked_groups=99)
        used = {id(p) for block in own.visual.backbone.vision_blocks for p in block.parameters()}
        blocks = {name for name, parameter in own.named_parameters() if id(parameter) in used}
        assert blocks and self.trainable(own) & tower == blocks
        own.requires_grad_(False)

    def test_text_tower(self, own):
        names = (".language_model.", ".text_model.")
        trunk = {name for name, _ in own.named_parameters() if any(part in name for part in names)}
        own.requires_grad_(True)
        everything = self.trainable(own)
        own.lock_text_tower()
        assert trunk and self.trainable(own) == everything - trunk
        own.lock_text_tower(unlocked_layers=1, freeze_layer_norm=False)
        unlocked = self.trainable(own) & trunk
        assert {name for name in unlocked if "norm" not in name} == {
            name for name in trunk if ".layers.1." in name and "norm" not in name
        }
        assert {name for name in trunk if "norm" in name} <= unlocked
        own.lock_text_tower(unlocked_layers=1, freeze_layer_norm=True, pooler_in_head=True)  # as open_clip 4 calls it
        assert self.trainable(own) & trunk == {name for name in trunk if ".layers.1." in name}
        own.requires_grad_(False)

    def test_no_weight_decay(self, model):
        names, parameters = model.no_weight_decay(), dict(model.named_parameters())
        assert {"logit_scale", "visual.soft_prompt.weight", "text.soft_prompt.weight"} <= names < set(parameters)
        assert all(parameter.ndim < 2 for name, parameter in parameters.items() if "norm" in name and name in names)
        assert not any("proj.weight" in name for name in names)
