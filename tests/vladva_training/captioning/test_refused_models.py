"""Models that `vladva-train caption` does not load: incomplete or pickled ones, and ones that come with their code."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.models.tiny_blip2 import write_blip2
from vladva_training.captioning.captioners import open_blip2, open_chat
from vladva_training.captioning.command import main as caption_main


def test_a_model_that_lacks_weights_is_refused(tmp_path):
    lacking = write_blip2(tmp_path / "lacking")
    tensors = load_file(lacking / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "query_tokens" not in name}
    save_file(kept, lacking / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="query_tokens"):
        open_blip2(str(lacking), "", "cpu", "fp32")


def test_pickled_weights_are_refused_with_another_way(tmp_path):
    pickled = write_blip2(tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="safetensors.*long_caption"):
        open_blip2(str(pickled), "", "cpu", "fp32")


def test_a_model_with_its_own_code_is_refused_with_another_way(tmp_path, capsys):
    """ShareGPT-4V's captioner is such a model: classes in files beside pickled weights."""
    model, mark = tmp_path / "share_captioner", tmp_path / "mark"
    model.mkdir()
    (model / "modeling_share_captioner.py").write_text(f"open({str(mark)!r}, 'w')\n")
    code = {"AutoConfig": "modeling_share_captioner.C", "AutoModelForCausalLM": "modeling_share_captioner.M"}
    config = {"architectures": ["M"], "auto_map": code, "model_type": "share_captioner"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ValueError, match="auto_map"):
        open_chat(str(model), "Describe it.", "cpu", "fp32")
    arguments = ["scenes:test:4", "--output", str(tmp_path / "out"), "--fill", "long", "--long-model", str(model)]
    assert caption_main([*arguments, "--tokenizer", "vladva-tiny", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    for said in (str(model), "auto_map", "its authors' own program", "long_caption", "docs/data.md"):
        assert said in error
    assert not mark.exists() and not (tmp_path / "out").exists()
