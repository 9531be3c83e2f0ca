"""Will it fit? The figures of `vladva models --fit`, against the models themselves and processes that run."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import measured_fit
from tests.support.models import mid_bases
from vladva_clip import cli
from vladva_clip.encoder import towers
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.interface import machine
from vladva_clip.sources import bases, fit, fit_table, profiles, registry
from vladva_clip.sources.room import Room, memory_of

GB = 10**9
TOLERANCE = 0.2  # of a whole process: the allocators of a CPU keep some of what was freed


@pytest.fixture
def room(tmp_path):
    return Room("cpu", 12 * GB, tmp_path, 10 * GB)


class TestArithmetic:
    def test_the_bounds_are_those_of_the_towers(self):
        elsewhere = towers.MICRO_BATCH_TOKENS_ELSEWHERE
        assert {**towers.MICRO_BATCH_TOKENS, "gpu": elsewhere} == fit.MICRO_BATCH_TOKENS

    def test_float16_is_left_out_where_the_family_overflows(self):
        for name in fit.names():
            family = backbone_class(registry.architecture(name)["model_type"])
            poor = {**family.poor_dtypes, **family.refused_dtypes}
            assert ("fp16" in fit.precisions(name)) == ("float16" not in poor), name

    @pytest.mark.parametrize("name", fit.names())
    def test_the_parts_of_a_figure(self, name):
        """Weights are the parameters times the bytes of the precision, downloads those of the stored dtype."""
        parameters = registry.facts(name).num_parameters
        for word, itemsize in (("fp32", 4), ("bf16", 2)):
            for device in ("cpu", "gpu"):
                found = fit.of(name, word, device)
                assert found.weights_bytes == parameters * itemsize
                assert 0.5 * GB < found.memory_bytes - found.weights_bytes < 9 * GB
        profile = registry.find(name).profile
        stated = profile.download_gb if profile else (0 if name == "vladva-tiny" else 2 * parameters / GB)
        assert found.download_bytes / GB == pytest.approx(stated, abs=0.06)
        assert found.disk_bytes == found.download_bytes or name == "vladva-tiny"

    @pytest.mark.parametrize("base_id", [base for base in bases._read() if base != "vladva-tiny"])
    def test_weights_are_those_of_the_architecture(self, base_id):
        facts, embedder = bases.find(base_id), profiles.of_repository(base_id)
        if embedder and (needed := profiles.missing_release(embedder)):
            pytest.skip(f"needs transformers {needed}")
        backbone = backbone_class(facts.config["model_type"]).from_config(facts.config, torch.bfloat16)
        assert sum(parameter.numel() for parameter in backbone.parameters()) == facts.num_parameters

    def test_a_registered_name_has_no_figure(self, monkeypatch, tmp_path):
        monkeypatch.setattr(registry, "_registered", {})
        registry.register("of-my-own", tmp_path)
        assert fit.of("of-my-own") is None

    def test_an_alias_and_another_word(self):
        assert fit.of("vladva", "pure_bf16") == fit.of("vladva-7b", "bf16") == fit.of("vladva-7b")
        with pytest.raises(ValueError, match="vladva-8b"):
            fit.of("vladva-8b")

    def test_what_was_measured_on_a_gpu(self):
        """LLaVA-1.5-7B, images of 336 pixels in bf16 on one H200: 1.5 GiB above the weights and the context."""
        found = fit.of("vladva-7b", "bf16", "gpu")
        above = found.memory_bytes - found.weights_bytes - fit.RUNTIME["gpu"]
        assert above == pytest.approx(1.5 * 2**30, rel=TOLERANCE)


class TestMeasured:
    @pytest.mark.wide
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_the_packaged_model_again(self, precision):
        """As stored, and as the arithmetic alone would say."""
        stored = fit.of("vladva-tiny", precision)
        assert stored.origin == "measured"
        measured = measured_fit.peak("vladva-tiny", precision)
        assert measured == pytest.approx(stored.memory_bytes, rel=0.15)
        assert measured == pytest.approx(
            stored.weights_bytes + fit.beside_weights("vladva-tiny", precision, "cpu"), rel=TOLERANCE
        )

    @pytest.mark.wide
    @pytest.mark.parametrize(("family", "precision"), [("llava", "fp32"), ("qwen2_vl", "bf16")])
    def test_a_process_that_loads_a_model_of_a_middle_size(self, tmp_path, monkeypatch, family, precision):
        """Weights and activations outweigh the tolerance, so that neither can be dropped."""
        monkeypatch.setattr(fit, "BATCH", 16)
        folder = mid_bases.write(tmp_path / "base", family, 150_000, 1024)
        other = torch.bfloat16 if precision == "fp32" else torch.float32  # cast, all weights lie in memory of their own
        tensors = {name: tensor.to(other) for name, tensor in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        config, size = json.loads((folder / "config.json").read_text()), mid_bases.config(family)[1]
        weights = fit.ITEMSIZE[precision] * sum(tensor.numel() for tensor in tensors.values())
        working = fit.working_bytes(config, size, fit.ITEMSIZE[precision], "cpu")
        predicted = fit.RUNTIME["cpu"] + weights + working
        measured = measured_fit.peak(f"local-dir:{folder}", precision, images=16, texts=16)
        assert measured == pytest.approx(predicted, rel=TOLERANCE)
        for part in (weights, fit.RUNTIME["cpu"]):
            assert measured != pytest.approx(predicted - part, rel=TOLERANCE)


class TestTable:
    def test_which_fit(self, room):
        rows = {(row["name"], row["precision"]): row for row in fit_table.fit_rows(room)}
        assert set(rows) == {(name, word) for name in fit.names() for word in fit.precisions(name)}
        assert rows["vladva-2b", "bf16"]["fits_memory"] and rows["vladva-2b", "bf16"]["fits_disk"]
        assert not rows["vladva-7b", "bf16"]["fits_memory"] and not rows["vladva-7b", "bf16"]["fits_disk"]
        assert all(row["fits_memory"] == (row["memory_bytes"] <= 12 * GB) for row in rows.values())
        assert json.dumps(list(rows.values()))

    def test_the_lines(self, room):
        lines = fit_table.fit_lines(room)
        found = {re.split(r" {2,}", line)[0]: re.split(r" {2,}", line)[1:] for line in lines if "  " in line}
        assert set(found) == {"model", *fit.names()}
        assert "12.0 GB free" in lines[0] and "10.0 GB free" in lines[0]
        assert found["vladva-7b"][0] == "14.1 GB" and found["vladva-7b"][-1] == "no: disk"
        assert found["vladva-2b"][0] == "4.4 GB" and found["vladva-2b"][3:] == ["-", "fp32, bf16"]
        assert found["vladva-tiny"][0] == "packaged" and not found["vladva-tiny"][1].startswith("~")
        assert all(one[2].startswith("~") for name, one in found.items() if name not in ("model", "vladva-tiny"))
        assert max(map(len, lines)) <= 120

    def test_memory_alone_is_missing(self, tmp_path):
        lines = fit_table.fit_lines(Room("cpu", GB // 2, tmp_path, 100 * GB))
        assert next(line for line in lines if line.startswith("vladva-13b")).endswith("no: memory")

    def test_the_command_asks_this_machine(self, capsys, monkeypatch):
        monkeypatch.setattr(machine, "available_memory", lambda: 5 * GB)
        assert memory_of("cpu") == 5 * GB
        assert cli.main(["models", "--fit"]) == 0
        printed = capsys.readouterr().out
        if not torch.cuda.is_available():
            assert "memory of cpu: 5.0 GB free" in printed
        assert all(name in printed for name in fit.names())


def test_files_with_parts_that_are_not_loaded():
    """Those of EmbeddingGemma 2 hold its audio tower: 744,371,992 parameters (mteb), two bytes each."""
    download, disk = fit.stored_bytes("embeddinggemma-2")
    assert download == disk == pytest.approx(2 * 744_371_992, rel=0.01)
    assert fit.of("embeddinggemma-2", "bf16").weights_bytes == 2 * 438_760_448


def test_profiles_state_whole_bytes_per_parameter():
    """`fit` rounds what a profile states to 0.1 GB to the bytes of a stored dtype."""
    whole = [one for one in profiles.packaged() if one.name != "embeddinggemma-2"]
    assert len(whole) == len(profiles.packaged()) - 1
    for profile in whole:
        adapter = 4 * profile.adapter.get("num_parameters", 0)
        exact = (profile.download_gb * GB - adapter) / profile.num_parameters
        assert exact == pytest.approx(round(exact), abs=0.03) and round(exact) in (2, 4)
