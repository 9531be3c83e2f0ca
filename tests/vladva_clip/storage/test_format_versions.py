"""Stored adapters of every format version stay readable; of a version that isn't known, the release that reads it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vladva_clip
from tests.support import adapters
from vladva_clip.storage import adapter_files
from vladva_clip.storage.config import FORMAT_VERSION, VladvaConfig

FIXTURES = Path(__file__).parents[2] / "fixtures"
VERSIONS = range(1, FORMAT_VERSION + 1)
SOFT_TOKENS = {
    "adapter_format_1": 15,
    "adapter_format_2": 7,
    "adapter_format_3": 7,
}  # the whole template; the hand-written prompt alone


@pytest.fixture(params=VERSIONS)
def stored(request) -> Path:
    return FIXTURES / f"adapter_format_{request.param}"


def test_it_reads(stored):
    read = adapter_files.read(stored)
    assert read.config.base.id == "local-dir:base" and read.config.embed_dim == 32
    shape = (SOFT_TOKENS[stored.name], 32)
    assert {side: tuple(tensor.shape) for side, tensor in read.soft_prompt.items()} == {"image": shape, "text": shape}
    assert len(read.lora) == 8 and read.lora_config["r"] == 2


def test_it_loads_with_the_features_it_was_stored_with(stored, bases, tmp_path):
    adapter = Path(shutil.copytree(stored, tmp_path / "adapter"))
    config = json.loads((adapter / adapter_files.CONFIG).read_text())
    config["base"] |= {"id": f"local-dir:{bases['llava']}", "fingerprint": None}
    (adapter / adapter_files.CONFIG).write_text(json.dumps(config))
    model, _ = vladva_clip.create_model(f"local-dir:{adapter}", precision="fp32", merge_lora=False)
    expected = load_file(FIXTURES / f"{stored.name}.features.safetensors")
    for side, found in zip(("image", "text"), adapters.features(model), strict=True):
        torch.testing.assert_close(found, expected[side], rtol=0, atol=1e-4)


def test_the_first_version_with_what_a_later_one_states_is_refused():
    """Its soft slots and ids are fixed: a file that says otherwise was not written by that release."""
    data = json.loads((FIXTURES / "adapter_format_2" / adapter_files.CONFIG).read_text())
    assert VladvaConfig.from_dict(data)
    with pytest.raises(ValueError, match="unknown key '.*; format version 1 has image_template"):
        VladvaConfig.from_dict({**data, "format_version": 1})


def test_what_is_written_now_has_the_files_and_keys_of_the_stored_one(bases, tmp_path):
    """A change of the format needs a new version, and a fixture of its own."""
    stored = FIXTURES / f"adapter_format_{FORMAT_VERSION}"
    adapters.write_adapter(bases["llava"], tmp_path, r=2)
    assert {path.name for path in stored.iterdir()} <= {path.name for path in tmp_path.iterdir()}
    for name in (adapter_files.CONFIG, adapter_files.OPEN_CLIP_CONFIG):
        old, new = (keys(json.loads((directory / name).read_text())) for directory in (stored, tmp_path))
        assert old == new
    for name in (adapter_files.SOFT_PROMPT, adapter_files.LORA):
        old, new = (load_file(directory / name) for directory in (stored, tmp_path))
        assert {key: tensor.shape for key, tensor in old.items()} == {key: tensor.shape for key, tensor in new.items()}


def keys(data) -> dict:
    return {key: keys(value) for key, value in data.items()} if isinstance(data, dict) else {}


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, 1.0, True, "1", None])
@pytest.mark.parametrize(
    ("writer", "advice"),
    [
        ("0.7.2", "0.7.2"),
        (None, "doesn't name it"),
        ("'; rm", "doesn't name it"),
        (7, "doesn't name it"),
    ],
)
def test_an_unknown_version_is_refused_with_the_release_that_reads_it(tmp_path, version, writer, advice):
    directory = Path(shutil.copytree(FIXTURES / "adapter_format_1", tmp_path / "adapter"))
    config = json.loads((directory / adapter_files.CONFIG).read_text())
    config |= {"format_version": version, "written_by": writer, "a_key_to_come": {}}
    (directory / adapter_files.CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError) as caught:
        adapter_files.read(directory)
    said = str(caught.value)
    assert f"format_version is {version!r}" in said and vladva_clip.__version__ in said and "install" in said
    assert advice in said and "rm" not in said.split("install")[1]
