"""A model for texts alone: the same text features in less memory; whatever needs the tower says why it can't."""

import pytest
import torch

import vladva_clip


def size(model: torch.nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize(
    "family", ["llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3", "internvl", "llava_next"]
)
def test_text_features_are_the_same_without_the_tower(bases, family):
    name = f"local-dir:{bases[family]}"
    whole, _ = vladva_clip.create_model(name)
    alone, _ = vladva_clip.create_model(name, text_only=True)
    tokens = vladva_clip.get_tokenizer(name)(["a red circle", "a blue square left of a star"])
    assert torch.equal(whole.encode_text(tokens), alone.encode_text(tokens))
    tower = size(whole.visual.backbone.vision_tower)
    assert tower > 0 and size(whole) - size(alone) == tower
    assert not [key for key in alone.state_dict() if "vision_tower" in key or ".visual.blocks" in key]


@pytest.fixture(scope="module")
def alone():
    return vladva_clip.create_model("vladva-tiny", text_only=True)[0]


def test_what_needs_the_tower_is_refused(alone, tmp_path):
    images = torch.zeros(1, 3, *alone.visual.image_size)
    for use in (alone.encode_image, alone.visual, alone.generate, lambda images: alone(image=images)):
        with pytest.raises(ValueError, match="text_only=True, so its vision tower is not in memory; to embed images"):
            use(images)
    with pytest.raises(ValueError, match="to save it, load it without"):
        alone.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
    with pytest.raises(ValueError, match="to train parts of it, load it without"):
        alone.lock_image_tower(1)


def test_the_rest_works_as_before(alone):
    """A forward pass of texts, the shared beginning of many captions, other dtypes."""
    whole, _ = vladva_clip.create_model("vladva-tiny")
    tokens = vladva_clip.tokenize([f"{count} red circles" for count in range(40)])
    assert torch.equal(alone(text=tokens)[1], whole(text=tokens)[1])
    alone.double().float()
    assert alone.visual.num_visual_tokens == whole.visual.num_visual_tokens
