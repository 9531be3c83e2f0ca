"""LoRA settings: values that PEFT can't use, keys of a later PEFT, targets whose weight has a second use."""

import json
import os
import resource
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

import vladva_clip
from tests.support import adapters, memory
from tests.support.adapters import load
from tests.support.edits import edit_json

OF_A_LATER_PEFT = {name: None for name in ("kasa_config", "lora_ga_config", "monteclora_config", "velora_config")}
OF_A_LATER_PEFT |= {"use_bdlora": None, "use_what_comes_next": False, "settings_to_come": {}, "names_to_come": []}


def edit(directory: Path, **changes) -> None:
    edit_json(directory / "adapter_config.json", **changes)


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
        with pytest.raises(ValueError, match=f"adapter_config.json.*{key}.*only plain LoRA"):
            load(adapter)


class TestKeysOfALaterPeft:
    def test_unused_they_change_nothing(self, adapter, writer):
        edit(adapter, **OF_A_LATER_PEFT)
        for merge in (True, False):
            found = adapters.features(load(adapter, merge_lora=merge))
            for left, right in zip(found, adapters.features(writer), strict=True):
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
        refusal = f"adapter_config.json targets .*{target}.*shares"
        with pytest.raises(ValueError, match=refusal):
            model.requires_grad_(False).save_pretrained(tmp_path)
        model.save_pretrained(tmp_path, verify=False)
        with pytest.raises(ValueError, match=refusal):
            load(tmp_path, merge_lora=merge_lora)

    @pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
    def test_a_target_of_its_own_is_not(self, bases, tmp_path, target):
        model = load(bases["llava"])
        lora_config = LoraConfig(r=2, target_modules=[target], init_lora_weights=False)
        inject_adapter_in_model(lora_config, model.visual.backbone.lvlm)
        model.requires_grad_(False).eval().save_pretrained(tmp_path)
        for found, expected in zip(adapters.features(load(tmp_path)), adapters.features(model), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


class TestInitialization:
    """How a LoRA was initialized has no meaning on loading: the stored tensors alone decide."""

    NAMES = ("pissa", "pissa_niter_4", "pissa_niter_4000", "olora", "corda", "loftq", "lora_ga", "eva", "orthogonal")
    VALUES = (*NAMES, "mica", "gaussian", True, False, None)

    @pytest.mark.parametrize("value", VALUES, ids=str)
    def test_the_features_are_those_of_the_stored_tensors(self, adapter, writer, value):
        edit(adapter, init_lora_weights=value, eva_config={"rho": 2.0}, loftq_config={"loftq_bits": 4})
        for merge in (True, False):
            found = adapters.features(load(adapter, merge_lora=merge))
            for left, right in zip(found, adapters.features(writer), strict=True):
                torch.testing.assert_close(left, right, rtol=0, atol=1e-5 if merge else 0)

    @pytest.mark.parametrize("value", ["pissa", "olora"])
    def test_exported_it_is_the_same_model(self, adapter, tmp_path, value):
        expected = adapters.features(load(adapter))[1]
        edit(adapter, init_lora_weights=value)
        exported = load(vladva_clip.export_model(adapter, tmp_path / "out", precision="fp32"))
        # the export's captions are laid out by its own tokens, and mean the same
        torch.testing.assert_close(adapters.features(exported)[1], expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("merge", [True, False])
    def test_saved_again_it_is_what_peft_loads_alike(self, adapter, tmp_path, merge):
        """PEFT repeats `pissa` whenever it loads the LoRA, which would change the base under it."""
        edit(adapter, init_lora_weights="pissa")
        load(adapter, merge_lora=merge).save_pretrained(tmp_path / "again")
        assert json.loads((tmp_path / "again/adapter_config.json").read_text())["init_lora_weights"] is True

    def test_one_that_changes_the_base_is_named_in_a_warning(self, adapter, caplog):
        edit(adapter, init_lora_weights="pissa")
        load(adapter)
        assert "init_lora_weights is 'pissa'" in caplog.text

    def test_nothing_is_drawn(self, adapter):
        torch.manual_seed(7)
        load(adapter)
        drawn = torch.rand(1)
        torch.manual_seed(7)
        assert torch.equal(drawn, torch.rand(1))


class TestSizes:
    """Refused by headers and configs alone: no memory is taken for what they claim."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"r": 20000, "rank_pattern": {"q_proj": 4, "v_proj": 4, "never_matches": 20000}},
            {"r": 20000, "rank_pattern": {"never_matches": 4}},
            {"r": 1 << 40},
            {"monteclora_config": {"num_samples": 1 << 20}},
            {"layer_replication": [[0, 1]] * 1000},
        ],
        ids=str,
    )
    def test_a_rank_of_no_tensor(self, adapter, changes):
        edit(adapter, **changes)
        with memory.LiveBytes() as live:
            try:
                load(adapter)
            except ValueError as error:
                assert "adapter_config.json" in str(error) or "LoRA does not fit" in str(error)
            else:  # a default that no module takes is harmless
                assert changes.get("rank_pattern", {}).get("q_proj") == 4
        assert live.peak < 1 << 25  # a plain load's takes 9 MB

    def test_an_unknown_tensor_of_gigabytes(self, adapter):
        """A file with a hole, which takes 4 KB on the disk."""
        path = adapter / "adapter_model.safetensors"
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        header["unknown"] = {"dtype": "F32", "shape": [1 << 29], "data_offsets": [end, end + (1 << 31)]}
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
        os.truncate(path, 8 + len(text) + end + (1 << 31))
        before = resident()
        with pytest.raises(ValueError, match="unknown"):
            load(adapter)
        assert resident() - before < 100 << 20

    PATTERNS = ("(a+)+$", "(.*)*x", ".*.*.*.*x", "(a|a)(a|a)(a|a)(a|a)", "[a-z]+[a-z]+[a-z]+$", "x{9999}", "(((")

    @pytest.mark.parametrize("pattern", PATTERNS)
    @pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
    def test_a_key_that_could_be_searched_for_ever(self, adapter, key, pattern):
        edit(adapter, **{key: {pattern: 4}})
        with pytest.raises(ValueError, match=f"adapter_config.json: {key} is"):
            load(adapter)

    @pytest.mark.parametrize("pattern", [*PATTERNS, r"^(?!.*vision).*\.([qv]_proj|[kv]_proj)$", ".*?_proj", r"\d{1,2}"])
    @pytest.mark.parametrize("key", ["target_modules", "exclude_modules"])
    def test_targets_that_could_be_searched_for_ever_are_those_of_the_tensors(
        self, adapter, writer, tmp_path, key, pattern
    ):
        """They are not evaluated, and saved again they are names."""
        edit(adapter, **{key: pattern})
        for merge in (True, False):
            model = load(adapter, merge_lora=merge)
            for left, right in zip(adapters.features(model), adapters.features(writer), strict=True):
                torch.testing.assert_close(left, right, rtol=0, atol=1e-5 if merge else 0)
            model.save_pretrained(tmp_path / f"again {merge}")
            saved = json.loads((tmp_path / f"again {merge}/adapter_config.json").read_text())
            assert len(saved["target_modules"]) == 4 and saved["exclude_modules"] is None

    def test_alphas_by_module(self, adapter, writer):
        """Looked up as PEFT does: the same features as with its own reading."""
        expected = load(adapter)
        edit(adapter, lora_alpha=1000, alpha_pattern={"q_proj": 8, r"layers\.\d+\.self_attn\.(k_proj|v_proj)": 8})
        for left, right in zip(adapters.features(load(adapter)), adapters.features(expected), strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=0)


def resident() -> int:
    """The most memory that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
