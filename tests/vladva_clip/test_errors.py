"""Broken files, other bases, pickles, no network: a ValueError that names what was found and what to do."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import vladva_clip
from tests.support import adapters
from tests.support.adapters import load
from tests.support.edits import edit_json
from tests.support.refusals import refused
from vladva_clip.sources import registry
from vladva_clip.storage import weights
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.config import FORMAT_VERSION
from vladva_clip.storage.tensor_names import canonical


def edit_tensors(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def cut(path: Path, keep: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def shard(directory: Path) -> list[str]:
    """Split a base's weights into two shards with an index, as the large models come."""
    tensors = load_file(directory / weights.SINGLE)
    names = sorted(tensors)
    files = [f"model-{part + 1:05}-of-00002.safetensors" for part in range(2)]
    where = {name: files[index % 2] for index, name in enumerate(names)}
    for file in files:
        save_file({n: tensors[n] for n in names if where[n] == file}, directory / file, metadata={"format": "pt"})
    (directory / weights.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (directory / weights.SINGLE).unlink()
    return files


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class TestBaseWeights:
    @pytest.mark.parametrize("keep", [0, 0.001, 0.5, 0.999])
    def test_cut(self, bare, keep):
        cut(bare / weights.SINGLE, keep)
        refused(bare, bare / weights.SINGLE, "corrupted")

    def test_corrupted_header(self, bare):
        data = bytearray((bare / weights.SINGLE).read_bytes())
        data[8:40] = os.urandom(32)
        (bare / weights.SINGLE).write_bytes(data)
        refused(bare, bare / weights.SINGLE, "corrupted")

    def test_missing(self, bare):
        (bare / weights.SINGLE).unlink()
        refused(bare, bare, weights.SINGLE, "safetensors")

    def test_shards_load(self, bare, model):
        shard(bare)
        for found, expected in zip(adapters.features(load(bare)), adapters.features(model), strict=True):
            assert torch.equal(found, expected)

    def test_missing_shard(self, bare):
        second = shard(bare)[1]
        (bare / second).unlink()
        refused(bare, second, bare, "missing")

    def test_cut_shard(self, bare):
        second = shard(bare)[1]
        cut(bare / second, 0.5)
        refused(bare, second, "corrupted")

    @pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "sub/x.safetensors"])
    def test_index_that_points_outside(self, bare, name):
        shard(bare)
        index = json.loads((bare / weights.INDEX).read_text())
        index["weight_map"]["lm_head.weight"] = name
        (bare / weights.INDEX).write_text(json.dumps(index))
        refused(bare, "outside", name)

    @pytest.mark.parametrize("text", ["{", "[]", '{"metadata": {}}', '{"weight_map": 3}'])
    def test_index_that_is_none(self, bare, text):
        shard(bare)
        (bare / weights.INDEX).write_text(text)
        refused(bare, weights.INDEX)

    def test_missing_keys(self, bare):
        edit_tensors(bare / weights.SINGLE, lambda t: [t.pop(n) for n in sorted(t) if "layers.0.mlp.up_proj" in n])
        refused(bare, bare, "missing_keys", "layers.0.mlp.up_proj.weight")

    def test_missing_layers_that_mark_a_language_model(self, bare):
        edit_tensors(bare / weights.SINGLE, lambda t: [t.pop(n) for n in sorted(t) if "k_proj" in n])
        refused(bare, bare, "missing_keys", "layers.0.self_attn.k_proj.weight")

    def test_wrong_shape(self, bare):
        name = next(n for n in load_file(bare / weights.SINGLE) if "layers.1.mlp.up_proj.weight" in n)
        edit_tensors(bare / weights.SINGLE, lambda t: t.update({name: torch.zeros(3, 5)}))
        refused(bare, bare, "layers.1.mlp.up_proj.weight", "config.json")

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
    def test_wrong_dtype(self, bare, dtype):
        name = next(n for n in load_file(bare / weights.SINGLE) if "layers.1.mlp.up_proj.weight" in n)
        edit_tensors(bare / weights.SINGLE, lambda t: t.update({name: t[name].to(dtype)}))
        refused(bare, "layers.1.mlp.up_proj.weight")

    def test_more_layers_than_the_config_says(self, bare):
        """Left-over weights: cut to the config's depth, the model would be another one without a word."""
        names = [n for n in load_file(bare / weights.SINGLE) if ".layers.1." in n and "vision" not in n]
        assert names
        edit_tensors(
            bare / weights.SINGLE,
            lambda t: t.update({n.replace("layers.1.", "layers.2."): t[n].clone() for n in names}),
        )
        refused(bare, bare, "num_hidden_layers is 2", "3")

    def test_precision(self, bare):
        refused(bare, "fp8", "fp32", "bf16", precision="fp8")


