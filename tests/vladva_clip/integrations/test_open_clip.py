"""open_clip's own functions, which know our names because `import torch` called our entry point."""

import dataclasses
import inspect
import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_for_hf

import vladva_clip
from tests.support import adapters, fresh, hooked, hub_cache, samples
from vladva_clip.integrations import open_clip as hook
from vladva_clip.sources import registry

PATCHED = [
    *("create_model", "create_model_and_transforms", "create_model_from_pretrained"),
    *("get_tokenizer", "get_model_config"),
]
TAG = registry.find("vladva-tiny").default_tag


@pytest.fixture(scope="module")
def ours(written_adapter):
    return vladva_clip.create_model(f"local-dir:{written_adapter}", precision="fp32")


@pytest.fixture
def names():
    with hooked.scratch_names() as patch:
        yield patch


@pytest.mark.wide
class TestFreshInterpreter:
    def test_with_only_open_clip_imported(self, bases, tmp_path):
        """What a new user's first lines call; and nothing of ours that costs time is loaded before it is used.

        With two names in the environment, one of a relative path.
        """
        adapters.write_adapter(bases["llava"], tmp_path / "adapter")
        code = f"""
import open_clip, sys
assert not {{"vladva_clip.factory", "vladva_clip.model", "peft"}} & set(sys.modules)
assert {{"vladva", "vladva-7b", "vladva-13b", "vladva-2b", "vladva-tiny"}} < set(open_clip.list_models())
assert ("vladva-tiny", {TAG!r}) in open_clip.list_pretrained() and len(open_clip.list_pretrained()) > 100
assert "vladva-2b:training_free" in open_clip.list_pretrained(as_str=True)
assert "vladva_clip.factory" not in sys.modules
model, train, preprocess = open_clip.create_model_and_transforms("vladva-tiny")
tokenizer = open_clip.get_tokenizer("vladva-tiny")
alone = open_clip.create_model("vladva-tiny")
pretrained, _ = open_clip.create_model_from_pretrained("vladva-tiny", {TAG!r})
assert type(model).__name__ == type(alone).__name__ == type(pretrained).__name__ == "VladvaCLIP"
assert open_clip.get_model_config("vladva-tiny")["embed_dim"] == model.embed_dim
assert "vladva_clip" in sys.modules and "vladva_clip" not in globals()
features = model.encode_text(tokenizer(["a red circle"]), normalize=True)
assert features.shape == (1, model.embed_dim)
assert {{("my-run", "registered"), ("published", "registered")}} < set(open_clip.list_pretrained())
assert type(open_clip.get_tokenizer("my-run")).__name__ == "VladvaTokenizer"
assert open_clip.create_model("my-run").embed_dim == open_clip.get_model_config("my-run")["embed_dim"]
"""
        fresh.check(code, tmp_path, VLADVA_CLIP_MODELS=" my-run=adapter ,published=hf-hub:org/repo@main,")


