"""An adapter written and read back: equal features, equal files, plain PEFT, and nothing half-written that loads."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, inject_adapter_in_model
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

import vladva_clip
from tests.support import adapters, crash, samples
from tests.support.adapters import load
from vladva_clip.encoder import lora
from vladva_clip.storage import adapter_files, allowed_files
from vladva_clip.storage.config import FORMAT_VERSION

FILES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "open_clip_config.json",
    "soft_prompt.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vladva_config.json",
}


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def same(found, expected, tolerance=0.0):
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=tolerance)


class TestRoundTrip:
    def test_the_adapter_matters(self, writer, model):
        for ours, bare in zip(adapters.features(writer), adapters.features(model), strict=True):
            assert (ours - bare).abs().max() > 0.05

    def test_unmerged_is_bit_equal(self, writer, adapter):
        loaded = load(adapter, merge_lora=False)
        assert lora.has_lora(loaded.visual.backbone.lvlm)
        same(adapters.features(loaded), adapters.features(writer))
        assert loaded.logit_scale == writer.logit_scale == 3.0
        state, expected = loaded.state_dict(), writer.state_dict()
        assert set(state) == set(expected)
        assert all(torch.equal(state[name], expected[name]) for name in state)

    def test_merged_is_close(self, writer, adapter):
        loaded = load(adapter)
        assert not lora.has_lora(loaded.visual.backbone.lvlm)
        same(adapters.features(loaded), adapters.features(writer), 1e-5)
        assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
        before = adapters.features(loaded)
        loaded.train().eval()
        same(adapters.features(loaded), before)

    def test_every_way_in_gives_the_same_model(self, adapter, base, writer):
        expected = adapters.features(load(adapter))
        picture = samples.noise_picture(1)
        for found in (
            vladva_clip.VladvaCLIP.from_pretrained(adapter, precision="fp32"),
            vladva_clip.VladvaCLIP.from_pretrained(f"local-dir:{adapter}", precision="fp32"),
            vladva_clip.create_model_from_pretrained(f"local-dir:{adapter}", precision="fp32", return_transform=False),
        ):
            same(adapters.features(found), expected)
        tokens = vladva_clip.get_tokenizer(f"local-dir:{adapter}")(samples.CAPTIONS)
        assert torch.equal(tokens, vladva_clip.get_tokenizer(f"local-dir:{base}")(samples.CAPTIONS))
        _, preprocess = vladva_clip.create_model(f"local-dir:{adapter}")
        _, bare = vladva_clip.create_model(f"local-dir:{base}")
        assert torch.equal(preprocess(picture), bare(picture))

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    @pytest.mark.parametrize("merge_lora", [True, False])
    def test_saved_again_the_files_are_the_same(self, adapter, tmp_path, precision, merge_lora):
        """Whatever the base computes in: soft prompts and LoRA stay in float32."""
        load(adapter, precision=precision, merge_lora=merge_lora).save_pretrained(tmp_path)
        assert contents(tmp_path) == contents(adapter)

    def test_written_twice_the_files_are_the_same(self, writer, base, adapter, tmp_path):
        writer.save_pretrained(tmp_path / "again")
        adapters.write_adapter(base, tmp_path / "rebuilt")
        assert contents(tmp_path / "again") == contents(tmp_path / "rebuilt") == contents(adapter)
        adapters.write_adapter(base, tmp_path / "other", seed=1)
        changed = {name for name, data in contents(tmp_path / "other").items() if data != contents(adapter)[name]}
        assert changed == {"adapter_model.safetensors", "soft_prompt.safetensors"}

    def test_soft_prompts_alone(self, base, tmp_path):
        model = load(base)
        with torch.no_grad():
            model.text.soft_prompt.weight.mul_(1.5)
        model.save_pretrained(tmp_path)
        assert not any(name.startswith("adapter") for name in contents(tmp_path))
        same(adapters.features(load(tmp_path)), adapters.features(model))

    def test_a_logit_bias(self, base, adapter, tmp_path):
        """The config has it where the model has one; else there is no such key, and older releases read the file."""
        model = load(base)
        model.logit_bias = torch.nn.Parameter(torch.tensor(-7.25))
        model.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "vladva_config.json").read_text())["logit_bias"] == -7.25
        assert "| logit bias | -7.2500 |" in (tmp_path / "README.md").read_text()
        loaded = load(tmp_path)
        assert loaded.logit_bias == -7.25 and isinstance(loaded.logit_bias, torch.nn.Parameter)
        assert loaded.half().logit_bias.dtype == torch.float16 and "logit_bias" in loaded.state_dict()
        assert "logit_bias" not in json.loads((adapter / "vladva_config.json").read_text())
        exported = load(vladva_clip.export_model(tmp_path, tmp_path / "export", precision="fp32"))
        assert exported.logit_bias == -7.25 and load(adapter).logit_bias is None

    @pytest.mark.parametrize("value", ["-10", True, [1.0], float("nan"), 1e9, float("inf")])
    def test_a_logit_bias_that_is_none(self, adapter, tmp_path, value):
        shutil.copytree(adapter, tmp_path / "dir")
        path = tmp_path / "dir/vladva_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "logit_bias": value}))
        with pytest.raises(ValueError, match="logit_bias|NaN|Infinity"):
            load(tmp_path / "dir")

    def test_a_bare_model_saved_and_loaded(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        same(adapters.features(load(tmp_path)), adapters.features(model))

    def test_lora_dropout_is_off_until_training(self, base, tmp_path):
        adapters.write_adapter(base, tmp_path, dropout=0.5)
        unmerged = load(tmp_path, merge_lora=False)
        same(adapters.features(unmerged), adapters.features(unmerged))
        same(adapters.features(unmerged), adapters.features(load(tmp_path)), 1e-5)
        unmerged.train()
        assert not torch.equal(adapters.features(unmerged)[0], adapters.features(unmerged)[0])

    def test_lora_of_other_shapes(self, base, tmp_path):
        """Several targets by list, other ranks and scalings for some, exclusions: what a training run may choose."""
        model = load(base)
        config = LoraConfig(
            r=2,
            target_modules=["q_proj", "v_proj", "down_proj"],
            exclude_modules=["layers.0.mlp.down_proj"],
            rank_pattern={"v_proj": 3},
            use_rslora=True,
            init_lora_weights=False,
        )
        inject_adapter_in_model(config, model.visual.backbone.lvlm)
        model.eval().save_pretrained(tmp_path)
        same(adapters.features(load(tmp_path, merge_lora=False)), adapters.features(model))
        same(adapters.features(load(tmp_path)), adapters.features(model), 1e-5)
        assert any(
            (left - right).abs().max() > 1e-3
            for left, right in zip(adapters.features(model), adapters.features(load(base)), strict=True)
        )

    def test_bf16(self, adapter):
        half = load(adapter, precision="bf16")
        assert half.visual.backbone.dtype == torch.bfloat16
        assert half.text.soft_prompt.weight.dtype == torch.float32  # stored and trained without loss
        for found, expected in zip(adapters.features(half), adapters.features(load(adapter)), strict=True):
            assert found.dtype == torch.float32 and (found * expected).sum(dim=1).min() > 0.97

    def test_a_renamed_directory_still_loads(self, adapter, writer, tmp_path):
        shutil.copytree(adapter, tmp_path / "moved")
        same(adapters.features(load(tmp_path / "moved", merge_lora=False)), adapters.features(writer))


class TestFiles:
    def test_what_is_written(self, adapter, base):
        files = contents(adapter)
        assert set(files) >= FILES and not any(Path(name).suffix in allowed_files.PICKLES for name in files)
        assert sum(map(len, files.values())) < 300_000  # the base is not in it
        config = json.loads(files["vladva_config.json"])
        assert config["format_version"] == FORMAT_VERSION and config["logit_scale"] == 3.0
        assert config["base"]["id"] == f"local-dir:{base}" and config["base"]["fingerprint"].startswith("sha256:")
        marked = json.loads(files["open_clip_config.json"])
        assert set(marked) == {"model_cfg", "preprocess_cfg", "vladva_clip"}
        assert marked["model_cfg"]["embed_dim"] == 32 and marked["preprocess_cfg"]["size"] == config["image"]["size"]

    def test_plain_peft_loads_it(self, adapter, base, writer):
        plain = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
        name = "text_model" if base.name == "idefics3" else "language_model"
        trunk = plain.model.get_submodule(name)
        rows = torch.tensor([[5, 9, 70, 71, 80]])
        with torch.no_grad():
            bare = trunk(input_ids=rows).last_hidden_state
            peft = PeftModel.from_pretrained(plain, adapter)
            hidden = peft.base_model.model.model.get_submodule(name)(input_ids=rows).last_hidden_state
            ours = writer.visual.backbone
            expected = ours.trunk(ours.embed_tokens(rows), ours.position_ids(rows.shape[1], None, 0))
        torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-5)
        assert (hidden - bare).abs().max() > 0.05
        keys = set(load_file(adapter / "adapter_model.safetensors"))
        assert all(key.startswith("base_model.model.") for key in keys)

    def test_the_tokenizer_beside_it_is_the_bases(self, adapter, base):
        saved, own = AutoTokenizer.from_pretrained(adapter), AutoTokenizer.from_pretrained(base)
        assert saved(samples.CAPTIONS).input_ids == own(samples.CAPTIONS).input_ids
        assert saved.eos_token_id == own.eos_token_id

    def test_saving_over_another_adapter(self, adapter, base, writer, tmp_path):
        shutil.copytree(adapter, tmp_path / "dir")
        (tmp_path / "dir/notes.txt").write_text("mine")
        plain = load(base)
        with pytest.raises(ValueError, match="notes.txt.*force=True"):
            plain.save_pretrained(tmp_path / "dir")
        plain.save_pretrained(tmp_path / "dir", force=True)
        assert not (tmp_path / "dir/adapter_model.safetensors").exists()
        same(adapters.features(load(tmp_path / "dir")), adapters.features(plain))
        writer.save_pretrained(tmp_path / "dir", force=True)
        same(adapters.features(load(tmp_path / "dir", merge_lora=False)), adapters.features(writer))
        assert (tmp_path / "dir/notes.txt").read_text() == "mine"
        assert set(contents(tmp_path / "dir")) == set(contents(adapter)) | {"notes.txt"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the child process is a fork")
class TestInterruption:
    def outcome(self, directory):
        """Features of what loads, None for a directory that says it is no checkpoint."""
        try:
            return adapters.features(load(directory, merge_lora=False))
        except ValueError as error:
            assert "vladva_config.json" in str(error)
            return None

    @pytest.mark.parametrize("kind", ["lora", "plain"])
    def test_no_mixture_ever_loads(self, base, adapter, writer, tmp_path, kind):
        """A save over an old adapter, cut at every step: the old, the new, or nothing that loads."""
        new = load(base) if kind == "plain" else adapters.with_lora(load(base), seed=7)
        known = {"old": adapters.features(writer), "new": adapters.features(new)}
        outcomes, cut = [], True
        while cut:
            directory = tmp_path / str(len(outcomes))
            shutil.copytree(adapter, directory)
            save = partial(new.save_pretrained, directory, verify=False)  # which writes nothing
            cut = crash.cut_short(save, directory, len(outcomes) + 1)
            found = self.outcome(directory)
            names = [name for name, features in known.items() if found and all(map(torch.equal, found, features))]
            assert found is None or names, f"a mixture loads after {len(outcomes)} steps"
            outcomes.append(names[0] if names else None)
        assert outcomes[0] == "old" and outcomes[-1] == "new" and None in outcomes

    def test_a_first_save_cut_short_does_not_load_and_can_be_repeated(self, writer, tmp_path):
        directory = tmp_path / "new"
        assert crash.cut_short(partial(writer.save_pretrained, directory), directory, 3)
        assert self.outcome(directory) is None
        writer.save_pretrained(directory)
        same(self.outcome(directory), adapters.features(writer))

    def test_an_error_while_writing_leaves_the_old_files(self, adapter, tmp_path):
        shutil.copytree(adapter, tmp_path / "dir")

        def fail(_):
            raise OSError("no space left on device")

        with pytest.raises(OSError, match="no space"):
            adapter_files.write(tmp_path / "dir", adapter_files.read(adapter), {}, fail)
        assert contents(tmp_path / "dir") == contents(adapter)