class TestPickles:
    @pytest.fixture
    def trap(self, tmp_path):
        """A file that must not come to be."""
        path = tmp_path / "ran.txt"
        pickle.loads(pickle.dumps(Trap(path)))
        assert path.exists()  # the trap works
        path.unlink()
        yield path
        assert not path.exists(), "a pickle was opened"

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt"])
    def test_instead_of_the_bases_safetensors(self, bare, trap, name):
        (bare / weights.SINGLE).unlink()
        (bare / name).write_bytes(pickle.dumps(Trap(trap)))
        refused(bare, name, "pickle", "refused", "safetensors")

    def test_torch_saved(self, bare, trap):
        (bare / weights.SINGLE).unlink()
        torch.save({"model": Trap(trap)}, bare / "pytorch_model.bin")
        refused(bare, "pytorch_model.bin", "refused")

    def test_beside_the_bases_safetensors_is_never_opened(self, bare, trap, model):
        (bare / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(trap)))
        for found, expected in zip(adapters.features(load(bare)), adapters.features(model), strict=True):
            assert torch.equal(found, expected)

    @pytest.mark.parametrize("name", [weights.SINGLE])
    def test_under_the_name_of_safetensors(self, bare, trap, name):
        (bare / name).write_bytes(pickle.dumps(Trap(trap)))
        refused(bare, name, "corrupted")

    @pytest.mark.parametrize("name", ["adapter_model.bin", "soft_prompt.pt", "optimizer.pth", "x.pkl", "last.ckpt"])
    def test_in_an_adapter(self, adapter, trap, name):
        (adapter / name).write_bytes(pickle.dumps(Trap(trap)))
        refused(adapter, name, "pickle")

    @pytest.mark.parametrize("name", ["adapter_model.safetensors", "soft_prompt.safetensors"])
    def test_in_an_adapter_under_the_name_of_safetensors(self, adapter, trap, name):
        (adapter / name).write_bytes(pickle.dumps(Trap(trap)))
        refused(adapter, name, "corrupted")


