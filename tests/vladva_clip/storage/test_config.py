"""A base's config.json and image processor that no model can have: ValueError with file, found and expected."""

import json
import re
import shutil
from pathlib import Path

import pytest

import vladva_clip
from tests.support import adapters, exports
from tests.support.models import layouts
from tests.support.refusals import refused
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.storage.config import ImageConfig, PromptConfig

MEAN = (0.5, 0.5, 0.5)


def edit(path: Path, where: str, value) -> None:
    """Set the key at a dotted place of a JSON file; None as the value of `DELETE` takes it out."""
    data = json.loads(path.read_text())
    *parents, key = where.split(".")
    part = data
    for name in parents:
        part = part[name]
    if value is DELETE:
        del part[key]
    else:
        part[key] = value
    path.write_text(json.dumps(data))


DELETE = object()


class TestBaseConfig:
    @pytest.mark.parametrize("value", [DELETE, None, [], "x", 3])
    def test_no_vision_config(self, bare, value):
        edit(bare / "config.json", "vision_config", value)
        refused(bare, bare / "config.json", "vision_config", "object")

    @pytest.mark.parametrize("value", [["llava"], {}, 3, None])
    def test_model_type_of_another_kind(self, bare, value):
        edit(bare / "config.json", "model_type", value)
        refused(bare, bare / "config.json", repr(value), "llava", "qwen2_vl")

    @pytest.mark.parametrize("value", [[1], "x", 3, True])
    def test_text_config_that_is_no_object(self, bare, value):
        edit(bare / "config.json", "text_config", value)
        refused(bare, bare / "config.json", "text_config", repr(value), "object")

    @pytest.mark.parametrize("value", ["336", 0, -1, None, [56], True, 1.5])
    @pytest.mark.parametrize("where", ["vision_config.patch_size", "vision_config.hidden_size"])
    def test_sizes(self, bare, where, value):
        edit(bare / "config.json", where, value)
        refused(bare, bare / "config.json", where, repr(value), "positive whole number")

    @pytest.mark.parametrize("value", ["336", 0, None, DELETE])
    def test_image_size(self, llava_copy, value):
        edit(llava_copy / "config.json", "vision_config.image_size", value)
        refused(llava_copy, "config.json", "vision_config.image_size", "positive whole number")

    @pytest.mark.parametrize("value", ["32", None, 0])
    @pytest.mark.parametrize("where", ["hidden_size", "num_hidden_layers", "num_attention_heads"])
    def test_sizes_of_the_language_model(self, bare, where, value):
        if "text_config" in json.loads((bare / "config.json").read_text()):
            where = f"text_config.{where}"
        edit(bare / "config.json", where, value)
        refused(bare, bare / "config.json", where, repr(value), "positive whole number")

    @pytest.mark.parametrize(
        ("where", "value"),
        [
            ("vision_feature_layer", "last"),
            ("vision_feature_layer", {}),
            ("projector_hidden_act", "sigmund"),
            ("projector_hidden_act", 5),
            ("text_config.hidden_act", "sigmund"),
            ("text_config.num_key_value_heads", "two"),
            ("vision_config.model_type", "no_such_tower"),
        ],
    )
    def test_what_transformers_can_not_build(self, llava_copy, where, value):
        edit(llava_copy / "config.json", where, value)
        refused(llava_copy, llava_copy / "config.json", where, repr(value), "expected")

    def test_the_base_of_an_adapter(self, bare, tmp_path):
        adapters.write_adapter(bare, tmp_path / "adapter")
        edit(bare / "config.json", "vision_config.patch_size", 0)
        refused(tmp_path / "adapter", bare / "config.json", "patch_size is 0")


class TestImageProcessor:
    @pytest.mark.parametrize("value", [0, "bicubic", None, [3], {}])
    def test_resampling(self, bare, value):
        edit(bare / "preprocessor_config.json", "resample", value)
        refused(bare, bare / "preprocessor_config.json", f"resample is {value!r}", "bilinear", "bicubic")

    @pytest.mark.parametrize("key", ["image_mean", "image_std"])
    @pytest.mark.parametrize(
        "value", [DELETE, None, 0.5, "abc", [], [0.5], [0.5] * 4, ["a", "b", "c"], [0.5, None, 0.5], [True] * 3]
    )
    def test_mean_and_std(self, bare, key, value):
        edit(bare / "preprocessor_config.json", key, value)
        refused(bare, bare / "preprocessor_config.json", key.replace("_", " "), "three")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, bare, value):
        edit(bare / "preprocessor_config.json", "image_mean", [0.5, value, 0.5])
        refused(bare, bare / "preprocessor_config.json", {"nan": "NaN", "inf": "Infinity"}[str(value)], "JSON value")

    @pytest.mark.parametrize("value", [[0, 0, 0], [0.5, 0.5, 0.0], [0.5, -0.5, 0.5]])
    def test_std_that_divides_by_nothing(self, bare, value):
        edit(bare / "preprocessor_config.json", "image_std", value)
        refused(bare, bare / "preprocessor_config.json", tuple(value), "above 0")

    def test_no_file(self, bare):
        for name in ("preprocessor_config.json", "processor_config.json"):
            (bare / name).unlink(missing_ok=True)
        refused(bare, bare, "preprocessor_config.json", "processor_config.json", "mean and std")

    def test_the_other_file(self, bare):
        settings = json.loads((bare / "preprocessor_config.json").read_text())
        (bare / "preprocessor_config.json").unlink()
        (bare / "processor_config.json").write_text(json.dumps({"image_processor": {**settings, "image_mean": MEAN}}))
        model, _ = vladva_clip.create_model(f"local-dir:{bare}")
        assert model.config.image.mean == MEAN
        (bare / "processor_config.json").write_text(json.dumps({"image_processor": 5}))
        refused(bare, bare / "processor_config.json", "5", "object")

    @pytest.mark.parametrize(("resample", "name"), [(1, "lanczos"), (2, "bilinear")])
    def test_other_resampling_is_kept(self, bare, base, resample, name):
        edit(bare / "preprocessor_config.json", "resample", resample)
        if base.name == "llava_next":  # its backbone scales images as well
            refused(bare, bare / "preprocessor_config.json", f"resample is {resample}", "3")
            return
        model, preprocess = vladva_clip.create_model(f"local-dir:{bare}")
        assert model.config.image.interpolation == model.visual.preprocess_cfg["interpolation"] == name
        assert preprocess.transforms[1].interpolation.value == name


