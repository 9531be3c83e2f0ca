"""open_clip's factory functions: signatures, lookups, schemas, and arguments that contradict a checkpoint."""

import inspect
import json
from pathlib import Path

import open_clip
import pytest
import torch
from torchvision.transforms import Compose

import vladva_clip
from tests.support import adapters, samples
from tests.support.adapters import load as create
from vladva_clip import factory
from vladva_clip.sources import registry


def there(name: str) -> bool:
    """Whether a model's config can be read without the Hub and without a base that is still to be made."""
    packaged = registry.packaged_base(name)
    return packaged is None or packaged.is_dir()


class TestSignatures:
    @pytest.mark.parametrize("name", ["create_model_and_transforms", "create_model_from_pretrained"])
    def test_the_same_but_for_the_precision(self, name):
        """Names, order, kinds and defaults of the installed open_clip; precision=None is the config's own dtype."""
        ours = inspect.signature(getattr(vladva_clip, name)).parameters
        theirs = inspect.signature(getattr(open_clip, name)).parameters
        assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]
        differing = {p.name for p in ours.values() if p.default != theirs[p.name].default}
        assert differing == {"precision"} and ours["precision"].default is None

    def test_get_tokenizer(self):
        ours = inspect.signature(vladva_clip.get_tokenizer).parameters
        theirs = inspect.signature(open_clip.get_tokenizer).parameters
        assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]
        assert {p.name for p in ours.values() if p.default != theirs[p.name].default} == {"model_name"}
        assert ours["model_name"].default == "vladva-tiny"

    def test_create_model_returns_a_pair_and_so_starts_otherwise(self):
        ours = inspect.signature(vladva_clip.create_model).parameters
        assert list(ours)[:4] == ["model_name", "pretrained", "precision", "device"]
        assert (ours["pretrained"].default, ours["precision"].default, ours["device"].default) == (None, None, "cpu")

    def test_create_model_takes_every_keyword_of_open_clips(self, base):
        theirs = inspect.signature(open_clip.create_model).parameters
        neutral = {p.name: p.default for p in theirs.values() if p.default is not p.empty and p.name != "precision"}
        assert {"load_weights", "force_preprocess_cfg", "require_pretrained", "weights_only"} <= set(neutral)
        model, _ = vladva_clip.create_model(f"local-dir:{base}", **neutral)
        assert isinstance(model, vladva_clip.VladvaCLIP)

    @pytest.mark.parametrize("name", ["list_models", "list_pretrained", "get_model_config"])
    def test_lookups(self, name):
        ours, theirs = (inspect.signature(getattr(package, name)) for package in (vladva_clip, open_clip))
        assert [(p.name, p.default) for p in ours.parameters.values()] == [
            (p.name, p.default) for p in theirs.parameters.values()
        ]

    def test_tokenize(self):
        ours = inspect.signature(vladva_clip.tokenize).parameters
        assert list(ours)[:2] == list(inspect.signature(open_clip.tokenize).parameters)[:2]
        assert (ours["context_length"].default, ours["model"].default) == (None, "vladva-tiny")

    @pytest.mark.parametrize("name", ["build_zero_shot_classifier", "build_zero_shot_classifier_legacy"])
    def test_classifier_builders(self, name):
        """Their names in their order; the device is the model's own unless it is given, and what is ours has a name."""
        theirs = inspect.signature(getattr(open_clip, name)).parameters
        ours = inspect.signature(getattr(vladva_clip, name)).parameters
        assert list(ours)[: len(theirs)] == list(theirs)
        changed = {p for p in theirs if theirs[p].default != ours[p].default}
        assert changed == {"device"} and ours["device"].default is None
        assert {ours[p].kind for p in list(ours)[len(theirs) :]} <= {inspect.Parameter.KEYWORD_ONLY}

    def test_every_exported_name_is_there(self):
        for name in vladva_clip.__all__:
            assert getattr(vladva_clip, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
            vladva_clip.create_modle  # noqa: B018


class TestReturns:
    def test_create_model(self, base):
        model, preprocess = vladva_clip.create_model(f"local-dir:{base}")
        assert isinstance(model, vladva_clip.VladvaCLIP) and type(preprocess) is Compose

    def test_create_model_and_transforms(self, base, preprocess):
        model, train, val = vladva_clip.create_model_and_transforms(f"local-dir:{base}", precision="fp32")
        picture = samples.noise_picture(0)
        assert torch.equal(val(picture), preprocess(picture))
        draws = [train(picture) for _ in range(8)]  # one of them alone may happen to take the whole picture
        assert not all(torch.equal(draw, val(picture)) for draw in draws) and draws[0].shape == val(picture).shape
        assert not model.training

    def test_augmentation_is_open_clips(self, base):
        cfg = {"scale": (1.0, 1.0)}
        _, train, _ = vladva_clip.create_model_and_transforms(f"local-dir:{base}", precision="fp32", aug_cfg=cfg)
        picture = samples.noise_picture(0, (100, 100))
        assert torch.equal(train(picture), train(picture))  # nothing is left to chance

    def test_create_model_from_pretrained(self, base, preprocess, model):
        name, picture = f"local-dir:{base}", samples.noise_picture(0)
        pair = vladva_clip.create_model_from_pretrained(name, precision="fp32")
        alone = vladva_clip.create_model_from_pretrained(name, precision="fp32", return_transform=False)
        assert isinstance(pair, tuple) and torch.equal(pair[1](picture), preprocess(picture))
        assert isinstance(alone, vladva_clip.VladvaCLIP)
        assert torch.equal(adapters.features(alone)[0], adapters.features(model)[0])

    def test_the_devices_spellings(self, base):
        for device in ("cpu", torch.device("cpu")):
            assert create(base, device=device).visual.backbone.device == torch.device("cpu")

    def test_jit_is_accepted(self, base, model):
        jitted = create(base, jit=True)
        assert isinstance(jitted, vladva_clip.VladvaCLIP)
        assert torch.equal(adapters.features(jitted)[1], adapters.features(model)[1])

    def test_without_weights(self, base, model):
        torch.manual_seed(0)
        random = create(base, load_weights=False)
        found, expected = random.state_dict(), model.state_dict()
        assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in expected.items()}
        assert not torch.equal(adapters.features(random)[0], adapters.features(model)[0])
        assert all(features.isfinite().all() for features in adapters.features(random))

    def test_without_weights_no_weight_file_is_read(self, base, tmp_path):
        for path in Path(base).iterdir():
            if path.suffix != ".safetensors":
                (tmp_path / path.name).write_bytes(path.read_bytes())
        assert isinstance(create(tmp_path, load_weights=False), vladva_clip.VladvaCLIP)
        with pytest.raises(ValueError, match="model.safetensors"):
            create(tmp_path)