class TestNames:
    def test_signatures_are_still_open_clips(self):
        for name in PATCHED:
            function = getattr(open_clip, name)
            assert function is getattr(open_clip.factory, name)
            assert inspect.signature(function) == inspect.signature(function.__wrapped__)
            assert (function.__name__, function.__module__) == (name, "open_clip.factory")

    def test_create_model_returns_the_model_alone(self):
        model = open_clip.create_model("vladva-tiny")
        assert isinstance(model, vladva_clip.VladvaCLIP)
        assert adapters.same(model, vladva_clip.create_model("vladva-tiny")[0])

    def test_transforms_are_ours(self):
        """Not those that open_clip builds from preprocess_cfg: they crop an odd picture one pixel beside."""
        _, train, val = open_clip.create_model_and_transforms("vladva-tiny", TAG)
        _, pretrained = open_clip.create_model_from_pretrained("vladva-tiny", pretrained=TAG)
        _, expected = vladva_clip.create_model("vladva-tiny")
        for size in ((97, 64), (64, 101), (64, 64)):
            picture = samples.noise_picture(0, size)
            assert torch.equal(val(picture), expected(picture)) and torch.equal(pretrained(picture), expected(picture))
        assert train(samples.noise_picture(0)).shape == (3, 64, 64)

    def test_return_transform(self):
        model = open_clip.create_model_from_pretrained("vladva-tiny", return_transform=False)
        assert isinstance(model, vladva_clip.VladvaCLIP)

    def test_the_order_of_arguments_is_open_clips(self):
        """Third comes load_weights, fourth the precision, where ours has the precision third."""
        torch.manual_seed(0)
        random = open_clip.create_model("vladva-tiny", None, False, "bf16")
        assert random.visual.backbone.dtype == torch.bfloat16
        loaded = open_clip.create_model("vladva-tiny", None, True, "bf16")
        assert not torch.equal(*(next(m.visual.backbone.lvlm.parameters()) for m in (random, loaded)))

    def test_default_values_given_in_so_many_words(self):
        theirs = inspect.signature(open_clip.create_model_and_transforms).parameters
        given = {p.name: p.default for p in theirs.values() if p.default is not p.empty}
        model, _, _ = open_clip.create_model_and_transforms("vladva-tiny", **given)
        assert model.visual.backbone.dtype == torch.float32  # open_clip's default, given

    def test_an_argument_that_only_a_later_open_clip_has(self):
        def later(model_name, force_naflex_vision=False, precision="fp32", **model_kwargs):
            raise AssertionError("not for a name of ours")

        wrapped = hook._wrap(later, lambda **given: given)
        assert wrapped("vladva-tiny", False, output_dict=True) == {"model_name": "vladva-tiny", "output_dict": True}
        assert wrapped("vladva-tiny", True)["force_naflex_vision"] is True  # and our function refuses it
        with pytest.raises(TypeError, match="force_naflex_vision"):
            open_clip.create_model("vladva-tiny", force_naflex_vision=True)

    def test_precision_left_out_is_the_checkpoints(self, adapter):
        model = open_clip.create_model(f"local-dir:{adapter}")
        assert str(model.visual.backbone.dtype) == f"torch.{model.config.dtype}"

    @pytest.mark.parametrize("spelling", [TAG.upper(), TAG.replace("_", "-")])
    def test_tags_in_open_clips_spellings(self, spelling):
        assert open_clip.is_pretrained_cfg("vladva-tiny", spelling)
        assert isinstance(open_clip.create_model("vladva-tiny", spelling), vladva_clip.VladvaCLIP)

    def test_a_slash_reads_as_a_dash(self):
        assert isinstance(open_clip.create_model("vladva/tiny"), vladva_clip.VladvaCLIP)

    @pytest.mark.parametrize("name", PATCHED[:3])
    def test_a_wrong_tag_lists_the_valid_ones(self, name):
        with pytest.raises(RuntimeError, match=f"unknown tag 'laion400m_e32' of vladva-tiny; valid tags: .*{TAG}"):
            getattr(open_clip, name)("vladva-tiny", pretrained="laion400m_e32")

    def test_lookups(self):
        assert open_clip.list_pretrained_tags_by_model("vladva-7b") == ["training_free"]
        assert "vladva-2b" in open_clip.list_pretrained_models_by_tag("training_free")
        assert open_clip.is_pretrained_cfg("vladva", "training_free")
        assert open_clip.get_pretrained_cfg("vladva", "training_free")["vladva_clip"]["name"] == "vladva"
        assert open_clip.get_pretrained_url("vladva", "training_free") == ""
        config = open_clip.get_model_config("vladva-7b")
        assert config == vladva_clip.get_model_config("vladva-7b") and json.loads(json.dumps(config)) == config

    def test_the_default_tag_is_the_last_listed(self):
        """As all_clip takes it."""
        listed = dict(open_clip.list_pretrained())
        for name in vladva_clip.list_models():
            assert listed[name] == registry.find(name).default_tag

    def test_names_survive_a_new_config_of_open_clips(self, names, tmp_path):
        names.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
        config = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}
        (tmp_path / "another-model.json").write_text(json.dumps(config))
        open_clip.add_model_config(tmp_path)
        assert {"another-model", "vladva-tiny"} < set(open_clip.list_models())


class TestMarkedSources:
    def test_local_dir(self, adapter, ours):
        name = f"local-dir:{adapter}"
        model, _, preprocess = open_clip.create_model_and_transforms(name, precision="fp32")
        assert adapters.same(model, ours[0]) and repr(preprocess) == repr(ours[1])
        tokenizer = open_clip.get_tokenizer(name)
        assert isinstance(tokenizer, vladva_clip.VladvaTokenizer)
        assert open_clip.get_model_config(name)["embed_dim"] == model.embed_dim
        with pytest.raises(ValueError, match="context_length is 1"):
            open_clip.get_tokenizer(name, context_length=1)

    @pytest.mark.parametrize("name", ["hf-hub:org/adapter", f"hf-hub:org/adapter@{'a' * 40}"])
    def test_hf_hub(self, adapter, base, ours, tmp_path, name):
        hub_cache.put_adapter(tmp_path, "org/adapter", adapter, base)
        model, preprocess = open_clip.create_model_from_pretrained(name, precision="fp32", cache_dir=str(tmp_path))
        assert adapters.same(model, ours[0]) and repr(preprocess) == repr(ours[1])
        assert isinstance(open_clip.get_tokenizer(name, cache_dir=str(tmp_path)), vladva_clip.VladvaTokenizer)

    def test_an_open_clip_without_us_refuses_it(self, adapter):
        """Its create_model would else build a CLIP of default sizes, with random weights and a line in the log."""
        with pytest.raises(TypeError, match="vladva_clip"):
            open_clip.create_model.__wrapped__(f"local-dir:{adapter}")

    def test_the_marker_decides(self, adapter, tmp_path):
        unmarked = tmp_path / "unmarked"
        shutil.copytree(adapter, unmarked)
        assert hook.is_ours(f"local-dir:{unmarked}")
        config = json.loads((unmarked / "open_clip_config.json").read_text())
        del config["vladva_clip"]
        (unmarked / "open_clip_config.json").write_text(json.dumps(config))
        assert not hook.is_ours(f"local-dir:{unmarked}")
        for content in ("[]", "{", "\xff"):
            (unmarked / "open_clip_config.json").write_bytes(content.encode("latin-1"))
            assert not hook.is_ours(f"local-dir:{unmarked}")
        (unmarked / "open_clip_config.json").unlink()
        assert not hook.is_ours(f"local-dir:{unmarked}")


TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A tiny CLIP of open_clip's own, and the directory that its own function saved it to."""
    directory = tmp_path_factory.mktemp("stock") / "clip"
    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY_CLIP).eval()
    cfg = open_clip.transform.PreprocessCfg(size=32, interpolation="bilinear")
    open_clip.set_model_preprocess_cfg(model, dataclasses.asdict(cfg))
    save_for_hf(model, NoTokenizer(), TINY_CLIP, str(directory), safe_serialization=True)
    return model, directory


class NoTokenizer:
    def save_pretrained(self, directory) -> None:
        """CLIP's own tokenizer has no files."""


def raised(function, *args, **kwargs) -> str:
    with pytest.raises(Exception) as caught:
        function(*args, **kwargs)
    return f"{type(caught.value).__name__}: {caught.value}"


class TestAllOthersAsBefore:
    def test_a_clip_from_a_directory(self, stock):
        model, directory = stock
        loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{directory}")
        assert type(loaded) is open_clip.CLIP and loaded.training
        assert all(torch.equal(*pair) for pair in zip(loaded.parameters(), model.parameters(), strict=True))
        expected = open_clip.create_model_and_transforms.__wrapped__(f"local-dir:{directory}")[2]
        assert repr(preprocess) == repr(expected) and "bilinear" in repr(preprocess)
        assert type(open_clip.get_tokenizer(f"local-dir:{directory}")) is open_clip.SimpleTokenizer
        assert open_clip.get_model_config(f"local-dir:{directory}") == TINY_CLIP

    def test_a_clip_from_the_hub(self, stock, tmp_path):
        model, directory = stock
        hub_cache.put(tmp_path, "org/clip", directory)
        loaded, _ = open_clip.create_model_from_pretrained("hf-hub:org/clip", cache_dir=str(tmp_path))
        assert type(loaded) is open_clip.CLIP
        assert all(torch.equal(*pair) for pair in zip(loaded.parameters(), model.parameters(), strict=True))

    def test_the_marker_is_looked_for_once(self, stock, monkeypatch):
        looked, find_file = [], hook.find_file
        monkeypatch.setattr(hook, "find_file", lambda *args: looked.append(args) or find_file(*args))
        open_clip.create_model_and_transforms(f"local-dir:{stock[1]}")
        assert len(looked) == 1

    def test_built_in_names(self):
        assert open_clip.get_model_config("ViT-B-32") == open_clip.get_model_config.__wrapped__("ViT-B-32")
        assert type(open_clip.get_tokenizer("ViT-B-32")) is open_clip.SimpleTokenizer
        assert type(open_clip.get_tokenizer()) is open_clip.SimpleTokenizer

    @pytest.mark.parametrize(
        ("name", "args", "kwargs"),
        [
            ("create_model", ("no-such-model",), {}),
            ("create_model", ("local-dir:/no/such/directory",), {}),
            ("create_model", ("local-dir:~no-such-user/directory",), {}),
            ("create_model_and_transforms", ("no-such-model",), {"image_mean": np.zeros(3)}),
            ("create_model_and_transforms", ("hf-hub:no/such-repo",), {}),
            ("create_model_and_transforms", ("ViT-B-32", "no_such_tag"), {}),
            ("create_model_from_pretrained", ("local-dir:",), {}),
            ("create_model", (), {}),
            ("create_model", (None,), {}),
            ("create_model", ("ViT-B-32",), {"model_name": "ViT-B-32"}),
            ("get_tokenizer", ("local-dir:/no/such/directory",), {}),
            ("get_model_config", ("local-dir:/no/such/directory",), {}),
            ("get_model_config", (), {}),
        ],
    )
    def test_errors(self, name, args, kwargs):
        function = getattr(open_clip, name)
        assert raised(function, *args, **kwargs) == raised(function.__wrapped__, *args, **kwargs)
