"""What is said before weights are downloaded, from a Hub on the loopback with the real client."""

import logging
import shutil
import socket
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import vladva_clip
from tests.support import hub_cache, hub_server
from vladva_clip.interface import machine
from vladva_clip.sources import before_download, download, fit, fit_table
from vladva_clip.sources.hub_errors import SourceError
from vladva_clip.sources.room import Room, memory_of

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
    download.download(REPO, None, str(tmp_path))
    assert len(said()) == 1 and hub.requests.count(("GET", f"/api/models/{REPO}")) == 1


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


def test_a_part_that_the_client_continues_is_not_needed_again(hub, said, bases, tmp_path):
    """Up to huggingface_hub 1.x, `<sha256>.incomplete` is continued; later ones begin again, in other names."""
    download.download(REPO, None, str(tmp_path))
    blobs = tmp_path / "models--org--model" / "blobs"
    (large,) = (path.resolve() for path in (tmp_path / "models--org--model").rglob("*.safetensors"))
    large.rename(blobs / f"{large.name}.incomplete")
    assert before_download.missing_bytes(REPO, None, str(tmp_path)) == 0
    (blobs / f"{large.name}.incomplete").write_bytes(bytes(1000))
    assert before_download.missing_bytes(REPO, None, str(tmp_path)) == size_of(bases["llava"]) - 1000
    (blobs / f"{large.name}.incomplete").rename(blobs / f"{large.name}.0a1b2c3d.incomplete")
    assert before_download.missing_bytes(REPO, None, str(tmp_path)) == size_of(bases["llava"])


def test_a_size_is_asked_for_once_and_not_for_long(bases, tmp_path, monkeypatch):
    """Without a network, and from a Hub that takes the request and never answers."""
    with hub_server.serve(bases["llava"], "api") as hub, hub_server.online(hub):
        assert before_download.missing_bytes(REPO, None, str(tmp_path)) is None
        assert len(hub.asked) == 1
    monkeypatch.setattr(before_download, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert before_download.missing_bytes(REPO, None, str(tmp_path)) is None
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("usage", [OSError("closed"), Usage(0, 0, 0)])
def test_a_disk_of_unknown_size_never_stops_a_download(hub, said, tmp_path, monkeypatch, usage):
    """Some network file systems state 0 bytes."""

    def ask(path):
        if isinstance(usage, OSError):
            raise usage
        return usage

    monkeypatch.setattr(shutil, "disk_usage", ask)
    assert download.download(LLAVA, None, str(tmp_path)).is_dir()
    assert said()[0].endswith(f"to {tmp_path}")
    assert "of unknown size" in fit_table.fit_lines(Room.on(cache_dir=str(tmp_path)))[0]


def test_a_gpu_that_cannot_be_asked(monkeypatch):
    def full(device):
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "mem_get_info", full)
    assert memory_of("cuda:0") is None


def test_the_memory_is_said_only_where_the_use_is_known(hub, said, tmp_path, monkeypatch):
    """A pull, an export or a training run takes another amount, or another device."""
    monkeypatch.setattr(machine, "available_memory", lambda: 64 * GB)
    download.download(LLAVA, None, str(tmp_path / "pulled"))
    vladva_clip.VladvaCLIP.from_pretrained("vladva-7b", precision=torch.float32, cache_dir=str(tmp_path / "loaded"))
    pulled, loaded = said()
    assert "of memory" not in pulled and "of memory in fp32 on cpu" in loaded


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