class TestPrecision:
    @pytest.mark.parametrize(
        ("precision", "dtype"),
        [
            (None, torch.bfloat16),  # the families' own, which the config states
            *[(name, torch.float32) for name in ("fp32", "amp", "amp_bf16", "amp_bfloat16", "pure_fp32")],
            *[(name, torch.bfloat16) for name in ("bf16", "pure_bf16")],
            *[(name, torch.float16) for name in ("fp16", "pure_fp16")],
        ],
    )
    @pytest.mark.filterwarnings("ignore:.*overflows in float16")
    def test_names(self, base, precision, dtype):
        model, _ = vladva_clip.create_model(f"local-dir:{base}", precision=precision)
        assert model.visual.backbone.dtype == dtype and model.visual.soft_prompt.weight.dtype == torch.float32
        assert model.logit_scale.dtype == torch.float32

    def test_a_poor_choice_warns(self, bases, recwarn):
        create(bases["llava"], precision="fp16")
        assert not [w for w in recwarn if "overflows" in str(w.message)]
        with pytest.warns(UserWarning, match="overflows in float16.*bf16 or fp32"):
            create(bases["qwen2_vl"], precision="fp16")

    def test_unknown(self, base):
        with pytest.raises(ValueError, match="precision is 'fp64'.*fp32"):
            create(base, precision="fp64")

    def test_an_adapter_states_its_own(self, adapter, tmp_path):
        config = json.loads((adapter / "vladva_config.json").read_text())
        for path in adapter.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "vladva_config.json").write_text(json.dumps({**config, "dtype": "float32"}))
        assert vladva_clip.create_model(f"local-dir:{tmp_path}")[0].visual.backbone.dtype == torch.float32


