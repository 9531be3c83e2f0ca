"""LoRA settings: values that PEFT can't use, keys of a later PEFT, targets whose weight has a second use."""

import json
import shutil
from pathlib import Path

import adapters
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

import vladva_clip

OF_A_LATER_PEFT = {name: None for name in ("kasa_config", "lora_ga_config", "monteclora_config", "velora_config")}
OF_A_LATER_PEFT |= {"use_bdlora": None, "use_what_comes_next": False, "settings_to_come": {}, "names_to_come": []}


@pytest.fixture(scope="module")
def adapter_files(base, tmp_path_factory):
    directory = tmp_path_factory.mktemp("lora") / "adapter"
    return directory, adapters.write_adapter(base, directory)


@pytest.fixture
def adapter(adapter_files, tmp_path) -> Path:
    """An adapter that a test may break."""
    return Path(shutil.copytree(adapter_files[0], tmp_path / "adapter"))


def load(directory: Path, **options):
    return vladva_clip.create_model(f"local-dir:{directory}", **{"precision": "fp32", **options})[0]


def edit(directory: Path, **changes) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class TestValues:
    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            *[("r", value, "positive whole number") for value in ("eight", 0, -4, 4.0, None, True, [4])],
            *[("lora_alpha", value, "finite number") for value in ("x", None, [8], True)],
            *[("lora_dropout", value, "from 0 to below 1") for value in ("x", None, 1.0, -0.1)],
            *[("target_modules", value, "a pattern or a list of names") for value in (5, None, [5], {"q_proj": 1})],
            *[("exclude_modules", value, "list of names or null") for value in (5, [None])],
            *[("bias", value, "none, all or lora_only") for value in ("zzz", None, 3, [])],
            *[("rank_pattern", value, "object of positive") for value in ("x", [], {"q_proj": "two"})],
            *[("alpha_pattern", value, "object of finite") for value in (3, {"q_proj": "two"})],
            *[("use_rslora", value, "true or false") for value in ("yes", 1, None)],
        ],
    )
    def test_name_the_file_what_was_found_and_expected(self, adapter, key, value, expected):
        edit(adapter, **{key: value})
        with pytest.raises(ValueError, match=f"adapter_config.json: {key} is .*{expected}") as caught:
            load(adapter)
        assert repr(value) in str(caught.value)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("target_modules", "((("),  # no regular expression
            ("target_modules", []),
            ("layers_to_transform", "x"),
            ("init_lora_weights", "nonsense"),
            ("task_type", "nonsense"),
        ],
    )
    def test_what_only_peft_can_tell(self, adapter, key, value):
        edit(adapter, **{key: value})
        with pytest.raises(ValueError, match="adapter_config.json|LoRA does not fit"):
            load(adapter)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("modules_to_save", ["lm_head"]),
            ("trainable_token_indices", [1, 2]),
            ("layer_replication", [[0, 2], [0, 2]]),
            ("alora_invocation_tokens", [5, 6]),
        ],
    )
    def test_more_than_lora(self, adapter, key, value):
        edit(adapter, **{key: value})
        with pytest.raises(ValueError, match=f"adapter_config.json asks for {key}.*only plain LoRA"):
            load(adapter)


class TestKeysOfALaterPeft:
    def test_unused_they_change_nothing(self, adapter, adapter_files):
        edit(adapter, **OF_A_LATER_PEFT)
        for merge in (True, False):
            found = adapters.features(load(adapter, merge_lora=merge))
            for left, right in zip(found, adapters.features(adapter_files[1]), strict=True):
                torch.testing.assert_close(left, right, rtol=0, atol=1e-5 if merge else 0)

    @pytest.mark.parametrize("value", [True, 1, 0.5, "x", {"rank": 2}, [1]])
    def test_used_they_are_refused(self, adapter, value):
        edit(adapter, use_what_comes_next=value)
        with pytest.raises(ValueError, match="adapter_config.json has the unknown key 'use_what_comes_next'"):
            load(adapter)


class TestSharedWeights:
    @pytest.mark.filterwarnings("ignore:.*tied")
    @pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
    @pytest.mark.parametrize("merge_lora", [True, False])
    def test_a_tied_target_is_refused(self, bases, tmp_path, target, merge_lora):
        """Merged into a head that is the embedding too, the LoRA would change what every token goes in as."""
        model = load(bases["qwen2_vl"])
        inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj", target]), model.visual.backbone.lvlm)
        model.requires_grad_(False).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=f"adapter_config.json targets .*{target}.*shares"):
            load(tmp_path, merge_lora=merge_lora)

    @pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
    def test_a_target_of_its_own_is_not(self, bases, tmp_path, target):
        model = load(bases["llava"])
        lora_config = LoraConfig(r=2, target_modules=[target], init_lora_weights=False)
        inject_adapter_in_model(lora_config, model.visual.backbone.lvlm)
        model.requires_grad_(False).eval().save_pretrained(tmp_path)
        for found, expected in zip(adapters.features(load(tmp_path)), adapters.features(model), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
