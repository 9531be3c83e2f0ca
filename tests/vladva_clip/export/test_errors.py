"""What can't be exported is refused with what to do, and nothing half written stands under the final name."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor

import vladva_clip
from tests.support import adapters
from tests.support.edits import edit_json as edit
from tests.support.models import tiny_bases
from vladva_clip import cli


@pytest.fixture(scope="module")
def files(bases, tmp_path_factory) -> Path:
    """A LLaVA base and an adapter of it."""
    root = tmp_path_factory.mktemp("export-errors")
    shutil.copytree(bases["llava"], root / "base")
    adapters.write_adapter(root / "base", root / "adapter")
    return root


@pytest.fixture
def root(files, tmp_path) -> Path:
    """The same, for a test to break; the adapter names this base."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "adapter" / "vladva_config.json").read_text())
    config["base"]["id"] = f"local-dir:{tmp_path / 'base'}"
    (tmp_path / "adapter" / "vladva_config.json").write_text(json.dumps(config))
    return tmp_path


def refused_export(root: Path, match: str, source: str = "adapter", output: str = "out", **options) -> None:
    before = sorted(root.rglob("*"))
    with pytest.raises(ValueError, match=match):
        vladva_clip.export_model(root / source, root / output, **options)
    assert sorted(root.rglob("*")) == before


def loaded(root: Path) -> dict[str, torch.Tensor]:
    """The base's tensors in memory: `load_file` maps the file, which a test overwrites."""
    return {name: t.clone() for name, t in load_file(root / "base" / "model.safetensors").items()}


def test_a_missing_base(root):
    shutil.rmtree(root / "base")
    refused_export(root, f"{root / 'base'} ")


def test_a_base_that_is_not_in_the_cache(root):
    config = json.loads((root / "adapter" / "vladva_config.json").read_text())
    edit(root / "adapter" / "vladva_config.json", base={**config["base"], "id": "org/nowhere"})
    refused_export(root, "org/nowhere .*HF_HUB_OFFLINE")


def test_an_adapter_of_another_revision(root):
    """Both fingerprints are shown."""
    tiny_bases.write_llava(root / "base", seed=1)
    refused_export(root, r"sha256:\w+.* sha256:\w+.*revision")


def test_an_adapter_of_another_family_or_width_without_a_fingerprint(root):
    config = json.loads((root / "adapter" / "vladva_config.json").read_text())
    base = {**config["base"], "fingerprint": None}
    edit(root / "adapter" / "vladva_config.json", base={**base, "family": "qwen2_vl"})
    refused_export(root, "'qwen2_vl'.*'llava'")
    edit(root / "adapter" / "vladva_config.json", base=base, embed_dim=16)
    soft = load_file(root / "adapter" / "soft_prompt.safetensors")
    narrow = {side: t[:, :16].clone() for side, t in soft.items()}
    save_file(narrow, root / "adapter" / "soft_prompt.safetensors")
    refused_export(root, "width.* 32.*embed_dim.* 16")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (root / "adapter" / name).unlink()
    refused_export(root, "width.* 32.*embed_dim.* 16")


def test_a_directory_that_is_no_model(root):
    (root / "empty").mkdir()
    refused_export(root, "vladva_config.json .*config.json", source="empty")