class TestLookups:
    def test_list_models(self):
        names = vladva_clip.list_models()
        assert names == sorted(names) and {"vladva", "vladva-7b", "vladva-13b", "vladva-2b", "vladva-tiny"} <= set(
            names
        )
        for name in names:  # what clip_benchmark, all_clip and clip-interrogator can carry
            assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789_.-")
            assert not any(word in name for word in ("coca", "siglip", "nllb-clip", "genlip", "genlap", "openai"))
        names.clear()
        assert vladva_clip.list_models()

    def test_list_pretrained(self):
        pairs = vladva_clip.list_pretrained()
        assert {name for name, _ in pairs} == set(vladva_clip.list_models())
        assert ("vladva", "training_free") in pairs and ("vladva-tiny", "scenes") in pairs
        assert vladva_clip.list_pretrained(as_str=True) == [f"{name}:{tag}" for name, tag in pairs]
        for name, tag in pairs:
            assert tag == tag.lower() and not set(tag) & set("/,: -")
            assert dict(pairs)[name] == registry.find(name).default_tag  # clients take the last one listed

    @pytest.mark.parametrize("name", [name for name in vladva_clip.list_models() if there(name)])
    def test_get_model_config(self, name):
        config = vladva_clip.get_model_config(name)
        assert json.loads(json.dumps(config)) == config
        assert {"embed_dim", "vision_cfg", "text_cfg"} <= set(config)
        profile = registry.find(name).profile
        assert config["text_cfg"]["context_length"] == (profile.config["context_length"] if profile else 256)
        config["text_cfg"].clear()
        config["embed_dim"] = 0
        assert vladva_clip.get_model_config(name)["embed_dim"] > 0
        assert vladva_clip.get_model_config(name)["text_cfg"]

    def test_get_model_config_numbers(self):
        seven, two = vladva_clip.get_model_config("vladva"), vladva_clip.get_model_config("vladva-2b")
        assert seven == vladva_clip.get_model_config("vladva-7b")
        assert (seven["embed_dim"], seven["vision_cfg"]["image_size"]) == (4096, 336)
        assert (two["embed_dim"], two["vision_cfg"]["image_size"]) == (1536, 448)
        assert vladva_clip.get_model_config("vladva-8b") is None  # as open_clip answers

    def test_the_config_beside_an_adapter_says_the_same(self, adapter, model):
        stored = json.loads((adapter / "open_clip_config.json").read_text())["model_cfg"]
        assert stored["embed_dim"] == model.embed_dim
        assert stored["vision_cfg"]["image_size"] == model.visual.image_size[0]
        assert stored["text_cfg"]["context_length"] == model.context_length

    @pytest.mark.parametrize("error", [ValueError, RuntimeError])
    def test_unknown_model(self, error):
        for function in (
            vladva_clip.create_model,
            vladva_clip.create_model_and_transforms,
            vladva_clip.create_model_from_pretrained,
            vladva_clip.get_tokenizer,
        ):
            with pytest.raises(error, match="'vladva-7B'.*did you mean .*vladva-7b") as caught:
                function("vladva-7B")
            assert "local-dir:PATH" in str(caught.value) and "hf-hub:" in str(caught.value)

    def test_nothing_near(self):
        with pytest.raises(ValueError, match="known: .*vladva-13b.*vladva-tiny"):
            vladva_clip.create_model("ViT-B-32")
        for name in ("", None):
            with pytest.raises(ValueError, match="unknown model"):
                vladva_clip.create_model(name)

    @pytest.mark.parametrize("error", [ValueError, RuntimeError])
    def test_unknown_tag(self, error):
        with pytest.raises(error, match="'laion400m_e32' of vladva-7b.*training_free"):
            vladva_clip.create_model("vladva-7b", "laion400m_e32")
        with pytest.raises(error, match="base, scenes"):
            vladva_clip.create_model("vladva-tiny", pretrained="openai")

    def test_a_folder_named_like_a_tag_changes_nothing(self, tmp_path, monkeypatch):
        (tmp_path / "training_free").mkdir()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match="llava-hf/llava-1.5-7b-hf .*cache"):
            vladva_clip.create_model("vladva-7b", "training_free", cache_dir=str(tmp_path / "cache"))


