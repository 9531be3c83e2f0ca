"""What is dropped of the registered bases' own config.json changes nothing: same architecture, same settings."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch

import vladva_clip
from tests.support.models.published_configs import PUBLISHED, RESAVED
from vladva_clip.encoder.admission.base_config import read_base_config
from vladva_clip.encoder.admission.base_fit import check_builds
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources import profiles, registry
from vladva_clip.storage.base import BaseFiles

LATER = [one.name for one in profiles.packaged() if profiles.missing_release(one)]  # than the installed transformers
FILES = [*((name, config) for name, config in PUBLISHED.items() if name not in LATER), *RESAVED.items()]
IDS = [*(name for name in PUBLISHED if name not in LATER), *(f"{name}-resaved" for name in RESAVED)]
BARE = [(name, config) for name, config in FILES if registry.find(name).profile is None]
PARTS = {"text_config", "vision_config", "audio_config"}  # the last is not built
# with `use_cache`, which each of our calls states
BOOKKEEPING = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


def written(directory: Path, config: dict) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(("name", "config"), FILES, ids=IDS)
def test_builds_the_registered_architecture(name, config, tmp_path):
    side = registry.facts(name).image_size or config["vision_config"]["image_size"]
    built = check_builds(BaseFiles(written(tmp_path, config)), side)
    family = backbone_class(config["model_type"])
    expected = family.from_config(registry.architecture(name), torch.float32)
    shapes = [{key: t.shape for key, t in backbone.lvlm.named_parameters()} for backbone in (built, expected)]
    assert shapes[0] == shapes[1] and built.head_is_tied == expected.head_is_tied


@pytest.mark.parametrize(("name", "config"), FILES, ids=IDS)
def test_means_what_transformers_reads_in_the_whole_file(name, config, tmp_path):
    """Each setting that transformers' own reading of the file has, but for its bookkeeping and unknown keys.

    Where the file leaves out what earlier releases took for granted, that is added.
    """
    family = backbone_class(config["model_type"])
    config_class = family.lvlm_class().config_class
    ours = config_class.from_dict(read_base_config(BaseFiles(written(tmp_path, config))))
    theirs = config_class.from_dict({**family.implied_config, **copy.deepcopy(config)})
    for mine, own in (
        (ours, theirs),
        (ours.get_text_config(), theirs.get_text_config()),
        (ours.vision_config, theirs.vision_config),
    ):
        known = set(type(own)().to_dict()) - BOOKKEEPING - PARTS - {"vocab_size"}
        found, expected = mine.to_dict(), own.to_dict()
        assert {key: found.get(key) for key in known} == {key: expected.get(key) for key in known}
    assert ours.get_text_config().vocab_size == theirs.get_text_config().vocab_size


@pytest.mark.parametrize(("name", "config"), BARE)
def test_loads_at_a_tiny_size(name, config, bases, tmp_path):
    """With all its keys, and the sizes of a tiny base whose weights are there."""
    base = Path(shutil.copytree(bases[config["model_type"]], tmp_path / "base"))
    tiny = json.loads((base / "config.json").read_text())
    honest, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    merged = {**config, **tiny}
    for part in ("vision_config", "text_config"):
        if part in config:
            merged[part] = {**config[part], **tiny.get(part, {key: tiny[key] for key in config[part] if key in tiny})}
            merged[part] |= {"rms_norm_eps": 1e-6} if part == "text_config" else {}  # the tiny bases'
    if "layer_types" in merged.get("text_config", {}):
        merged["text_config"] |= {"layer_types": ["full_attention"] * tiny["num_hidden_layers"]}
        merged["text_config"] |= {"model_type": config["text_config"]["model_type"]}
    written(base, merged)
    model, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    tokens = vladva_clip.get_tokenizer(f"local-dir:{base}")(["a red circle"])
    torch.testing.assert_close(model.encode_text(tokens), honest.encode_text(tokens), rtol=0, atol=2e-5)


QWEN_QUESTION = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe it.<|im_end|>\n"
    "<|im_start|>assistant\n"
)
SMOLVLM_QUESTION = (
    "<|im_start|>User:<fake_token_around_image><global-img><image><fake_token_around_image>Describe it."
    "<end_of_utterance>\nAssistant:"
)


@pytest.mark.parametrize(
    ("name", "written_out"),
    [
        ("llava", "USER: <image>\nDescribe it. ASSISTANT:"),
        ("qwen2_vl", QWEN_QUESTION),
        ("qwen2_5_vl", QWEN_QUESTION),
        ("smolvlm", SMOLVLM_QUESTION),
    ],
)
def test_a_question_about_an_image_is_what_the_published_chat_templates_write(name, written_out):
    family = backbone_class(name)
    assert family.chat_template.format(visual=family.visual_span.text, prompt="Describe it.") == written_out
