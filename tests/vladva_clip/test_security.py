"""Directories from strangers: files, links, paths, JSON, headers. What is read, and what is refused by name."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

import vladva_clip
from tests.support import fuzz, memory, refusals
from vladva_clip.encoder.loading import locate_base_of
from vladva_clip.sources.locate import Source, SourceError
from vladva_clip.storage import adapter_files, json_files, weights
from vladva_clip.storage.allowed_files import ARCHIVES, PICKLES, PROGRAMS
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.tensor_files import TensorHeader, read_header


def refused_by_read(directory: Path, *words: object) -> None:
    refusals.refused(directory, *words, call=lambda: adapter_files.read(directory))


class TestKindsOfFiles:
    @pytest.mark.parametrize(
        "name", ["model.bin", "M.PT", "a.npz", "setup.py", "hook.SO", "run.sh", "all.tar.gz", "a.zip"]
    )
    def test_what_runs_or_hides_code_is_refused(self, honest_copy, name):
        (honest_copy / name).write_bytes(b"x")
        refused_by_read(honest_copy, name, "refused", honest_copy)

    def test_a_link_to_a_pickle_is_one(self, honest_copy, tmp_path):
        (tmp_path / "harmless.txt").write_text("x")
        (honest_copy / "x.pkl").symlink_to(tmp_path / "harmless.txt")
        refused_by_read(honest_copy, "x.pkl", "pickles")

    def test_what_a_user_keeps_is_left_alone(self, honest_copy):
        for name in ("holiday.jpg", "README.md", "notes", "training_record.json", ".gitattributes", "a.parquet"):
            (honest_copy / name).write_text("not even one")
        for name in (".cache/huggingface", "results", "old.zip"):
            (honest_copy / name).mkdir(parents=True)
        (honest_copy / "results/probe.py").write_text("x")  # folders are not looked into, as nothing in them is opened
        assert adapter_files.read(honest_copy).lora

    def test_no_kind_is_one_that_we_write(self):
        suffixes = {*PICKLES, *PROGRAMS, *ARCHIVES}
        assert not suffixes & {".json", ".safetensors", ".md", ".jinja", ".model", ".txt"}

    def test_no_directory(self, tmp_path):
        refused_by_read(tmp_path / "nowhere", "nowhere", "directory")
        (tmp_path / "file").write_text("x")
        refused_by_read(tmp_path / "file", "file", "directory")


class TestLinks:
    def snapshot(self, honest: Path, cache: Path, shared: bool) -> Path:
        """Lay an adapter out as the Hub's cache does: links to blobs, which may be links to the cache's own store."""
        repo = cache / "models--org--adapter"
        snapshot, blobs = repo / "snapshots" / ("a" * 40), repo / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir()
        for number, path in enumerate(sorted(honest.iterdir())):
            blob = blobs / f"etag{number}"
            if shared:
                store = cache / "blobs" / "ab" / f"hash{number}"
                store.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, store)
                blob.symlink_to(os.path.relpath(store, blobs))
            else:
                shutil.copyfile(path, blob)
            (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
        return snapshot

    @pytest.mark.parametrize("shared", [False, True])
    def test_a_snapshot_of_the_hubs_cache_reads(self, honest, tmp_path, shared):
        snapshot = self.snapshot(honest, tmp_path / "cache", shared)
        assert adapter_files.read(snapshot).config == adapter_files.read(honest).config
        (tmp_path / "link").symlink_to(snapshot)  # and the directory itself may be a link
        assert adapter_files.read(tmp_path / "link").lora

    def test_a_snapshot_that_leads_out_does_not(self, honest, tmp_path):
        snapshot = self.snapshot(honest, tmp_path / "cache", False)
        (tmp_path / "secret").write_text('{"password": 1}')
        (snapshot / adapter_files.LORA_CONFIG).unlink()
        (snapshot / adapter_files.LORA_CONFIG).symlink_to(tmp_path / "secret")
        refused_by_read(snapshot, adapter_files.LORA_CONFIG, "outside")

    @pytest.mark.parametrize("name", adapter_files.FILES)
    def test_out_of_a_plain_directory(self, honest_copy, tmp_path, name):
        os.replace(honest_copy / name, tmp_path / name)
        (honest_copy / name).symlink_to(tmp_path / name)
        refused_by_read(honest_copy, name, "outside the adapter", tmp_path / name)

    def test_within_it_is_fine(self, honest_copy):
        (honest_copy / "store").mkdir()
        os.replace(honest_copy / adapter_files.LORA, honest_copy / "store/lora")
        (honest_copy / adapter_files.LORA).symlink_to("store/lora")
        assert adapter_files.read(honest_copy).lora

    @pytest.mark.parametrize("target", ["nowhere", adapter_files.CONFIG])
    def test_to_nothing_and_to_itself(self, honest_copy, target):
        (honest_copy / adapter_files.CONFIG).unlink()
        (honest_copy / adapter_files.CONFIG).symlink_to(target)
        refused_by_read(honest_copy, adapter_files.CONFIG, "link to nothing")

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
    def test_no_file(self, honest_copy, make):
        (honest_copy / adapter_files.LORA).unlink()
        make(honest_copy / adapter_files.LORA)
        refused_by_read(honest_copy, adapter_files.LORA, "is not a file")

    def test_not_even_for_the_tokenizer(self, honest_copy, tmp_path):
        """The config alone is read before the rest, or without it."""
        (tmp_path / "secret").write_text('{"password": 1}')
        (honest_copy / adapter_files.CONFIG).unlink()
        (honest_copy / adapter_files.CONFIG).symlink_to(tmp_path / "secret")
        with pytest.raises(ValueError, match="outside") as caught:
            adapter_files.read_config(honest_copy)
        assert "password" not in str(caught.value)


class TestNamedBase:
    def edit(self, adapter: Path, **base) -> None:
        data = json.loads((adapter / adapter_files.CONFIG).read_text())
        data["base"] |= base
        (adapter / adapter_files.CONFIG).write_text(json.dumps(data))

    @pytest.mark.parametrize(
        "name",
        ["../up", "a/../b", "/etc", "a/b/c", "local-dir:../up", "local-dir:/a/../b", "local-dir:a\\..\\b", "", "~"],
    )
    def test_by_a_path_that_leads_elsewhere(self, honest_copy, name):
        self.edit(honest_copy, id=name)
        refused_by_read(honest_copy, adapter_files.CONFIG, repr(name), "ORG/REPO")

    @pytest.mark.parametrize("name", ["vladva-tiny", "org/base.v1-2", "hf-hub:org/base@v1", "local-dir:/models/base"])
    def test_by_a_name(self, honest_copy, name):
        self.edit(honest_copy, id=name)
        assert adapter_files.read(honest_copy).config.base.id == name

    @pytest.mark.parametrize("revision", ["../../x", "a/../b", "/etc", "a b", "\0"])
    def test_revision(self, honest_copy, revision):
        self.edit(honest_copy, revision=revision)
        refused_by_read(honest_copy, "revision", repr(revision))

    def test_an_adapter_from_the_hub_names_no_place_on_this_disk(self, honest_copy, tmp_path):
        self.edit(honest_copy, id=f"local-dir:{tmp_path}")
        config = adapter_files.read_config(honest_copy)
        with pytest.raises(ValueError, match="org/adapter .*local-dir:.*Hub id"):
            locate_base_of(Source(honest_copy, "org/adapter", "a" * 40), config)
        assert locate_base_of(Source(honest_copy, f"local-dir:{honest_copy}"), config).directory == tmp_path
        self.edit(honest_copy, id=f"local-dir:{tmp_path / 'gone'}")
        with pytest.raises(SourceError, match="directory"):
            locate_base_of(Source(honest_copy, f"local-dir:{honest_copy}"), adapter_files.read_config(honest_copy))


class TestJson:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("[" * 33 + "]" * 33, "deep"),
            ("[" * 900_000, "deep"),
            ('{"a":' * 40_000, "deep"),
            ("[" + "0," * 40_000 + "0]", "values"),
            (" " * json_files.MAX_BYTES + "{}", "bytes"),
            ('{"a": {"b": 1, "c": 2, "b": 1}}', "'b'"),
            ("[NaN]", "NaN"),
            ("[-Infinity]", "Infinity"),
            ("[1e999]", "not finite"),
            ("[9223372036854775808]", "64 bits"),
            ("[" + "9" * 100_000 + "]", "64 bits"),
            ('"' + '\\"' * 400_000 + "\\", "Unterminated"),  # a scanner that backtracks would take hours
            ("", "empty"),
        ],
    )
    def test_refused(self, text, reason):
        with pytest.raises(ValueError, match=reason):
            json_files.parse(text.encode())

    def test_brackets_in_strings_are_not_depth(self):
        data = {"a": "[" * 1000 + '"\\' + "{" * 1000, "b": [[[1, -2.5, None, True]]], "c": -(1 << 63) + 1}
        assert json_files.parse(json.dumps(data).encode()) == data
        assert json_files.parse(b"[" * 32 + b"]" * 32)

    @pytest.mark.parametrize("name", [adapter_files.CONFIG, adapter_files.LORA_CONFIG])
    def test_the_file_is_named(self, honest_copy, name):
        (honest_copy / name).write_text('{"r": 1, "r": 2}')
        refused_by_read(honest_copy, honest_copy / name, "'r'")


class TestTensorHeader:
    def test_equals_what_safetensors_reads(self, honest):
        path = honest / adapter_files.LORA
        tensors = load_file(path)
        assert read_header(path) == {name: TensorHeader("F32", tuple(tensor.shape)) for name, tensor in tensors.items()}

    def test_of_every_kind(self, tmp_path):
        tensors = {"empty": torch.zeros(0, 3), "scalar": torch.tensor(1.0, dtype=torch.bfloat16)}
        tensors |= {"bytes": torch.zeros(2, 3, dtype=torch.uint8), "half": torch.zeros(5, dtype=torch.float16)}
        (tmp_path / "x.safetensors").write_bytes(save(tensors))
        found = read_header(tmp_path / "x.safetensors")
        assert {name: header.shape for name, header in found.items()} == {n: tuple(t.shape) for n, t in tensors.items()}
        assert [found[name].dtype for name in ("empty", "scalar", "bytes", "half")] == ["F32", "BF16", "U8", "F16"]

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}, "16 bytes"),
            ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, "offsets are 4 and 12"),
            ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, "take 4 bytes, but the file has 16"),
            ({n: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for n in "ab"}, "offsets are 0 and 16"),
            ({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 16]}}, "bytes from 0"),
            ({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, "shape"),
            ({"a": {"dtype": "F1", "shape": [4], "data_offsets": [0, 16]}}, "dtype"),
            ({"a": {"dtype": "F32", "shape": [4]}}, "data_offsets"),
            ({"a": [1]}, "data_offsets"),
            ([], "not an object"),
        ],
    )
    def test_that_lies(self, tmp_path, header, reason):
        text = json.dumps(header).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
        with pytest.raises(ValueError, match=f"x.safetensors.*{reason}.*get it again"):
            read_header(path)

    def test_a_header_of_terabytes_in_a_file_of_terabytes(self, tmp_path):
        path = tmp_path / "x.safetensors"
        path.write_bytes((1 << 39).to_bytes(8, "little"))
        os.truncate(path, 1 << 40)  # all hole
        with pytest.raises(ValueError, match=f"{1 << 39} bytes.*{json_files.MAX_BYTES}"):
            read_header(path)


class TestLoraShapes:
    def change(self, adapter: Path, ending: str, shape: tuple[int, ...]) -> str:
        tensors = load_file(adapter / adapter_files.LORA)
        name = next(name for name in sorted(tensors) if name.endswith(ending))
        (adapter / adapter_files.LORA).write_bytes(save(tensors | {name: torch.zeros(shape)}))
        return name

    @pytest.mark.parametrize(
        ("ending", "shape"),
        [
            ("q_proj.lora_A.weight", (fuzz.RANK + 1, fuzz.WIDTH)),
            ("q_proj.lora_B.weight", (fuzz.WIDTH, fuzz.RANK - 1)),
            ("q_proj.lora_A.weight", (fuzz.RANK, fuzz.WIDTH + 8)),
            ("q_proj.lora_A.weight", (fuzz.RANK,)),
        ],
    )
    def test_against_the_rank_and_the_width(self, honest_copy, ending, shape):
        name = self.change(honest_copy, ending, shape)
        refused_by_read(honest_copy, "1 ", name, shape, f"rank {fuzz.RANK}", f"width {fuzz.WIDTH}")

    def test_a_rank_of_some_modules(self, honest_copy):
        self.change(honest_copy, "q_proj.lora_A.weight", (3, fuzz.WIDTH))
        data = json.loads((honest_copy / adapter_files.LORA_CONFIG).read_text())
        (honest_copy / adapter_files.LORA_CONFIG).write_text(json.dumps(data | {"rank_pattern": {"q_proj": 3}}))
        assert adapter_files.read(honest_copy).lora


class TestBases:
    @pytest.mark.parametrize(
        "name", ["..", "", "config.json", "a\\b.safetensors", "c:x.safetensors", "pytorch_model.bin"]
    )
    def test_an_index_that_names_something_else(self, tmp_path, name):
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / weights.INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ValueError, match="outside"):
            _ = BaseFiles(tmp_path).headers

    @pytest.mark.parametrize(("rows", "word"), [(1 << 30, "at most"), (1 << 20, "384")])
    def test_a_config_of_a_model_far_larger_than_its_files(self, bases, tmp_path, rows, word):
        """Refused before a byte of what its embedding would take."""
        directory = Path(shutil.copytree(bases["llava"], tmp_path / "base"))
        config = json.loads((directory / "config.json").read_text())
        config["text_config"]["vocab_size"] = rows
        (directory / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=word), memory.LiveBytes() as live:
            vladva_clip.create_model(f"local-dir:{directory}")
        assert live.peak < 1 << 20

    @pytest.mark.parametrize(
        "file", ["config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"]
    )
    def test_code_of_a_bases_own_is_refused_and_never_run(self, bases, tmp_path, file):
        directory = Path(shutil.copytree(bases["llava"], tmp_path / "base"))
        (directory / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass T: ...\n")
        data = json.loads((directory / file).read_text())
        maps = {name: "evil.T" for name in ("AutoConfig", "AutoProcessor", "AutoImageProcessor", "AutoModel")}
        data |= {"auto_map": maps | {"AutoTokenizer": ["evil.T", "evil.T"]}}
        (directory / file).write_text(json.dumps(data))
        with pytest.raises(ValueError, match="auto_map"):
            vladva_clip.export_model(directory, tmp_path / "out")  # reads all of them
        assert not (tmp_path / "ran").exists()


def test_a_lora_that_asks_for_a_module_of_its_choice(bases, tmp_path):
    """PEFT would import it."""
    from tests.support import adapters

    adapters.write_adapter(bases["llava"], tmp_path)
    data = json.loads((tmp_path / adapter_files.LORA_CONFIG).read_text())
    data |= {"megatron_config": {"a": 1}, "megatron_core": "this"}
    (tmp_path / adapter_files.LORA_CONFIG).write_text(json.dumps(data))
    with pytest.raises(ValueError, match="megatron_config"):
        vladva_clip.create_model(f"local-dir:{tmp_path}")
