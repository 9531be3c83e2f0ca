"""What is loaded of the published files: all but the audio tower, strictly; and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import vladva_clip
from tests.support.edits import edit_json
from tests.support.models.published_configs import PUBLISHED
from tests.support.published import samples
from tests.support.published.ours import Ours, profile
from vladva_clip.encoder.admission.base_config import read_base_config
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources import bases
from vladva_clip.storage.base import BaseFiles

NAME, WEIGHTS = "embeddinggemma-2", "model.safetensors"
AUDIO = ("audio_tower.", "embed_audio.")


def load(directory: Path, **options: object) -> Ours:
    return Ours(f"local-dir:{directory}", profile=NAME, **options)


def with_tensors(directory: Path, **changes: torch.Tensor | None) -> Path:
    """Change tensors of a directory's weights in place; None leaves one out."""
    tensors = load_file(directory / WEIGHTS) | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, directory / WEIGHTS, metadata={"format": "pt"})
    return directory


def part_edited(directory: Path, part: str, **values: object) -> Path:
    config = json.loads((directory / "config.json").read_text())
    edit_json(directory / "config.json", **{part: config[part] | values})
    return directory


def test_audio_is_left_out_and_nothing_else(gemma):
    stored = load_file(gemma.directory() / WEIGHTS)
    lvlm = load(gemma.directory()).model.visual.backbone.lvlm
    found = lvlm.state_dict()
    assert any(name.startswith(AUDIO) for name in stored) and lvlm.audio_tower is None
    assert set(found) == {name for name in stored if not name.startswith(AUDIO)}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, stored[name].float(), atol=0, rtol=0)


def test_for_texts_alone_the_vision_weights_are_left_out_too(gemma):
    whole, alone = load(gemma.directory()), load(gemma.directory(), text_only=True)
    assert torch.equal(whole.text(["a dog"]), alone.text(["a dog"]))
    left = {name.partition(".")[0] for name in alone.model.visual.backbone.lvlm.state_dict()}
    assert left == {"language_model", "embed_vision"}


@pytest.mark.wide
def test_files_without_audio_load_to_the_same(gemma, copy):
    audio = [name for name in load_file(copy / WEIGHTS) if name.startswith(AUDIO)]
    with_tensors(copy, **dict.fromkeys(audio))
    edit_json(copy / "config.json", audio_config=None)
    assert torch.equal(load(copy).text(["a dog"]), load(gemma.directory()).text(["a dog"]))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("video_tower.weight", "unexpected_keys: video_tower.weight"),
        ("vision_tower.extra.weight", "unexpected_keys: vision_tower.extra.weight"),
        ("language_model.audio_tower.weight", "unexpected_keys: language_model.audio_tower.weight"),
        ("lm_head.weight", "unexpected_keys: lm_head.weight"),
    ],
)
def test_other_tensors_are_refused(copy, name, found):
    """transformers itself would leave out what begins with `vision_tower.` in silence."""
    with pytest.raises(ValueError, match=found):
        load(with_tensors(copy, **{name: torch.zeros(2)}))


@pytest.mark.wide
@pytest.mark.parametrize(
    "name",
    [
        *("embed_vision.embedding_projection.weight", "vision_tower.patch_embedder.position_embedding_table"),
        *("language_model.layers.1.layer_scalar", "language_model.embedding_projection.weight"),
    ],
)
def test_missing_and_misshapen_tensors_are_refused(copy, name):
    right = load_file(copy / WEIGHTS)[name]
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load(with_tensors(copy, **{name: None}))
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load(with_tensors(copy, **{name: torch.cat([right, right])}))


def test_float16_is_refused(gemma):
    for precision in ("fp16", "pure_fp16"):
        with pytest.raises(ValueError, match=f"precision {precision}.*float16.*bf16 or fp32"):
            vladva_clip.create_model(NAME, precision=precision, cache_dir=gemma.cache_dir)


@pytest.mark.wide
def test_bf16_is_the_default(gemma):
    model, preprocess = vladva_clip.create_model(NAME, image_size=384, cache_dir=gemma.cache_dir)
    assert model.visual.backbone.dtype == torch.bfloat16 and not model.visual.backbone.has_head
    exact = Ours(NAME, image_size=384, cache_dir=gemma.cache_dir)
    tokens, pictures = exact.tokenizer(["a dog"]), preprocess(samples.picture(384))[None]
    with torch.no_grad():
        for found, expected in (
            (model.encode_text(tokens, True), exact.model.encode_text(tokens, True)),
            (model.encode_image(pictures, True), exact.model.encode_image(pictures, True)),
        ):
            assert found.dtype == torch.float32 and torch.cosine_similarity(found, expected).item() > 0.99


