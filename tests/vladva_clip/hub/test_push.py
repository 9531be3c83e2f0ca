"""An adapter pushed to a Hub on the loopback and pulled from it: equal files, equal features, by every way in."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import open_clip
import pytest
from huggingface_hub import constants
from peft import PeftModel
from transformers import AutoModelForImageTextToText

import vladva_clip
from tests.support import adapters, fresh, hub_server
from vladva_clip import cli
from vladva_clip.hub.push import COMMIT_MESSAGE, files_to_push

REPO, BASE = "org/adapter", "org/base"


class Pushed:
    """A Hub with a base and an adapter that was pushed to it, and who pushed it."""

    def __init__(self, hub, root: Path, base: Path) -> None:
        self.hub, self.cache, self.directory, self.base = hub, root / "cache", root / "saved", base
        hub.tokens = {hub_server.client.TOKEN}
        hub.repos[BASE] = hub_server.Repo(BASE, {path.name: path.read_bytes() for path in base.iterdir()})
        with self.online():
            model, _ = vladva_clip.create_model(f"hf-hub:{BASE}", precision="fp32")
            self.model = adapters.with_lora(model)
            self.model.save_pretrained(self.directory)
            self.info = vladva_clip.push_to_hub(self.model, REPO)

    def online(self, **options):
        return hub_server.online(self.hub, **{"cache_dir": self.cache, **options})

    @property
    def repo(self) -> hub_server.Repo:
        return self.hub.repos[REPO]


@pytest.fixture(scope="module")
def pushed(bases, tmp_path_factory):
    with hub_server.start() as hub:
        yield Pushed(hub, tmp_path_factory.mktemp("hub"), bases["llava"])


@pytest.fixture
def online(pushed):
    with pushed.online():
        yield pushed


def contents(directory: Path) -> dict[str, bytes]:
    return {
        name.relative_to(directory).as_posix(): name.read_bytes() for name in directory.rglob("*") if name.is_file()
    }


def share_blobs(cache: Path, direct: bool) -> None:
    """Move all blobs of a cache into its shared store: the old places link there, and `direct`, the snapshots too."""
    for blob in cache.glob("models--*/blobs/*"):
        digest = hashlib.sha256(blob.read_bytes()).hexdigest()
        store = cache / "blobs" / digest[:2] / digest
        store.parent.mkdir(parents=True, exist_ok=True)
        os.replace(blob, store)
        blob.symlink_to(os.path.relpath(store, blob.parent))
    for path in cache.glob("models--*/snapshots/*/*") if direct else ():
        store = path.resolve()
        path.unlink()
        path.symlink_to(os.path.relpath(store, path.parent))


class TestRoundTrip:
    def test_the_commit_holds_what_was_saved(self, pushed):
        """One commit over the first one; the repository's own .gitattributes stays."""
        first, commit = pushed.repo.branches["main"]
        assert commit.files == contents(pushed.directory) | first.files
        assert (commit.message, commit.oid) == (COMMIT_MESSAGE, pushed.info.oid)
        assert not pushed.repo.private

    def test_the_base_is_named_with_its_commit_and_fingerprint(self, pushed):
        base = json.loads(pushed.repo.at("main").files["vladva_config.json"])["base"]
        assert (base["id"], base["revision"]) == (BASE, pushed.hub.repos[BASE].at("main").oid)
        assert base["fingerprint"].startswith("sha256:")

    def test_pulled_files_are_equal(self, online, tmp_path):
        directory = vladva_clip.pull_from_hub(REPO, tmp_path / "pulled")
        assert contents(directory) == contents(online.directory)
        assert not directory.is_symlink() and not any(path.is_symlink() for path in directory.rglob("*"))

    def test_what_was_pulled_into_the_cache_can_be_pushed_on(self, online):
        """A snapshot is made of links to the cache's blobs."""
        vladva_clip.push_to_hub(vladva_clip.pull_from_hub(REPO), "org/copy")
        assert online.hub.repos["org/copy"].at("main").files == online.repo.at("main").files

    @pytest.mark.parametrize("direct", [False, True])
    def test_what_lies_in_the_caches_shared_store_can_be_loaded_and_pushed_on(self, pushed, tmp_path, direct):
        """huggingface_hub 2.x keeps one copy of a file that several repositories have, for the whole cache."""
        cache = tmp_path / "cache"
        with pushed.online(cache_dir=cache):
            vladva_clip.push_to_hub(vladva_clip.pull_from_hub(REPO), "org/second")
            snapshots = [vladva_clip.pull_from_hub(repo) for repo in (REPO, "org/second")]
            share_blobs(cache, direct)
            first, second = ({path.resolve() for path in snapshot.iterdir()} for snapshot in snapshots)
            assert first == second and all(path.is_relative_to(cache / "blobs") for path in first)
            model, _ = vladva_clip.create_model("hf-hub:org/second", precision="fp32", merge_lora=False)
            assert adapters.same(model, pushed.model)
            vladva_clip.push_to_hub(snapshots[1], "org/third")
            pushed.hub.repos.pop("org/second")
            third = pushed.hub.repos.pop("org/third")
        assert third.at("main").files == pushed.repo.at("main").files

    def test_a_link_to_another_repositorys_own_blob(self, pushed, tmp_path):
        """Neither loaded nor pushed: it could be a file of a private repository."""
        with pushed.online(cache_dir=tmp_path / "cache"):
            base, snapshot = vladva_clip.pull_from_hub(BASE), vladva_clip.pull_from_hub(REPO)
            (snapshot / "adapter_config.json").unlink()
            (snapshot / "adapter_config.json").symlink_to((base / "config.json").resolve())
            for refuse in (lambda: files_to_push(snapshot), lambda: vladva_clip.VladvaCLIP.from_pretrained(snapshot)):
                with pytest.raises(ValueError, match="adapter_config.json in .* is a link to .*models--org--base"):
                    refuse()

    def test_features_are_bit_equal_by_every_way_in(self, online):
        name, options = f"hf-hub:{REPO}", {"precision": "fp32", "merge_lora": False}
        oid = online.info.oid
        for model in (
            vladva_clip.create_model(name, **options)[0],
            vladva_clip.create_model(f"{name}@{oid}", **options)[0],
            vladva_clip.VladvaCLIP.from_pretrained(REPO, revision=oid, **options),
        ):
            assert adapters.same(model, online.model)

    def test_open_clip_loads_it(self, online):
        model, _, preprocess = open_clip.create_model_and_transforms(f"hf-hub:{REPO}")
        assert type(model) is vladva_clip.VladvaCLIP and open_clip.get_tokenizer(f"hf-hub:{REPO}")(["a"]).shape[0] == 1
        merged, ours = vladva_clip.create_model(f"hf-hub:{REPO}")
        assert adapters.same(model, merged) and str(preprocess) == str(ours)

    def test_peft_alone_loads_it(self, online):
        directory = vladva_clip.pull_from_hub(REPO)
        plain = AutoModelForImageTextToText.from_pretrained(online.base)
        peft = PeftModel.from_pretrained(plain, directory)
        assert sum("lora_" in name for name, _ in peft.named_parameters()) == 8  # A and B, q and v, two layers

    def test_offline_with_a_warm_cache_and_with_a_cold_one(self, online, tmp_path, monkeypatch):
        vladva_clip.create_model(f"hf-hub:{REPO}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        asked = len(online.hub.asked)
        model = vladva_clip.create_model(f"hf-hub:{REPO}", precision="fp32", merge_lora=False)[0]
        assert adapters.same(model, online.model)
        with pytest.raises(ValueError, match=f"{REPO} is not in the cache.*HF_HUB_OFFLINE"):
            vladva_clip.create_model(f"hf-hub:{REPO}", cache_dir=tmp_path)
        with pytest.raises(ValueError, match="nothing was sent.*HF_HUB_OFFLINE is set.*unset it"):
            vladva_clip.push_to_hub(online.directory, REPO)
        assert len(online.hub.asked) == asked

    def test_another_base_is_refused_with_both_fingerprints(self, online, bases, tmp_path):
        config = json.loads((online.directory / "vladva_config.json").read_text())
        shutil.copytree(online.directory, tmp_path / "adapter")
        stated = "sha256:" + "0" * 64
        found, config["base"]["fingerprint"] = config["base"]["fingerprint"], stated
        (tmp_path / "adapter/vladva_config.json").write_text(json.dumps(config))
        vladva_clip.push_to_hub(tmp_path / "adapter", "org/other")
        with pytest.raises(ValueError, match=f"{stated}.*{found}"):
            vladva_clip.create_model("hf-hub:org/other")


class TestSettings:
    def test_private_message_and_revision(self, online):
        vladva_clip.push_to_hub(online.directory, "org/private", private=True, commit_message="First of all")
        repo = online.hub.repos["org/private"]
        assert repo.private and repo.at("main").message == "First of all"
        repo.branches["dev"] = list(repo.branches["main"])
        repo.branches["dev"][-1] = repo.branches["main"][0]  # the branch has nothing of ours
        info = vladva_clip.push_to_hub(online.directory, "org/private", revision="dev")
        assert repo.at("dev").oid == info.oid != repo.at("main").oid
        assert set(contents(online.directory)) <= set(repo.at("dev").files)

    def test_a_pull_request_leaves_the_branch_alone(self, online):
        before = online.repo.at("main")
        online.repo.commit({".gitattributes": b""}, "emptied", "main")
        info = vladva_clip.push_to_hub(online.directory, REPO, create_pr=True)
        assert info.pr_url.endswith("/discussions/1") and info.pr_revision == "refs/pr/1"
        assert set(online.repo.at("main").files) == {".gitattributes"}
        assert set(online.repo.at("refs/pr/1").files) == set(contents(online.directory)) | {".gitattributes"}
        online.repo.branches["main"].remove(online.repo.at("main"))
        assert online.repo.at("main") is before

    def test_a_public_repository_does_not_take_what_should_be_private(self, online):
        before = online.repo.at("main")
        with pytest.raises(ValueError, match=f"{REPO} .*public.*private"):
            vladva_clip.push_to_hub(online.directory, REPO, private=True)
        assert online.repo.at("main") is before

    def test_files_of_an_earlier_adapter_go_and_a_persons_stay(self, online):
        """LoRA files of an earlier push would load with the new soft prompts."""
        repo = online.hub.repos["org/reused"] = hub_server.Repo("org/reused")
        files = contents(online.directory)
        repo.commit({**files, "README.md": b"mine", "notes.txt": b"mine"}, "by hand")
        plain, _ = vladva_clip.create_model(f"hf-hub:{BASE}")
        vladva_clip.push_to_hub(plain, "org/reused")
        gone = set(files) - set(repo.at("main").files)
        assert gone == {"adapter_config.json", "adapter_model.safetensors"}
        assert repo.at("main").files["README.md"] == repo.at("main").files["notes.txt"] == b"mine"

    def test_pushed_again_nothing_changes(self, online):
        """Not even a commit."""
        before = list(online.repo.branches["main"])
        assert vladva_clip.push_to_hub(online.directory, REPO).oid == before[-1].oid
        assert online.repo.branches["main"] == before


class TestRefusedBeforeAnyRequest:
    @pytest.fixture
    def directory(self, online, tmp_path):
        online.hub.asked.clear()
        yield Path(shutil.copytree(online.directory, tmp_path / "adapter"))
        assert online.hub.asked == []

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "training.pkl", "notes/secret.txt", "model.safetensors"])
    def test_foreign_files(self, directory, name):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(b"x")
        with pytest.raises(ValueError, match=name):
            vladva_clip.push_to_hub(directory, REPO)

    def test_a_link_out_of_the_directory(self, directory, tmp_path):
        (tmp_path / "id_rsa").write_text("secret")
        (directory / "README.md").unlink()
        (directory / "README.md").symlink_to(tmp_path / "id_rsa")
        with pytest.raises(ValueError, match="README.md in .* is a link to .*id_rsa"):
            vladva_clip.push_to_hub(directory, REPO)

    def test_a_pipe(self, directory):
        """Reading it would wait for ever."""
        (directory / "README.md").unlink()
        os.mkfifo(directory / "README.md")
        with pytest.raises(ValueError, match="README.md is not a regular file"):
            vladva_clip.push_to_hub(directory, REPO)

    def test_a_base_that_nobody_else_has(self, directory):
        config = json.loads((directory / "vladva_config.json").read_text())
        config["base"]["id"] = "local-dir:/somewhere"
        (directory / "vladva_config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="base is local-dir:/somewhere.*push the base too"):
            vladva_clip.push_to_hub(directory, REPO)

    def test_what_is_no_adapter(self, directory, bases):
        with pytest.raises(ValueError, match="not an adapter.*vladva_config.json"):
            vladva_clip.push_to_hub(bases["llava"], REPO)
        (directory / "adapter_config.json").unlink()
        with pytest.raises(ValueError, match="adapter_config.json.*LoRA"):
            vladva_clip.push_to_hub(directory, REPO)

    @pytest.mark.parametrize("name", ["adapter", "org/a/b", "org/a b", "org/a@main", ""])
    def test_names_that_are_none(self, directory, name):
        with pytest.raises(ValueError, match="not a Hub id.*ORG/NAME"):
            vladva_clip.push_to_hub(directory, name)

    def test_a_commit_without_a_message(self, directory):
        with pytest.raises(ValueError, match="commit message is empty"):
            vladva_clip.push_to_hub(directory, REPO, commit_message=" ")

    def test_what_stays_behind(self, directory):
        """Hidden files, and what a card is written from."""
        (directory / ".cache").mkdir()
        (directory / ".cache/token").write_text("secret")
        (directory / "results").mkdir()
        notes = {"training_record.json", "card.md", "results/coco.json"}
        for name in ("README.md", *notes):
            (directory / name).write_text("{}")
        assert set(files_to_push(directory)) == set(contents(directory)) - {".cache/token", *notes}


class TestCommandLine:
    def test_push_then_pull(self, online, tmp_path, capsys):
        assert cli.main(["push", str(online.directory), "org/cli", "--commit-message", "By hand", "--private"]) == 0
        repo = online.hub.repos["org/cli"]
        assert repo.private and repo.at("main").message == "By hand"
        assert capsys.readouterr().out.strip().endswith(f"org/cli/commit/{repo.at('main').oid}")
        output = tmp_path / "pulled"
        assert cli.main(["pull", f"org/cli@{repo.at('main').oid}", "--output", str(output)]) == 0
        assert capsys.readouterr().out.strip() == str(output) and contents(output) == contents(online.directory)
        assert cli.main(["pull", "org/cli", "--output", str(output)]) == 2
        assert "already exists" in capsys.readouterr().err
        assert cli.main(["pull", "org/cli"]) == 0
        assert Path(capsys.readouterr().out.strip()).is_relative_to(online.cache)

    def test_a_pull_request(self, online, capsys):
        repo = online.hub.repos["org/pr"] = hub_server.Repo("org/pr")
        assert cli.main(["push", str(online.directory), "org/pr", "--create-pr", "--revision", "main"]) == 0
        assert capsys.readouterr().out.strip().endswith("org/pr/discussions/1")
        assert len(repo.branches["main"]) == 1

    def test_by_the_environment_in_a_process_of_its_own(self, pushed, tmp_path):
        """HF_ENDPOINT, HF_TOKEN, HF_HOME: what a user sets."""
        settings = {"HF_ENDPOINT": pushed.hub.url, "HF_TOKEN": hub_server.client.TOKEN, "HF_HUB_OFFLINE": "0"}
        settings |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        code = f"""
import sys
from vladva_clip.cli import main
sys.exit(main(["push", {str(pushed.directory)!r}, "org/fresh"]) or main(["pull", "org/fresh"]))
"""
        done = fresh.check(code, tmp_path, **settings)
        url, place = done.stdout.split()
        assert url.startswith(pushed.hub.url) and contents(Path(place)) == contents(pushed.directory)
        assert hub_server.client.TOKEN not in done.stdout + done.stderr