def test_a_quantized_base(root):
    """By its config, and by its tensors."""
    edit(root / "base" / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    refused_export(root, "quantization_config.*bitsandbytes.*refused", source="base")
    config = json.loads((root / "base" / "config.json").read_text())
    del config["quantization_config"]
    (root / "base" / "config.json").write_text(json.dumps(config))
    tensors = loaded(root)
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    save_file({**tensors, name: tensors[name].to(torch.uint8)}, root / "base" / "model.safetensors")
    refused_export(root, "is U8.*quantized", source="base")


def test_weights_that_do_not_fill_the_model(root):
    tensors = loaded(root)
    name = next(name for name in tensors if name.endswith("up_proj.weight"))
    save_file({key: t for key, t in tensors.items() if key != name}, root / "base" / "model.safetensors")
    refused_export(root, "config.json.*missing_keys: .*up_proj.weight", source="base")
    save_file({**tensors, "extra.weight": torch.zeros(2)}, root / "base" / "model.safetensors")
    refused_export(root, "unexpected_keys: extra.weight", source="base")
    save_file({**tensors, name: tensors[name][1:].clone()}, root / "base" / "model.safetensors")
    refused_export(root, "mismatched_keys: .*up_proj.weight", source="base")


def test_one_tensor_under_two_names(root):
    tensors = loaded(root)
    name = next(name for name in tensors if name.endswith("layers.0.mlp.up_proj.weight"))
    other = "model.language_model.layers.0.mlp.up_proj.weight"
    assert name != other
    save_file({**tensors, other: tensors[name].clone()}, root / "base" / "model.safetensors")
    refused_export(root, "unexpected_keys: .*up_proj.weight", source="base")


def test_an_adapter_whose_images_are_not_the_processors(root):
    config = json.loads((root / "adapter" / "vladva_config.json").read_text())
    edit(root / "adapter" / "vladva_config.json", image={**config["image"], "resize_mode": "squash"})
    refused_export(root, "resize_mode='squash'.*processor.*'shortest'")


def test_a_base_without_a_chat_template(root):
    (root / "base" / "chat_template.jinja").unlink()
    refused_export(root, "no chat template", source="base")


def test_a_processor_that_does_not_belong_to_its_model(root):
    edit(root / "base" / "processor_config.json", patch_size=28)
    refused_export(root, "'an image'.*processor_config.json", source="base")


def test_an_export_of_an_export(root):
    out = vladva_clip.export_model(root / "adapter", root / "out")
    refused_export(root, f"{root / 'out'} is already an export", source="out", output="again")
    (out / "vladva_export.json").unlink()
    refused_export(root, "published embedder.*modules.json", source="out", output="again")


def test_an_existing_output_is_replaced_only_when_asked_and_only_an_export(root):
    (root / "out").mkdir()
    (root / "out" / "thesis.txt").write_text("years of work")
    refused_export(root, "out .*--overwrite")
    refused_export(root, "--overwrite", overwrite=True)
    (root / "out" / "thesis.txt").unlink()
    vladva_clip.export_model(root / "adapter", root / "out", overwrite=True)
    (root / "out" / "README.md").write_text("mine")
    refused_export(root, f"{root / 'out'} .*--overwrite")
    refused_export(root, "README.md", overwrite=True)
    (root / "out" / "README.md").unlink()
    (root / "out" / "model-00001-of-00002.safetensors").write_text("of the earlier export")
    vladva_clip.export_model(root / "adapter", root / "out", overwrite=True)
    assert not (root / "out" / "model-00001-of-00002.safetensors").exists()
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("output", ["base", "adapter", "."])
def test_an_output_that_holds_what_is_exported(root, output):
    refused_export(root, f"contains .*{root}", output=output, overwrite=True)


@pytest.mark.parametrize("output", ["/proc/export", "file/export"])
def test_a_place_where_no_directory_can_be_made(root, output):
    """/proc is read-only for everyone, root too."""
    (root / "file").write_text("")
    refused_export(root, "choose another", output=output)


@pytest.mark.wide
def test_a_full_disk_leaves_the_earlier_export_and_nothing_else(root):
    """In a process whose files can't grow: what a write then meets is a real OSError."""
    out = vladva_clip.export_model(root / "adapter", root / "out")
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    code = (
        "import sys; from vladva_clip.cli import main; _, adapter, *outputs = sys.argv;"
        "print([main(['export', adapter, output, '--overwrite']) for output in outputs])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, root / "adapter", out, root / "new"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        capture_output=True,
        text=True,
    )
    assert ran.stdout.strip() == "[2, 2]", ran.stderr
    lines = [line for line in ran.stderr.splitlines() if line.startswith("vladva: ")]
    assert len(lines) == 2 and all("can't be written" in line for line in lines) and "Traceback" not in ran.stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == kept
    assert sorted(os.listdir(root)) == ["adapter", "base", "out"]


def test_the_command(root, capsys):
    arguments = ["export", str(root / "adapter"), str(root / "out")]
    assert cli.main([*arguments, "--precision", "fp32", "--max-shard-size", "100KB"]) == 0
    assert capsys.readouterr().out.strip() == str(root / "out")
    assert len(list((root / "out").glob("model-*.safetensors"))) > 1
    assert AutoProcessor.from_pretrained(root / "out").chat_template["embed"]
    assert cli.main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*arguments, "--overwrite", "--max-shard-size", "tiny"]) == 2
    assert "max_shard_size is 'tiny'" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["file/out", "there"])
def test_a_place_for_no_export_is_found_before_anything_is_read(tmp_path, output, capsys):
    """The adapter isn't there either, which would be found next."""
    (tmp_path / "file").touch()
    (tmp_path / "there").mkdir()
    assert cli.main(["export", str(tmp_path / "no-adapter"), str(tmp_path / output)]) == 2
    said = capsys.readouterr().err
    assert "choose another" in said and "no-adapter" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]
