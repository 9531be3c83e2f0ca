"""What goes wrong while pulling: the Hub's reason and what to do, and nothing that a later load would take."""

import pytest
from huggingface_hub import constants

import vladva_clip
from tests.support import adapters, hub_server
from tests.support.hub_server import Fault
from tests.support.hub_server.client import TOKEN
from vladva_clip.sources import locate
from vladva_clip.sources.hub_errors import SourceError

REPO = "org/adapter"


@pytest.fixture(scope="module")
def files(bases, tmp_path_factory):
    directory = tmp_path_factory.mktemp("pulled") / "adapter"
    adapters.write_adapter(bases["llava"], directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def hub(files, tmp_path):
    with hub_server.start() as hub:
        hub.tokens = {TOKEN}
        hub.repos[REPO] = hub_server.Repo(REPO, files)
        with hub_server.online(hub, cache_dir=tmp_path / "cache"):
            yield hub


def refused_pull(hub, tmp_path, *faults: Fault) -> str:
    """Pull against faults; returns the message, after a look for what was left."""
    hub.faults = list(faults)
    with pytest.raises(SourceError) as caught:
        vladva_clip.pull_from_hub(REPO, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    assert TOKEN not in str(caught.value)
    nothing_loads(tmp_path)
    return str(caught.value)


def nothing_loads(tmp_path) -> None:
    """Offline, by the client's own rules, and by ours for clients that hand out a snapshot in part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ValueError):
            locate.locate(f"hf-hub:{REPO}")
    for snapshot in (tmp_path / "cache").glob("models--*/snapshots/*"):
        with pytest.raises(ValueError):
            vladva_clip.create_model(f"local-dir:{snapshot}")


def pulled(hub, tmp_path, files) -> bool:
    hub.faults = []
    directory = vladva_clip.pull_from_hub(REPO, tmp_path / "again")
    return {path.name: path.read_bytes() for path in directory.iterdir()} == files


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "", ["the reason", "hf auth login"]),
        (403, "", ["403, the reason", "your token"]),
        (403, "GatedRepo", ["is gated", "accept its terms", "the reason"]),
        (404, "RepoNotFound", ["not on the Hub, or private"]),
        (404, "RevisionNotFound", ["has no revision"]),
        (429, "", ["429, ", "too many requests", "after 77 s"]),
        (500, "", ["500, ", "the reason", "try again later"]),
    ],
)
@pytest.mark.parametrize("path", ["/api/models", "/resolve/"])
def test_the_hubs_reason_and_what_to_do(hub, tmp_path, path, status, code, said):
    headers = {"X-Error-Code": code} if code else {}
    headers |= {"Retry-After": "77"} if status == 429 else {}
    methods = ("GET", "HEAD") if path == "/resolve/" else ("GET",)
    message = refused_pull(hub, tmp_path, *(Fault(method, path, status, headers=headers) for method in methods))
    for part in said:
        assert part in message, message


@pytest.mark.parametrize("name", ["/api/", "adapter_model.safetensors", "soft_prompt.safetensors", "tokenizer.json"])
def test_a_cut_connection(hub, tmp_path, files, name):
    """The rest comes when it is tried again."""
    assert f"{REPO} could not be downloaded (RemoteProtocolError" in refused_pull(
        hub, tmp_path, Fault("GET", name, cut=True)
    )
    assert pulled(hub, tmp_path, files)


def test_a_cut_that_leaves_no_trace_of_the_lora(hub, tmp_path, files):
    """What came would be an adapter of soft prompts alone, were its config there."""
    refused_pull(
        hub, tmp_path, Fault("GET", "adapter_model.safetensors", cut=True), Fault("GET", "adapter_config", cut=True)
    )
    (snapshot,) = (tmp_path / "cache").glob("models--*/snapshots/*")
    left = {path.name for path in snapshot.iterdir()}
    assert "soft_prompt.safetensors" in left and not left & {"adapter_config.json", "vladva_config.json"}
    assert pulled(hub, tmp_path, files)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "soft_prompt.safetensors"])
def test_a_file_of_another_checksum(hub, tmp_path, files, name):
    """Of the same size, so that the client takes it; one byte of a weight, so that it would load."""
    message = refused_pull(
        hub, tmp_path, Fault("GET", f"/{name}", change=lambda body: body[:-1] + bytes([body[-1] ^ 1]))
    )
    assert f"{name} of {REPO}" in message and "sha256" in message and "HF_ENDPOINT" in message
    assert pulled(hub, tmp_path, files)


def test_a_file_that_was_changed_in_the_cache(hub, tmp_path, files):
    """An adapter is compared whenever it is loaded, not only when it comes."""
    directory = vladva_clip.pull_from_hub(REPO)
    blob = (directory / "soft_prompt.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    with pytest.raises(SourceError, match=f"soft_prompt.safetensors of {REPO} .*sha256"):
        vladva_clip.pull_from_hub(REPO)
    assert pulled(hub, tmp_path, files)


def test_a_base_of_another_checksum(hub, bases):
    hub.repos["org/base"] = hub_server.Repo(
        "org/base", {path.name: path.read_bytes() for path in bases["llava"].iterdir()}
    )
    hub.faults = [Fault("GET", "/cdn/", change=lambda body: body[:-1] + bytes([body[-1] ^ 1]))]
    with pytest.raises(SourceError, match="model.safetensors of org/base .*sha256"):
        vladva_clip.pull_from_hub("org/base")
    hub.faults = []
    assert (vladva_clip.pull_from_hub("org/base") / "model.safetensors").is_file()


def test_slow_bodies_arrive(hub, tmp_path, files):
    hub.faults = [Fault("GET", "/cdn/", pause=0.1)]
    directory = vladva_clip.pull_from_hub(REPO, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files


def test_bodies_that_stop_coming(hub, tmp_path, files, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    message = refused_pull(hub, tmp_path, Fault("GET", "/soft_prompt.safetensors", pause=1.0))
    assert "ReadTimeout" in message and "try again" in message
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 10)
    assert pulled(hub, tmp_path, files)


def test_a_private_repository(hub, tmp_path, monkeypatch, files):
    hub.repos[REPO].private = True
    monkeypatch.delenv("HF_TOKEN")
    assert "not on the Hub, or private" in refused_pull(hub, tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert pulled(hub, tmp_path, files)


def test_pickles_beside_the_adapter_stay_on_the_hub(hub, files):
    hub.repos[REPO].commit({**files, "pytorch_model.bin": b"pickle", "run.py": b"print()"}, "more")
    assert {path.name for path in vladva_clip.pull_from_hub(REPO).iterdir()} == set(files)


def test_an_output_that_is_there(hub, tmp_path):
    (tmp_path / "out").mkdir()
    assert vladva_clip.pull_from_hub(REPO, tmp_path / "out") == tmp_path / "out"
    with pytest.raises(ValueError, match="out already exists"):
        vladva_clip.pull_from_hub(REPO, tmp_path / "out")


def test_what_is_no_adapter_any_more(hub, files, tmp_path):
    """A repository that somebody damaged: said by the file's name, and nothing is written."""
    hub.repos[REPO].commit({**files, "soft_prompt.safetensors": b"damaged"}, "damage")
    with pytest.raises(ValueError, match="soft_prompt.safetensors"):
        vladva_clip.pull_from_hub(REPO, tmp_path / "out")
    assert not (tmp_path / "out").exists()
