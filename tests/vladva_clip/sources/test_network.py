"""Downloads from a Hub on the loopback: cut connections, weights that were never fetched, weights nobody asked for."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import vladva_clip
from tests.support import adapters, hub_cache, hub_server
from vladva_clip.sources import download

REPO, NAME = "org/model", "hf-hub:org/model"


@pytest.fixture(scope="module")
def files(bases):
    return bases["llava"]


def locate(cache_dir, **options) -> str:
    """The statement that downloads without importing any of the large libraries."""
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    return f"print(vladva_clip.sources.locate.locate({NAME!r}, cache_dir={str(cache_dir)!r}{given}).directory)"


@pytest.mark.wide
class TestCutConnection:
    @pytest.mark.parametrize("cut", ["api", "model.safetensors", "config.json"])
    def test_says_so_and_what_to_do(self, files, tmp_path, cut):
        with hub_server.serve(files, cut) as hub:
            said = hub_server.call(locate(tmp_path), hub.url)
        assert said.startswith(f"SourceError {REPO} could not be downloaded") and "vladva-tiny" in said, said
        assert "RemoteProtocolError: " in said and "try again" in said

    def test_a_second_try_gets_the_rest(self, files, tmp_path):
        with hub_server.serve(files, "model.safetensors") as hub:
            assert hub_server.call(locate(tmp_path), hub.url).startswith("SourceError")
        with hub_server.serve(files) as hub:
            directory = Path(hub_server.call(locate(tmp_path), hub.url).strip())
        assert (directory / "model.safetensors").read_bytes() == (files / "model.safetensors").read_bytes()


@pytest.mark.wide
class TestNoConnection:
    """The client would try each of several requests for half a minute, and say so each time."""

    @pytest.fixture
    def nowhere(self, monkeypatch):
        with hub_server.online(SimpleNamespace(url="http://127.0.0.1:9")):
            monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s to try again"))
            yield

    def test_is_said_at_once(self, nowhere, tmp_path):
        with pytest.raises(ValueError, match=f"{REPO} is not in the cache and the Hub can't be reached .ConnectError"):
            download.download(REPO, None, str(tmp_path))

    def test_what_the_cache_holds_is_used_at_once(self, nowhere, files, tmp_path):
        hub_cache.put(tmp_path, REPO, files)
        assert (download.download(REPO, None, str(tmp_path)) / "model.safetensors").is_file()


def test_offline_by_choice_is_not_taken_for_a_broken_network(tmp_path):
    said = hub_server.call(locate(tmp_path), "http://127.0.0.1:9", offline=True)
    assert REPO in said and "HF_HUB_OFFLINE is set" in said and "unset it" in said and "can't be reached" not in said


@pytest.mark.wide
class TestWeightsThatWereNeverFetched:
    def test_in_the_clients_own_cache(self, files, tmp_path):
        """The client knows that a cached snapshot lacks files; later releases say which snapshot."""
        with hub_server.serve(files) as hub:
            assert "SourceError" not in hub_server.call(locate(tmp_path, weights=False), hub.url)
            assert not [path for path in hub.asked if path.endswith(".safetensors")]
            said = hub_server.call(locate(tmp_path), hub.url, offline=True)
        assert "HF_HUB_OFFLINE unset" in said and REPO in said, said
        assert "never downloaded" in said or "in part only" in said and "model.safetensors" in said, said

    @pytest.mark.parametrize("name", [NAME, "vladva-7b"])
    def test_a_snapshot_of_small_files(self, files, tmp_path, name):
        shutil.copytree(files, tmp_path / "small", ignore=shutil.ignore_patterns("*.safetensors"))
        for repo in (REPO, "llava-hf/llava-1.5-7b-hf"):
            hub_cache.put(tmp_path / "cache", repo, tmp_path / "small")
        vladva_clip.get_tokenizer(name, cache_dir=tmp_path / "cache")
        with pytest.raises(ValueError, match="never downloaded.*Go online once, with HF_HUB_OFFLINE unset"):
            vladva_clip.create_model(name, cache_dir=tmp_path / "cache")


@pytest.mark.wide
class TestWeightsNobodyAskedFor:
    def test_without_weights_none_is_fetched(self, files, tmp_path):
        call = f"vladva_clip.create_model({NAME!r}, load_weights=False, cache_dir={str(tmp_path)!r})"
        with hub_server.serve(files) as hub:
            assert hub_server.call(f"print({call}[0].embed_dim)", hub.url).strip() == "32"
            assert not [path for path in hub.asked if path.endswith(".safetensors")]

    def test_a_named_model(self, files, tmp_path):
        shutil.copytree(files, tmp_path / "small", ignore=shutil.ignore_patterns("*.safetensors"))
        hub_cache.put(tmp_path / "cache", "llava-hf/llava-1.5-7b-hf", tmp_path / "small")
        model, _ = vladva_clip.create_model("vladva-7b", load_weights=False, cache_dir=tmp_path / "cache")
        assert model.embed_dim == 32

    def test_an_adapter_of_the_hub(self, tmp_path):
        """Its tokenizer needs no tensors; without weights, its own small ones come."""
        model, _ = vladva_clip.create_model("vladva-tiny", "base")
        adapters.with_lora(model).save_pretrained(tmp_path / "adapter")
        options = f"{NAME!r}, cache_dir={str(tmp_path / 'cache')!r}"
        with hub_server.serve(tmp_path / "adapter") as hub:
            assert "SourceError" not in hub_server.call(f"vladva_clip.get_tokenizer({options})", hub.url)
            assert not [path for path in hub.asked if path.endswith(".safetensors")]
            said = hub_server.call(
                f"print(vladva_clip.create_model({options}, load_weights=False)[0].embed_dim)", hub.url
            )
        assert said.strip() == "256"