class TestAdapterTensors:
    @pytest.mark.parametrize("name", ["adapter_model.safetensors", "soft_prompt.safetensors"])
    def test_cut_and_missing(self, adapter, name):
        whole = (adapter / name).read_bytes()
        for keep in (0, 0.1, 0.9):
            (adapter / name).write_bytes(whole[: int(len(whole) * keep)])
            refused(adapter, adapter / name, "corrupted")
        (adapter / name).unlink()
        refused(adapter, name, "missing", adapter)

    def test_lora_config_missing(self, adapter):
        (adapter / "adapter_config.json").unlink()
        refused(adapter, "adapter_config.json", "missing")

    @pytest.mark.parametrize("side", ["image", "text"])
    def test_soft_prompt_of_another_shape(self, adapter, side):
        path = adapter / "soft_prompt.safetensors"
        count, width = load_file(path)[side].shape
        for shape in ((count + 1, width), (count, width - 1), (width,), (1, count, width)):
            edit_tensors(path, lambda t, shape=shape: t.update({side: torch.zeros(shape)}))
            refused(adapter, path, side, shape, (count, width))

    def test_soft_prompt_of_one_side_or_three(self, adapter):
        path = adapter / "soft_prompt.safetensors"
        edit_tensors(path, lambda t: t.update({"audio": torch.zeros(1)}))
        refused(adapter, path, "['audio', 'image', 'text']", "['image', 'text']")
        edit_tensors(path, lambda t: (t.pop("audio"), t.pop("text")))
        refused(adapter, path, "['image']", "['image', 'text']")

    @pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.bool, torch.float8_e4m3fn])
    def test_wrong_dtype(self, adapter, dtype):
        for name in ("soft_prompt.safetensors", "adapter_model.safetensors"):
            path = adapter / name
            good = path.read_bytes()
            first = sorted(load_file(path))[0]
            edit_tensors(path, lambda t, first=first: t.update({first: t[first].to(dtype)}))
            refused(adapter, path, first, dtype, "float16")
            path.write_bytes(good)
        load(adapter)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, adapter, value):
        for name in ("soft_prompt.safetensors", "adapter_model.safetensors"):
            good = (adapter / name).read_bytes()
            first = sorted(load_file(adapter / name))[0]
            edit_tensors(adapter / name, lambda t, first=first: t[first].view(-1)[-1:].fill_(value))
            refused(adapter, name, first, "NaN")
            (adapter / name).write_bytes(good)

    def test_lora_of_another_shape(self, adapter):
        path = adapter / "adapter_model.safetensors"
        first = sorted(load_file(path))[0]
        edit_tensors(path, lambda t: t.update({first: torch.zeros(4, 7)}))
        refused(adapter, "LoRA", "1 ", first.removeprefix("base_model.model."), "(4, 7)")

    def test_lora_missing_and_unexpected_are_gathered(self, adapter):
        path = adapter / "adapter_model.safetensors"
        names = sorted(load_file(path))
        stray = names[0].replace("layers.0", "layers.7")
        edit_tensors(path, lambda t: t.update({stray: t.pop(names[0])}) or t.pop(names[1]))
        own, other = (name.removeprefix("base_model.model.") for name in (names[0], stray))
        refused(adapter, "2 missing", own, "1 unexpected", other)

    def test_a_tensor_that_no_lora_has(self, adapter):
        edit_tensors(adapter / "adapter_model.safetensors", lambda t: t.update({"stray": torch.zeros(1)}))
        refused(adapter, "1 unexpected", "stray")

    def test_lora_rank_that_contradicts_the_tensors(self, adapter):
        edit_json(adapter / "adapter_config.json", r=8)
        refused(adapter, "shape", "rank")

    def test_lora_for_modules_that_do_not_exist(self, adapter):
        edit_json(adapter / "adapter_config.json", target_modules=["nowhere_proj"])
        refused(adapter, "nowhere_proj")

    def test_another_kind_of_adapter(self, adapter):
        edit_json(adapter / "adapter_config.json", peft_type="IA3")
        refused(adapter, "IA3", "LORA")

    def test_unknown_key_of_the_lora_config(self, adapter):
        edit_json(adapter / "adapter_config.json", lora_alhpa=8)
        refused(adapter, "lora_alhpa", "did you mean lora_alpha")


