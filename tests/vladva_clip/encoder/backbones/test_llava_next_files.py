"""Which files of LLaVA-NeXT are taken, what is refused before anything is built of it, and exports."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

import vladva_clip
from tests.support import exports
from tests.support.edits import edit_json
from tests.support.models.published_configs import PUBLISHED
from tests.support.models.tiny_llava_next import GRIDS, SIDE
from tests.support.refusals import refused
from vladva_clip.encoder.admission.base_config import read_base_config
from vladva_clip.storage.base import BaseFiles

PIXELS = 2 * SIDE


@pytest.fixture
def copy(bases, tmp_path) -> Path:
    return Path(shutil.copytree(bases["llava_next"], tmp_path / "base"))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(0))


def test_the_published_settings_reach_transformers(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED["llava-next-8b"]))
    admitted, config = read_base_config(BaseFiles(tmp_path)), PUBLISHED["llava-next-8b"]
    assert set(config["text_config"]) - set(admitted["text_config"]) == {
        "_name_or_path",
        "architectures",
        "torch_dtype",
    }
    assert set(config["vision_config"]) - set(admitted["vision_config"]) == {"vocab_size"}
    unread = {"architectures", "ignore_index", "torch_dtype", "transformers_version", "use_image_newline_parameter"}
    assert set(config) - set(admitted) == unread


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("config.json", {"text_config": {"model_type": "mistral"}}, ("mistral", "llama")),
        ("config.json", {"vision_feature_select_strategy": "full"}, ("full", "default")),
        ("config.json", {"vision_feature_layer": -5}, ("vision_feature_layer",)),
        ("config.json", {"image_grid_pinpoints": [[56, 56, 56]]}, ("image_grid_pinpoints", "a height and a width")),
        ("config.json", {"image_grid_pinpoints": [[28, 56]]}, ("image_grid_pinpoints", "[28]")),
        ("preprocessor_config.json", {"image_grid_pinpoints": [[84, 84]]}, ("[[84, 84]]", "[28, 56]")),
        ("preprocessor_config.json", {"crop_size": {"height": 56, "width": 56}}, ("crop_size", "28")),
        ("preprocessor_config.json", {"size": {"shortest_edge": 56}}, ("size", "28")),
        ("preprocessor_config.json", {"resample": 2}, ("resample", "3")),
        ("preprocessor_config.json", {"processor_class": "LlavaProcessor"}, ("LlavaNextProcessor",)),
        ("tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"}, ("tokenizer_class", "LlamaTokenizer")),
        ("tokenizer_config.json", {"eos_token": "<|end_of_text|>"}, ("eos_token", "<|eot_id|>")),
    ],
    ids=str,
)
def test_files_that_do_not_fit_are_refused(copy, file, values, words):
    for key, value in values.items():
        stated = json.loads((copy / file).read_text())[key] if isinstance(value, dict) and file == "config.json" else {}
        edit_json(copy / file, **{key: {**stated, **value} if isinstance(value, dict) else value})
    refused(copy, *words)


def test_sizes(bases):
    """The authors' is the usual one; the published tower's, 336 pixels, is 28 here."""
    for size, expected in ((None, 24), (PIXELS, 24), (SIDE, 4)):
        model, _ = vladva_clip.create_model(f"local-dir:{bases['llava_next']}", image_size=size)
        assert model.visual.image_size == (size or PIXELS,) * 2 and model.visual.num_visual_tokens == expected
    for size in (14, 57, 84):
        with pytest.raises(ValueError, match=f"{size} pixels, expected 28 or 56"):
            vladva_clip.create_model(f"local-dir:{bases['llava_next']}", image_size=size)


@pytest.mark.wide
def test_grids_decide_the_sizes(copy):
    """Three tiles a side, where both files say so."""
    for file in ("config.json", "preprocessor_config.json"):
        edit_json(copy / file, image_grid_pinpoints=[*GRIDS, [84, 84]])
    model, _ = vladva_clip.create_model(f"local-dir:{copy}", precision="fp32")
    assert model.visual.image_size == (84, 84) and model.visual.num_visual_tokens == 4 + 36 + 6
    images = torch.randn(1, 3, 84, 84, generator=torch.Generator().manual_seed(0))
    lvlm = AutoModelForImageTextToText.from_pretrained(copy, dtype=torch.float32)
    tiles = [images[:, :, top : top + 28, left : left + 28] for top in (0, 28, 56) for left in (0, 28, 56)]
    whole = torch.nn.functional.interpolate(images, size=28, mode="bicubic", antialias=True)
    with torch.no_grad():
        seen = lvlm.model.get_image_features(
            torch.stack([whole, *tiles], 1), torch.tensor([[84, 84]]), return_dict=True
        )
        found = model.visual.backbone.visual_tokens(images)
    torch.testing.assert_close(found[0], seen.pooler_output[0], rtol=1e-5, atol=1e-5)


def test_without_grids_they_are_transformers_own(copy):
    """672 pixels are 24 tiles a side for this tower."""
    for file in ("config.json", "preprocessor_config.json"):
        data = json.loads((copy / file).read_text())
        del data["image_grid_pinpoints"]
        (copy / file).write_text(json.dumps(data))
    stated = json.loads((copy / "config.json").read_text())["text_config"]
    edit_json(copy / "config.json", text_config={**stated, "max_position_embeddings": 4096})
    model, _ = vladva_clip.create_model(f"local-dir:{copy}", load_weights=False)
    assert model.visual.image_size == (672, 672) and model.visual.num_visual_tokens == 4 * (1 + 24**2) + 48


@pytest.mark.wide
def test_the_image_tower_is_recorded(bases, images):
    """By torch.export, for any number of images."""
    model, _ = vladva_clip.create_model(f"local-dir:{bases['llava_next']}", precision="fp32")
    sizes = ({0: torch.export.Dim("count", min=1, max=64)},)
    program = torch.export.export(model.visual.eval(), (images,), dynamic_shapes=sizes, strict=False).module()
    with torch.no_grad():
        for given in (images, images[:1], images.repeat(2, 1, 1, 1)):
            torch.testing.assert_close(program(given), model.encode_image(given), rtol=1e-5, atol=1e-5)


@pytest.mark.wide
def test_stock_transformers_reads_an_export(bases, tmp_path):
    """A random adapter, folded in; its files name the exported square alone. See also export/test_run.py."""
    exported = exports.export_adapter(bases["llava_next"], tmp_path)
    for file in ("config.json", "preprocessor_config.json"):
        assert json.loads((exported.directory / file).read_text())["image_grid_pinpoints"] == [[PIXELS, PIXELS]]
    plain = exports.PlainTransformers(exported.directory)
    for inputs, ours in zip((exported.images, exports.CAPTIONS), exported.features(), strict=True):
        assert exports.cosine(plain.features(inputs), ours) > 0.9999
    again, _ = vladva_clip.create_model(f"local-dir:{exported.directory}", precision="fp32")
    pixels = torch.stack([exported.preprocess(image) for image in exported.images])
    with torch.no_grad():
        torch.testing.assert_close(again.encode_image(pixels, True), exported.features()[0], rtol=0, atol=1e-5)


@pytest.mark.wide
def test_older_files_say_nothing_of_counting(copy, tmp_path):
    """Without processor_config.json, as E5-V's repository, an export counts slots all the same."""
    (copy / "processor_config.json").unlink()
    exported = exports.export(f"local-dir:{copy}", tmp_path / "out")
    plain = exports.PlainTransformers(exported.directory)
    assert exports.cosine(plain.features(exported.images), exported.features()[0]) > 0.9999


def test_an_export_without_tiles_is_refused(copy, tmp_path):
    model, _ = vladva_clip.create_model(f"local-dir:{copy}", image_size=SIDE)
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="28 pixels.*without tiles.*Export the model at its larger"):
        vladva_clip.export_model(tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_as_large_as_llama_3s_is_read(copy):
    """`tokenizers` writes Llama 3's with each merge on lines of its own, in 17.2 MB."""
    path = copy / "tokenizer.json"
    path.write_text(path.read_text() + " " * 17_300_000)
    assert vladva_clip.get_tokenizer(f"local-dir:{copy}")(["a red circle."]).shape == (1, 256)