class TestSources:
    def test_a_bare_lvlm_says_that_it_is_one_once(self, base, tmp_path, caplog):
        link = tmp_path / "base"
        link.symlink_to(base)
        for _ in range(2):
            create(link)
        assert [r.message for r in caplog.records if "training-free mode" in r.message and str(link) in r.message][
            1:
        ] == []
        assert "training-free mode" in caplog.text

    def test_an_adapter_says_nothing(self, adapter, caplog):
        create(adapter)
        assert "training-free" not in caplog.text

    def test_relative_and_home_paths(self, adapter, monkeypatch):
        expected = adapters.features(create(adapter))[0]
        monkeypatch.chdir(adapter.parent)
        assert torch.equal(adapters.features(create("adapter"))[0], expected)
        monkeypatch.setenv("HOME", str(adapter.parent))
        assert torch.equal(adapters.features(create("~/adapter"))[0], expected)

    def test_a_schema_ignores_the_tag(self, base):
        model, _ = vladva_clip.create_model(f"local-dir:{base}", "laion400m_e32", precision="fp32")
        assert isinstance(model, vladva_clip.VladvaCLIP)

    def test_tokenizers(self, base, adapter, tokenizer):
        for name in (f"local-dir:{base}", f"local-dir:{adapter}"):
            assert torch.equal(vladva_clip.get_tokenizer(name)(samples.CAPTIONS), tokenizer(samples.CAPTIONS))
            narrow = vladva_clip.get_tokenizer(name, context_length=77)
            assert narrow.context_length == 77 and narrow("dog").shape == (1, 77)

    def test_a_model_knows_its_own_from_pretrained(self, base, model):
        found = vladva_clip.VladvaCLIP.from_pretrained(str(base), precision="fp32", device="cpu")
        assert torch.equal(adapters.features(found)[0], adapters.features(model)[0])