class TestAdapterConfig:
    @pytest.mark.parametrize(
        "where, key, near",
        [
            ((), "contxt_length", "context_length"),
            (("image",), "interpolaton", "interpolation"),
            (("prompt",), "image_tmplate", "image_template"),
            (("base",), "fingerprnt", "fingerprint"),
        ],
    )
    def test_unknown_key_names_the_nearest(self, adapter, where, key, near):
        data = json.loads((adapter / "vladva_config.json").read_text())
        part = data
        for name in where:
            part = part[name]
        part[key] = 1
        (adapter / "vladva_config.json").write_text(json.dumps(data))
        refused(adapter, f"unknown key {key!r}", f"did you mean {near}")

    @pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, None, "1", 1.5])
    def test_format_version(self, adapter, version):
        edit_json(adapter / "vladva_config.json", format_version=version)
        refused(adapter, f"format_version is {version!r}", "install")

    @pytest.mark.parametrize(
        "key, value", [("embed_dim", "32"), ("embed_dim", True), ("dtype", "int8"), ("context_length", 1), ("base", [])]
    )
    def test_wrong_values(self, adapter, key, value):
        edit_json(adapter / "vladva_config.json", **{key: value})
        refused(adapter, key)

    def test_another_width_than_the_bases(self, adapter):
        edit_json(adapter / "vladva_config.json", embed_dim=64)
        refused(adapter, 64, 32)

    def test_missing_key(self, adapter):
        data = json.loads((adapter / "vladva_config.json").read_text())
        del data["embed_dim"], data["image"]
        (adapter / "vladva_config.json").write_text(json.dumps(data))
        refused(adapter, "embed_dim, image")

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": 1,}', "\0", "[" * 100_000])
    @pytest.mark.parametrize("name", ["vladva_config.json", "adapter_config.json"])
    def test_no_json(self, adapter, name, text):
        (adapter / name).write_text(text)
        refused(adapter, name)

    def test_json_of_many_megabytes(self, adapter):
        (adapter / "vladva_config.json").write_text(" " * (1 << 20) + "{}")
        refused(adapter, "vladva_config.json", "bytes")

    @pytest.mark.parametrize("side", ["image", "text"])
    def test_template_with_other_soft_slots(self, adapter, side):
        data = json.loads((adapter / "vladva_config.json").read_text())
        data["prompt"][f"{side}_prompt"] += " more words"
        (adapter / "vladva_config.json").write_text(json.dumps(data))
        refused(adapter, f"{data['prompt'][f'num_{side}_soft_tokens']} {side} soft slots", "template")


class TestAnotherBase:
    @pytest.fixture
    def other(self, base, bare):
        """The same architecture with other weights in one fingerprinted tensor."""

        def change(tensors):
            next(t for n, t in tensors.items() if canonical(n) == "language_model.norm.weight").mul_(2)

        edit_tensors(bare / weights.SINGLE, change)
        return bare

    def test_both_fingerprints_are_shown(self, adapter, other, base):
        data = json.loads((adapter / "vladva_config.json").read_text())
        stated, found = BaseFiles(base).fingerprint, BaseFiles(other).fingerprint
        assert data["base"]["fingerprint"] == stated != found
        data["base"]["id"] = f"local-dir:{other}"
        (adapter / "vladva_config.json").write_text(json.dumps(data))
        refused(adapter, stated, found, other, "revision")

    def test_the_base_was_moved(self, adapter, tmp_path):
        data = json.loads((adapter / "vladva_config.json").read_text())
        data["base"]["id"] = f"local-dir:{tmp_path / 'gone'}"
        (adapter / "vladva_config.json").write_text(json.dumps(data))
        refused(adapter, tmp_path / "gone")

    def test_of_the_other_family(self, adapter, bases):
        data = json.loads((adapter / "vladva_config.json").read_text())
        own = data["base"]["family"]
        other = next(directory for family, directory in bases.items() if family != own)
        data["base"].update(id=f"local-dir:{other}")
        (adapter / "vladva_config.json").write_text(json.dumps(data))
        refused(adapter, data["base"]["fingerprint"], BaseFiles(other).fingerprint)
        data["base"].update(fingerprint=None)
        (adapter / "vladva_config.json").write_text(json.dumps(data))
        refused(adapter, own)

    def test_beside_the_name_of_another_model(self, adapter, base):
        with pytest.raises(ValueError, match="made for .*vladva-2b") as caught:
            vladva_clip.create_model("vladva-2b", str(adapter))
        assert "local-dir" in str(caught.value) and str(base) in str(caught.value)


class TestDirectories:
    def test_unsupported_family(self, bare):
        edit_json(bare / "config.json", model_type="llava_nxt")
        refused(bare, "llava_nxt", "not supported", "did you mean llava_next")
        edit_json(bare / "config.json", model_type="fuyu")
        refused(bare, "fuyu", "llava", "qwen2_vl")
        data = json.loads((bare / "config.json").read_text())
        del data["model_type"]
        (bare / "config.json").write_text(json.dumps(data))
        refused(bare, "not supported", "llava", "qwen2_vl")

    @pytest.mark.parametrize("text", ["", "{", "[]"])
    def test_broken_config(self, bare, text):
        (bare / "config.json").write_text(text)
        refused(bare, "config.json")

    def test_not_a_directory(self, tmp_path):
        refused(tmp_path / "nowhere", tmp_path / "nowhere", "vladva_config.json")
        (tmp_path / "file").write_text("x")
        refused(tmp_path / "file", tmp_path / "file", "directory")
        for function in (vladva_clip.get_tokenizer, vladva_clip.create_model):
            with pytest.raises(RuntimeError, match="nowhere"):  # what code written for open_clip catches
                function(f"local-dir:{tmp_path / 'nowhere'}")

    def test_a_directory_of_something_else(self, tmp_path):
        refused(tmp_path, "vladva_config.json")
        (tmp_path / "holiday.jpg").write_text("x")
        refused(tmp_path, "vladva_config.json", "holiday.jpg")

    def test_base_without_its_tokenizer(self, bare):
        (bare / "tokenizer.json").unlink()
        refused(bare, bare, "tokenizer", "tokenizer.json")
        with pytest.raises(ValueError, match="tokenizer"):
            vladva_clip.get_tokenizer(f"local-dir:{bare}")


class TestNoNetwork:
    """HF_HUB_OFFLINE is set for the whole session; the cache is empty."""

    @pytest.mark.parametrize(
        "name, repo",
        [
            ("vladva", "llava-hf/llava-1.5-7b-hf"),
            ("vladva-13b", "llava-hf/llava-1.5-13b-hf"),
            ("vladva-2b", "Qwen/Qwen2-VL-2B-Instruct"),
            ("hf-hub:someone/some-adapter", "someone/some-adapter"),
            ("hf-hub:someone/some-adapter@v1.0", "someone/some-adapter"),
        ],
    )
    def test_says_so_and_names_the_ways_out(self, tmp_path, name, repo):
        for call in (vladva_clip.create_model, vladva_clip.get_tokenizer, vladva_clip.create_model_from_pretrained):
            with pytest.raises(ValueError) as caught:
                call(name, cache_dir=str(tmp_path))
            for word in (repo, "vladva-tiny", "local-dir:", "HF_HUB_OFFLINE"):
                assert word in str(caught.value)
            assert isinstance(caught.value, RuntimeError)

    def test_an_adapter_whose_base_is_on_the_hub(self, adapter, tmp_path):
        data = json.loads((adapter / "vladva_config.json").read_text())
        data["base"].update(id="llava-hf/llava-1.5-7b-hf", revision="0" * 40)
        (adapter / "vladva_config.json").write_text(json.dumps(data))
        refused(adapter, "llava-hf/llava-1.5-7b-hf", "vladva-tiny", cache_dir=str(tmp_path / "cache"))

    @pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:a/b/c", "hf-hub:a b/c", "hf-hub:../up"])
    def test_no_hub_id(self, tmp_path, name):
        with pytest.raises(ValueError, match="Hub id"):
            vladva_clip.create_model(name, cache_dir=str(tmp_path))

    @pytest.mark.wide
    def test_a_network_that_is_down(self, tmp_path):
        """Not offline by choice: the address does not answer."""
        script = (
            "import vladva_clip\n"
            "try:\n"
            f"    vladva_clip.create_model('vladva', cache_dir={str(tmp_path)!r})\n"
            "except ValueError as error:\n"
            "    print(type(error).__name__, error)\n"
        )
        environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
        environment = {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=90
        )
        assert "SourceError llava-hf/llava-1.5-7b-hf" in ran.stdout or "SourceError the Hub" in ran.stdout, ran
        assert "vladva-tiny" in ran.stdout and "llava-hf/llava-1.5-7b-hf" in ran.stdout


def test_every_registered_hub_base_has_a_plain_id():
    for name in vladva_clip.list_models():
        base = registry.find(name).base
        assert base is None or len(base.split("/")) == 2
