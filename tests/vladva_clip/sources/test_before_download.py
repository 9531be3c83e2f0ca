"""What is said before weights are downloaded, from a Hub on the loopback with the real client."""

import logging
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

import vladva_clip
from tests.support import hub_cache, hub_server
from vladva_clip.interface import machine
from vladva_clip.sources import before_download, download, fit
from vladva_clip.sources.hub_errors import SourceError
from vladva_clip.sources.room import Room

REPO, LLAVA = "org/model", "llava-hf/llava-1.5-7b-hf"
GB = 10**9
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def hub(bases):
    """Serves a tiny LLaVA as whatever repository is asked for."""
    with hub_server.serve(bases["llava"]) as hub, hub_server.online(hub):
        yield hub


@pytest.fixture
def said(caplog, monkeypatch):
    """What was logged; files of any size are worth a line."""
    monkeypatch.setattr(before_download, "WORTH_SAYING", 0)
    caplog.set_level(logging.INFO, before_download.__name__)
    return lambda: [record.getMessage() for record in caplog.records if record.name == before_download.__name__]


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


def test_a_repository_of_which_nothing_is_known(hub, said, bases, tmp_path):
    """Its size from the Hub's listing, and where it goes; once, and not when it is here."""
    download.download(REPO, None, str(tmp_path))
    (line,) = said()
    assert line.startswith(f"{REPO}: downloading {fit.in_words(size_of(bases['llava']))} to {tmp_path} (free: ")
    assert "needs" not in line
    asked = len(hub.asked)
    download.download(REPO, None, str(tmp_path))
    assert len(said()) == 1 and len([path for path in hub.asked[asked:] if "/tree/" in path]) <= 1


def test_a_known_model_with_the_memory_that_it_needs(hub, said, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 64 * GB)
    with before_download.for_use("bf16", "cpu"):
        download.download(LLAVA, None, str(tmp_path))
    (line,) = said()
    needed = fit.in_words(fit.of("vladva-7b", "bf16").memory_bytes)
    assert line.startswith("vladva-7b: downloading")
    assert line.endswith(f"; needs about {needed} of memory in bf16 on cpu (predicted; available: 64.0 GB)")


def test_the_factory_says_for_which_precision(hub, said, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 64 * GB)
    vladva_clip.create_model("vladva-7b", precision="fp32", cache_dir=str(tmp_path))
    assert "of memory in fp32 on cpu" in said()[0] and len(said()) == 1


def test_too_little_memory_names_a_way_out(said, tmp_path):
    """The same model in a smaller precision, or the largest one that fits."""
    room = Room("cpu", 20 * GB, tmp_path, 100 * GB)
    _, way = before_download.lines("vladva-7b", 14 * GB, fit.of("vladva-7b", "fp32"), room)
    assert "may not fit" in way and "precision='bf16' would" in way
    _, way = before_download.lines("vladva-13b", 26 * GB, fit.of("vladva-13b", "bf16"), room)
    fitting = [one for name in fit.names() if (one := fit.of(name)).memory_bytes <= 20 * GB]
    assert f"{max(fitting, key=lambda one: one.memory_bytes).name} in bf16 would" in way
    (only,) = before_download.lines("vladva-7b", 14 * GB, fit.of("vladva-7b", "bf16"), room)
    assert "may not fit" not in only
    none = before_download.lines("vladva-7b", 14 * GB, fit.of("vladva-7b"), Room("cpu", 1000, tmp_path, 100 * GB))
    assert "vladva models --fit" in none[1]


def test_a_full_disk_is_said_before_any_file_is_fetched(hub, said, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(GB, GB, 1000))
    with pytest.raises(SourceError, match=r"vladva-7b takes .* MB, but only 0.0 MB are free.*HF_HOME"):
        download.download(LLAVA, None, str(tmp_path))
    assert not [path for path in hub.asked if "/resolve/" in path]
    assert not said()


def test_what_an_interrupted_download_left_is_not_counted(hub, said, bases, tmp_path):
    download.download(REPO, None, str(tmp_path))
    snapshot = next((tmp_path / "models--org--model" / "snapshots").iterdir())
    for path in snapshot.glob("*.safetensors"):
        path.unlink()  # the link; the file itself stays
    assert before_download.missing_bytes(REPO, None, str(tmp_path)) == 0
    download.download(REPO, None, str(tmp_path))
    assert len(said()) == 1


def test_small_files_alone_say_nothing(hub, said, tmp_path):
    vladva_clip.get_tokenizer(f"hf-hub:{REPO}", cache_dir=str(tmp_path))
    assert not said() and not [path for path in hub.asked if path.endswith(".safetensors")]


def test_small_weights_say_nothing(hub, caplog, tmp_path):
    caplog.set_level(logging.INFO, before_download.__name__)
    download.download(REPO, None, str(tmp_path))
    assert not [record for record in caplog.records if record.name == before_download.__name__]


def test_a_listing_that_fails_leaves_the_error_to_the_download(bases, said, tmp_path):
    failure = pytest.raises(SourceError, match=f"{REPO} could not be downloaded")
    with hub_server.serve(bases["llava"], "api") as hub, hub_server.online(hub), failure:
        download.download(REPO, None, str(tmp_path))
    assert not said()


def test_offline_loads_ask_nothing(said, bases, tmp_path):
    """The tests run with HF_HUB_OFFLINE."""
    hub_cache.put(tmp_path, REPO, bases["llava"])
    assert download.download(REPO, None, str(tmp_path)).is_dir() and not said()