class TestImageConfig:
    @pytest.mark.parametrize("size", [0, -1, "56", None, True, 56.0])
    def test_size(self, size):
        with pytest.raises(ValueError, match="image size.*positive"):
            ImageConfig(size, MEAN, MEAN)

    @pytest.mark.parametrize("std", [(0.5, 0.5), (0.0, 0.5, 0.5), (float("inf"),) * 3, None])
    def test_std(self, std):
        with pytest.raises(ValueError, match="image std.*above 0"):
            ImageConfig(56, MEAN, std)
        assert ImageConfig(56, (0, -1.0, 2), (1, 2.5, 3)).std == (1, 2.5, 3)


class TestCheckpointsImageSize:
    """What the tower can't take is refused at loading, by the file that states it; also without weights."""

    TAKES = {
        **dict.fromkeys(("llava", "llava_onevision", "internvl"), (57, "takes 56 only")),
        "llava_next": (57, "28 or 56"),
        **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), (57, "multiple of")),
        "idefics3": (70, "multiple of"),
    }

    def refused_both_ways(self, directory: Path, *words: str) -> None:
        for load_weights in (True, False):
            refused(directory, *words, load_weights=load_weights)

    def test_of_an_adapter(self, base, tmp_path):
        size, takes = self.TAKES[base.name]
        adapters.write_adapter(base, tmp_path / "adapter")
        edit(tmp_path / "adapter" / "vladva_config.json", "image.size", size)
        self.refused_both_ways(tmp_path / "adapter", "adapter/vladva_config.json", f"{size} pixels", takes)

    def test_of_an_export(self, base, tmp_path):
        if base.name == "llava_onevision":  # it has no export
            refused(base, "cuts tiles", call=lambda: exports.export(f"local-dir:{base}", tmp_path / "export"))
            return
        size, takes = self.TAKES[base.name]
        exports.export(f"local-dir:{base}", tmp_path / "export")
        edit(tmp_path / "export" / "vladva_export.json", "image.size", size)
        self.refused_both_ways(tmp_path / "export", "export/vladva_export.json", f"{size} pixels", takes)

    def test_of_a_base_that_states_its_own(self, base, tmp_path):
        size, takes = self.TAKES[base.name]
        states(base, tmp_path / "base", "image.size", size)
        self.refused_both_ways(tmp_path / "base", "base/vladva_base.json", f"{size} pixels", takes)

    def test_one_whose_visual_tokens_fill_the_context(self, bases, tmp_path):
        """16380 pixels would be 342225 visual tokens; 1260 are 2025 of 2048, and load."""
        adapters.write_adapter(bases["qwen2_vl"], tmp_path / "adapter")
        for size in (16380, 1288):
            edit(tmp_path / "adapter" / "vladva_config.json", "image.size", size)
            self.refused_both_ways(tmp_path / "adapter", f"{size} pixels", f"{(size // 28) ** 2} visual tokens", "2048")
        edit(tmp_path / "adapter" / "vladva_config.json", "image.size", 1260)
        assert vladva_clip.create_model(f"local-dir:{tmp_path}/adapter")[0].visual.image_size == (1260, 1260)

    def test_one_asked_for_of_a_bare_base(self, bases):
        with pytest.raises(ValueError, match="342225 visual tokens.*2048"):
            vladva_clip.create_model(f"local-dir:{bases['qwen2_vl']}", force_image_size=16380)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("no hole word:", "0 holes {visual}"),
        ("{visual} and {visual} word:", "2 holes {visual}"),
        ("{visual} and {caption} word:", "the hole {caption}"),
        ("{visual} {} word:", "the hole {}"),
        ("{0} {visual} word:", "the hole {0}"),
        (None, "None (NoneType)"),
        (b"{visual}", "bytes"),
    ],
)
def test_a_template_has_its_own_hole_alone(template, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        PromptConfig(template, "{caption} word:")
    assert "image_template" in str(caught.value) and repr(template) in str(caught.value)
    assert PromptConfig('{visual} as {"x": 1} word:', "{caption} word:").image_template  # braces that are no hole


def test_a_base_that_states_another_family_is_refused(base, tmp_path):
    for family in {"bert", "llava", "qwen2_vl"} - {base.name}:
        states(base, tmp_path / family, "base.family", family)
        refused(tmp_path / family, f"{family}/vladva_base.json", repr(family), repr(base.name))


def states(base: Path, copy: Path, key: str, value: object) -> None:
    """Copy a base, and let it state its own config, with one value changed."""
    layouts.state(shutil.copytree(base, copy), backbone_class(base.name).prompt_config())
    edit(copy / "vladva_base.json", key, value)
