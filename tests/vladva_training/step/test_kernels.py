"""Settings that a machine can't compute are refused in one line, before a model is loaded or a directory created."""

import subprocess
import sys

import pytest
import torch

from tests.support.training.steps import section
from vladva_training.cli import main
from vladva_training.overrides import apply
from vladva_training.recipes import debug
from vladva_training.step import kernels
from vladva_training.step.kernels import check_attention, check_kernels
from vladva_training.step.trainable import load_trainable

SAID = {
    "flash_attention_2": "flash-attn, which is not installed (pip install flash-attn",
    "flash_attention_3": "flash-attn-3, which is not installed",
    "flash_attention_4": "flash-attn-4, which is not installed (pip install flash-attn-4",
    "flex_attention": "a CUDA device",
    "paged|eager": "paged cache",
    "paged|sdpa": "paged cache",
    "kernels-community/flash-attn2": "kernel",
    "kernels-community/flash-attn3@main:attn": "kernel",
    "flash": "does not know",
    "SDPA": "does not know",
    "0": "does not know",
}


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("dry", [False, True])
def test_an_attention_that_cannot_train_here_is_one_line_and_status_2(name, dry, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vladva_training.step.trainable.load_trainable", None)  # must not be reached
    words = ["debug", f"model.attention={name}", f"output_dir={tmp_path / 'run'}", "--device", "cpu"]
    assert main(words + ["--dry-run"] * dry) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"error: model.attention is {name!r}, ")
    assert SAID[name] in err and "sdpa" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["none", "eager", "sdpa"])
def test_attentions_that_run_everywhere_pass(name):
    check_kernels(apply(debug(), [f"model.attention={name}"]), "cpu")


def test_on_cuda_only_missing_packages_are_listed(monkeypatch):
    with pytest.raises(ValueError, match="flash-attn, which is not installed") as error:
        check_attention("flash_attention_2", "cuda")
    assert "CUDA device" not in str(error.value)
    check_attention("flex_attention", "cuda")
    monkeypatch.setattr(kernels, "_is_installed", lambda module: True)
    check_attention("flash_attention_2", "cuda")
    with pytest.raises(ValueError, match="needs a CUDA device"):
        check_attention("flash_attention_2", "mps")


@pytest.mark.parametrize("words", [["model.precision=fp32"], ["model.train=full", "model.precision=bf16"]])
def test_flash_attention_of_float32_is_refused(monkeypatch, words):
    monkeypatch.setattr(kernels, "check_attention", lambda name, device_type: None)
    with pytest.raises(ValueError, match=f"float32.*{words[0]}"):
        check_kernels(apply(debug(), ["model.attention=flash_attention_2", *words]), "cpu")


def test_later_refusals_of_transformers_are_value_errors_too(bases):
    """For example an installed package that does not work: transformers raises ImportError."""
    with pytest.raises(ValueError, match="model.attention is 'flash_attention_2', which can't be used .*sdpa"):
        load_trainable(section(bases["llava"], precision="bf16", attention="flash_attention_2"))
    with pytest.raises(ValueError, match="torch.float32: set model.precision=bf16"):
        load_trainable(section(bases["llava"], precision="fp32", attention="flash_attention_2"))


def test_a_registered_attention_is_known():
    from transformers import AttentionInterface

    AttentionInterface.register("my_attention", lambda *arguments, **options: None)
    try:
        check_attention("my_attention", "cpu")
    finally:
        AttentionInterface._global_mapping.pop("my_attention")


def test_a_missing_compiler_is_one_line(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: failing)
    with pytest.raises(ValueError, match=r"model.compile is true.*InvalidCxxCompiler: No working.*install a C\+\+"):
        check_kernels(apply(debug(), ["model.compile=true"]), "cpu")


class InvalidCxxCompiler(RuntimeError):
    pass


def failing(tensor):
    raise InvalidCxxCompiler("No working C++ compiler found\nand a second line")


@pytest.mark.slow
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_missing_compiler_is_reported_before_the_model_is_loaded(tmp_path, dry):
    environment = {"PATH": str(tmp_path), "CXX": str(tmp_path / "g++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "c")}
    command = [sys.executable, "-m", "vladva_training.cli", "debug", "model.compile=true", *dry]
    done = subprocess.run(
        [*command, f"output_dir={tmp_path / 'run'}"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: model.compile is true, but torch.compile does not work here")
    assert "install a C++ compiler" in last and not (tmp_path / "run").exists()
