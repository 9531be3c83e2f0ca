"""Adapters and bases of each family, as shared ones that stay as they are and as copies that a test may change."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def adapter_and_writer(base, tmp_path_factory):
    """(the directory of an adapter of each base, the fp32 model that wrote it, with its LoRA unmerged)."""
    from tests.support import adapters

    directory = tmp_path_factory.mktemp("written") / "adapter"
    return directory, adapters.write_adapter(base, directory)


@pytest.fixture(scope="session")
def written_adapter(adapter_and_writer) -> Path:
    """The adapter's directory for fixtures of a wider scope: nobody may change it."""
    return adapter_and_writer[0]


@pytest.fixture(scope="session")
def writer(adapter_and_writer):
    """The model that wrote the adapter: nobody may change it."""
    return adapter_and_writer[1]


@pytest.fixture
def adapter(written_adapter, tmp_path_factory) -> Path:
    """An adapter of each base that a test may break, outside its tmp_path."""
    return Path(shutil.copytree(written_adapter, tmp_path_factory.mktemp("own") / "adapter"))


@pytest.fixture
def honest_copy(honest, tmp_path) -> Path:
    """An adapter without a base that a test may break; it can be read, not loaded."""
    return Path(shutil.copytree(honest, tmp_path / "adapter"))


@pytest.fixture
def bare(base, tmp_path) -> Path:
    """A base LVLM of each family that a test may break."""
    return Path(shutil.copytree(base, tmp_path / "base"))


@pytest.fixture
def llava_copy(bases, tmp_path) -> Path:
    """A tiny LLaVA that a test may break."""
    return Path(shutil.copytree(bases["llava"], tmp_path / "base"))


@pytest.fixture
def qwen_copy(bases, tmp_path) -> Path:
    """A tiny Qwen2-VL that a test may break."""
    return Path(shutil.copytree(bases["qwen2_vl"], tmp_path / "base"))


@pytest.fixture(scope="module")
def llava(bases):
    """The fp32 model of the tiny LLaVA, one for each test file: a test that changes it undoes that."""
    import vladva_clip

    return vladva_clip.create_model(f"local-dir:{bases['llava']}", precision="fp32")[0]
