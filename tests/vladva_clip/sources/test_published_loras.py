"""Two repositories of one embedder: what is fetched of each, and what is said when one of them isn't here."""

import shutil
from pathlib import Path

import pytest

from tests.support import hub_cache, hub_server
from tests.support.models import lora_embedders
from vladva_clip.sources import listing, locate, profiles
from vladva_clip.sources.download import NotHereError

NAME = "vlm2vec-v2"
PROFILE = profiles.named(NAME)
BASE, AT = PROFILE.adapter["base"], PROFILE.adapter["revision"]
FILES = {"adapter_config.json", "adapter_model.safetensors"}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return lora_embedders.write(tmp_path_factory.mktemp("published"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def put(cache: Path, published: Path, adapter: bool = True, base: bool = True) -> None:
    if adapter:
        hub_cache.put(cache, PROFILE.repository, published / "lora", PROFILE.revision)
    if base:
        hub_cache.put(cache, BASE, published / "base", AT)


@pytest.mark.parametrize("download", [True, False])
def test_both_are_found(published, cache, download):
    put(cache, published)
    for source in (
        locate.locate(NAME, "retrieval", download=download),
        locate.locate(f"hf-hub:{PROFILE.repository}", download=download),
        locate.locate_base(PROFILE.config_of().base, download=download),
        locate.from_name(PROFILE.repository),
    ):
        assert (source.base_id, source.revision) == (PROFILE.repository, PROFILE.revision)
        assert (source.directory.name, source.lora.name) == (AT, PROFILE.revision)
    assert source.files.has("tokenizer.json") and source.files.lora.config["r"] == 3


@pytest.mark.parametrize("name", [NAME, f"hf-hub:{PROFILE.repository}"])
def test_which_of_the_two_is_missing(published, cache, name):
    with pytest.raises(ValueError, match=f"^{PROFILE.repository} is not in the cache"):
        locate.locate(name)
    put(cache, published, base=False)
    with pytest.raises(ValueError, match=f"of {NAME} the adapter is here .*, but not its base: {BASE} is not"):
        locate.locate(name)
    with pytest.raises(NotHereError, match=f"^{BASE}, on which the adapter of {NAME} is put, is not") as error:
        locate.locate(name, download=False)
    assert error.value.repo == PROFILE.repository


def test_another_revision_of_the_base_is_not_taken(published, cache):
    put(cache, published, base=False)
    hub_cache.put(cache, BASE, published / "base", "c" * 40)
    with pytest.raises(ValueError, match=f"not its base: {BASE}"):
        locate.locate(NAME)


def test_the_weights_of_both_count(published, cache):
    def here() -> str:
        return next(row.here for row in listing.rows() if row.name == NAME)

    assert here() == listing.NO
    put(cache, published, base=False)
    assert here() == listing.PARTLY
    put(cache, published, adapter=False)
    assert here() == listing.YES


def test_an_adapter_whose_tensors_are_a_pickle(published, cache, tmp_path):
    files = Path(shutil.copytree(published / "lora", tmp_path / "files"))
    (files / "adapter_model.safetensors").unlink()
    hub_cache.put(cache, PROFILE.repository, files, PROFILE.revision)
    with pytest.raises(ValueError, match=f"{PROFILE.repository} has no adapter_model.safetensors: .*a pickle"):
        locate.locate(NAME)


def test_of_the_adapter_s_repository_two_files_are_fetched(published, tmp_path):
    """Its authors' trainer leaves more there, such as a config.json and the arguments as a pickle."""
    adapter, base = ({one.name: one.read_bytes() for one in (published / name).iterdir()} for name in ("lora", "base"))
    others = {"config.json": b"{}", "training_args.bin": b"", "tokenizer.json": b"{}"}
    with hub_server.start() as hub, hub_server.online(hub):
        hub.repos[PROFILE.repository] = hub_server.Repo(PROFILE.repository, adapter | others, PROFILE.revision)
        hub.repos[BASE] = hub_server.Repo(BASE, base, AT)
        small = locate.locate(NAME, cache_dir=str(tmp_path / "small"), weights=False)
        found = locate.locate(NAME, cache_dir=str(tmp_path / "cache"))
    assert {path.name for path in small.lora.iterdir()} == {"adapter_config.json"}
    assert not list(small.directory.glob("*.safetensors"))
    assert {path.name for path in found.lora.iterdir()} == FILES
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {path.name for path in found.directory.iterdir()}