class TestArguments:
    @pytest.mark.parametrize(
        "argument",
        [
            {"force_quick_gelu": True},
            {"force_custom_text": True},
            {"force_patch_dropout": 0.5},
            {"pretrained_image": True},
            {"pretrained_image_path": "tower.pt"},
            {"pretrained_text_path": "tower.pt"},
        ],
    )
    def test_those_about_towers_are_refused(self, base, argument):
        with pytest.raises(ValueError, match=f"{next(iter(argument))}=.*leave it out"):
            create(base, **argument)

    @pytest.mark.parametrize(
        "argument",
        [
            {"image_mean": (0.4, 0.4, 0.4)},
            {"image_std": [0.4, 0.4, 0.4]},
            {"image_interpolation": "bilinear"},
            {"image_resize_mode": "longest"},
            {"force_preprocess_cfg": {"mean": (0.4, 0.4, 0.4)}},
            {"force_preprocess_cfg": {"size": 57}},
            {"force_image_size": (56, 112)},
        ],
    )
    def test_another_preprocessing_is_refused(self, adapter, argument):
        with pytest.raises(ValueError, match="=.* differs|not square"):
            create(adapter, **argument)

    def test_the_same_preprocessing_is_accepted(self, adapter, model):
        image = model.config.image
        same = {"image_mean": list(image.mean), "image_std": image.std, "image_interpolation": image.interpolation}
        same |= {"image_resize_mode": image.resize_mode, "force_image_size": image.size}
        assert create(adapter, **same, force_preprocess_cfg=model.visual.preprocess_cfg).config.image == image
        assert create(adapter, force_image_size=(image.size, image.size)).config.image == image

    def test_image_size(self, adapter, bases):
        other = 56 if create(adapter).visual.image_size[0] == 112 else 112
        with pytest.raises(ValueError, match=f"{other} pixels"):
            create(adapter, force_image_size=other)
        with pytest.raises(ValueError, match="56"):
            create(bases["llava"], force_image_size=112)
        small = create(bases["qwen2_vl"], force_image_size=112)  # a bare Qwen2-VL leaves the choice open
        assert small.visual.image_size == (112, 112) and small.visual.num_visual_tokens == 16
        assert small.encode_image(torch.zeros(1, 3, 112, 112)).shape == (1, 32)
        with pytest.raises(ValueError, match="multiple of 28"):
            create(bases["qwen2_vl"], force_image_size=100)

    @pytest.mark.parametrize("size", ["448", 448.0, 56.5, True, (56.0, 56.0), "", [], 0, -1])
    def test_what_is_no_image_size(self, bases, size):
        for name in ("image_size", "force_image_size"):
            with pytest.raises(ValueError, match=r"image size .*(whole number|square)") as caught:
                create(bases["qwen2_vl"], **{name: size})
            assert repr(size).strip("[]()") in str(caught.value)

    def test_two_image_sizes(self, bases):
        with pytest.raises(ValueError, match="image_size=56 and force_image_size=112"):
            create(bases["qwen2_vl"], image_size=56, force_image_size=112)
        assert create(bases["qwen2_vl"], image_size=56, force_image_size=(56, 56)).visual.image_size == (56, 56)

    def test_context_length(self, base, tmp_path):
        model = create(base, force_context_length=77)
        assert model.context_length == model.text.context_length == model.config.context_length == 77
        model.save_pretrained(tmp_path)
        assert vladva_clip.get_tokenizer(f"local-dir:{tmp_path}").context_length == 77

    def test_output_dict(self, base):
        assert create(base).output_dict is False
        assert create(base, output_dict=None).output_dict is False
        assert create(base, output_dict=True).output_dict is True

    @pytest.mark.parametrize(("name", "near"), [("precison", "precision"), ("merge_lorra", "merge_lora"), ("zzz", "")])
    def test_unknown_keyword(self, base, name, near):
        for function in (vladva_clip.create_model, vladva_clip.create_model_from_pretrained):
            with pytest.raises(TypeError, match=f"'{name}'.*{near}"):
                function(f"local-dir:{base}", **{name: 1})

    def test_merge_lora(self, adapter):
        kept, merged = create(adapter, merge_lora=False), create(adapter)
        assert [name for name in kept.state_dict() if "lora_" in name]
        assert not [name for name in merged.state_dict() if "lora_" in name]


class TestTokenize:
    def test_the_tokenizer_is_kept(self, base, tokenizer, monkeypatch):
        monkeypatch.setattr(factory, "_tokenizers", {})
        name = f"local-dir:{base}"
        first = vladva_clip.tokenize(samples.CAPTIONS, model=name)
        assert torch.equal(first, tokenizer(samples.CAPTIONS))
        kept = factory._tokenizers[name]
        assert vladva_clip.tokenize("dog", 77, name).shape == (1, 77)
        assert torch.equal(vladva_clip.tokenize("dog", model=name), tokenizer("dog"))
        assert factory._tokenizers == {name: kept}

    def test_each_model_has_its_own(self, bases, monkeypatch):
        monkeypatch.setattr(factory, "_tokenizers", {})
        rows = [
            vladva_clip.tokenize("a red dog", model=f"local-dir:{directory}")
            for directory in map(bases.get, ("llava", "qwen2_vl"))
        ]
        assert not torch.equal(*rows)

    def test_the_default_is_packaged(self, monkeypatch):
        monkeypatch.setattr(factory, "_tokenizers", {})
        monkeypatch.setattr("vladva_clip.sources.download.snapshot_download", None)  # whoever asks the Hub fails
        model, _ = vladva_clip.create_model("vladva-tiny")
        tokens = vladva_clip.tokenize(["a red circle", "a blue square"])
        assert torch.equal(tokens, vladva_clip.get_tokenizer("vladva-tiny")(["a red circle", "a blue square"]))
        assert torch.equal(tokens, vladva_clip.get_tokenizer()(["a red circle", "a blue square"]))
        assert model.encode_text(tokens).shape == (2, model.embed_dim)

    def test_unknown_model(self):
        with pytest.raises(ValueError, match="unknown model"):
            vladva_clip.tokenize("dog", model="ViT-B-32")
