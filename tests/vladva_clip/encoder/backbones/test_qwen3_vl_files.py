"""Which files of Qwen3-VL are taken, and what is refused before anything is built of it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import vladva_clip
from tests.support import exports
from tests.support.edits import edit_json
from tests.support.models.published_configs import PUBLISHED
from tests.support.refusals import refused
from vladva_clip.encoder.admission.base_config import read_base_config
from vladva_clip.storage.base import BaseFiles


@pytest.fixture
def copy(bases, tmp_path) -> Path:
    return Path(shutil.copytree(bases["qwen3_vl"], tmp_path / "base"))


def change(directory: Path, part: str, **values) -> None:
    path = directory / "config.json"
    edit_json(path, **{part: {**json.loads(path.read_text())[part], **values}})


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("qwen3")])
def test_the_published_settings_reach_transformers(name, tmp_path):
    """Each key of both parts but bookkeeping; tests/vladva_clip/encoder/test_published_configs.py builds them."""
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    admitted = read_base_config(BaseFiles(tmp_path))
    for part in ("text_config", "vision_config"):
        assert set(PUBLISHED[name][part]) - set(admitted[part]) <= {"dtype"}
    assert set(PUBLISHED[name]) - set(admitted) == {"architectures", "transformers_version"}


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        (
            "text_config",
            {"rope_scaling": {"mrope_section": [4, 2, 2], "mrope_interleaved": False}},
            "mrope_interleaved",
        ),
        ("text_config", {"rope_scaling": {"mrope_section": [2, 1, 1]}}, "mrope_section"),  # of 8, hidden size / heads
        ("text_config", {"rope_scaling": None}, "mrope_section"),
        ("text_config", {"head_dim": 24}, "mrope_section"),
        ("text_config", {"model_type": "qwen3"}, "qwen3_vl_text"),
        ("vision_config", {"deepstack_visual_indexes": [2, 0]}, "deepstack_visual_indexes"),
        ("vision_config", {"deepstack_visual_indexes": [1, 1]}, "deepstack_visual_indexes"),
        ("vision_config", {"deepstack_visual_indexes": [4]}, "4 blocks"),
        ("vision_config", {"deepstack_visual_indexes": [0, 1, 2]}, "2 layers"),
        ("vision_config", {"num_position_embeddings": 35}, "square"),
        ("vision_config", {"out_hidden_size": 16}, "out_hidden_size"),
        ("vision_config", {"num_heads": 16}, "multiple of 4"),
        ("vision_config", {"num_heads": 3}, "heads"),
        ("vision_config", {"rope_parameters": {"rope_type": "axial", "rope_theta": 500.0}}, "rope_theta"),
        ("vision_config", {"patch_size": 14}, "patch_size"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(copy, part, values, words):
    change(copy, part, **values)
    for load_weights in (True, False):
        refused(copy, "config.json", words, load_weights=load_weights)


def test_no_text_config_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    text = config.pop("text_config")
    (copy / "config.json").write_text(json.dumps({**text, **config}))
    refused(copy, "text_config", "missing")


def test_maps_may_be_absent(copy):
    """Then it is an LVLM without DeepStack, whose weight files must have no mergers for it either."""
    change(copy, "vision_config", deepstack_visual_indexes=[])
    refused(copy, "deepstack_merger_list")
    model, _ = vladva_clip.create_model(f"local-dir:{copy}", load_weights=False, force_image_size=64)
    with torch.no_grad():
        assert model.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, 32)


def test_another_processor_is_refused(copy):
    edit_json(copy / "preprocessor_config.json", processor_class="Qwen2VLProcessor")
    refused(copy, "preprocessor_config.json", "Qwen3VLProcessor")


def test_what_transformers_saves_again_is_the_same(bases, tmp_path):
    """Its own layout of config.json states what published files leave to it."""
    from transformers import AutoModelForImageTextToText

    again = Path(shutil.copytree(bases["qwen3_vl"], tmp_path / "base"))
    AutoModelForImageTextToText.from_pretrained(bases["qwen3_vl"]).save_pretrained(again)
    assert "rope_parameters" in json.loads((again / "config.json").read_text())["text_config"]
    first, second = (
        vladva_clip.create_model(f"local-dir:{one}", precision="fp32", force_image_size=64)[0]
        for one in (bases["qwen3_vl"], again)
    )
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.encode_image(images), second.encode_image(images))


def test_stock_transformers_reads_an_export(bases, tmp_path):
    """A random adapter, folded in; tests/vladva_clip/export/test_run.py has more."""
    exported = exports.export_adapter(bases["qwen3_vl"], tmp_path)
    plain = exports.PlainTransformers(exported.directory)
    for inputs, ours in zip((exported.images, exports.CAPTIONS), exported.features(), strict=True):
        assert exports.cosine(plain.features(inputs), ours) > 0.99999