@pytest.mark.parametrize("prompt", [None, pytest.param("What is it?", marks=pytest.mark.wide)])
def test_generating_is_refused(gemma, prompt):
    ours = Ours(NAME, image_size=384, cache_dir=gemma.cache_dir)
    with pytest.raises(ValueError, match="bidirectional attention"):
        ours.model.generate(ours.preprocess(samples.picture(384))[None], prompt)
    with pytest.raises(ValueError, match="without its language-model head"):
        ours.model.visual.backbone.head(torch.zeros(1, 48))


def test_without_a_profile_it_is_refused_by_any_name(copy, tmp_path):
    """Even where neither name, class nor files say that it is an embedder."""
    bare = Path(shutil.copytree(copy, tmp_path / "model", ignore=shutil.ignore_patterns("*sentence*", "[12m]_*")))
    (bare / "modules.json").unlink()
    edit_json(bare / "config.json", architectures=None)
    with pytest.raises(ValueError, match="embedding_gemma2.*profile="):
        vladva_clip.create_model(f"local-dir:{bare}")


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"attention": "causal"}, "attention 'causal'.*attends both ways"),
        ({"projection": None}, "projection None.*ends in a projection"),
    ],
)
def test_a_profile_that_says_otherwise_is_refused(gemma, tmp_path, values, error):
    data = profile(NAME)
    data["config"]["encoding"] |= values
    (tmp_path / "other.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=error):
        Ours(f"local-dir:{gemma.directory()}", profile=tmp_path / "other.json")


@pytest.mark.parametrize("size", [400, 4800])
def test_sizes_that_the_tower_cannot_take(gemma, size):
    with pytest.raises(ValueError, match="multiple of 48|expected at most"):
        Ours(NAME, image_size=size, cache_dir=gemma.cache_dir)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("part", "values", "error"),
    [
        ("vision_config", {"use_clipped_linears": True}, "use_clipped_linears"),
        ("vision_config", {"standardize": True}, "standardize"),
        ("vision_config", {"model_type": "siglip_vision_model"}, "gemma4_vision"),
        ("vision_config", {"head_dim": 18}, "multiple of 4"),
        ("vision_config", {"position_embedding_size": 20}, "position_embedding_size"),
        ("text_config", {"model_type": "gemma3_text"}, "embedding_gemma2_text"),
        ("text_config", {"per_layer_config": {"01": {"_attn_implementation": "x"}}}, "per_layer_config"),
        ("text_config", {"per_layer_config": {"one": {"head_dim": 16}}}, "per_layer_config"),
        ("text_config", {"layer_types": ["full_attention", "sliding_attention"] * 2}, "full_attention|per_layer"),
        ("text_config", {"layer_types": ["full_attention"]}, "layer"),
        ("text_config", {"rope_parameters": {"full_attention": {"rope_type": "dynamic"}}}, "rope_type"),
        ("text_config", {"embedding_dim": 40}, "embedding_projection"),
        ("audio_config", {}, None),
    ],
)
def test_settings_of_config_json(copy, part, values, error):
    """Of the audio tower, which is not built, no setting matters."""
    changed = part_edited(copy, part, **(values or {"model_type": "other", "auto_map": {"AutoModel": "code.Run"}}))
    if error is None:
        assert load(changed).model.embed_dim == 48
    else:
        with pytest.raises(ValueError, match=error):
            load(changed)


def test_an_audio_part_must_be_an_object(copy):
    edit_json(copy / "config.json", audio_config=3)
    with pytest.raises(ValueError, match="audio_config is 3, expected an object"):
        load(copy)


@pytest.mark.usefixtures("gemma")  # skips before transformers 5.19
def test_parameters_and_tensors_are_counted_as_published(tmp_path):
    """mteb counts 438,760,448 for text and vision; 413 and 211 tensors are in the published file (mlx-swift-lm)."""
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[NAME]))
    family, data = backbone_class("embedding_gemma2"), profile(NAME)
    for config in (read_base_config(BaseFiles(tmp_path)), bases.find(data["base"]).config):
        backbone = family.from_config(config, torch.bfloat16, headless=True)
        assert sum(one.numel() for one in backbone.parameters()) == data["num_parameters"] == 438_760_448
        assert backbone.embed_dim == data["config"]["embed_dim"] == family.width_of(config) == 768
        assert backbone.hidden_dim == 512 and backbone.num_visual_tokens(768) == 256
        names = list(backbone.lvlm.state_dict())
        assert [sum(name.startswith(part) for name in names) for part in ("language_model.", "")] == [413, 413 + 211]
