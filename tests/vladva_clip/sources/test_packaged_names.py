"""Packaged names never reach the network: not when their files are missing, and whoever writes them where.

Statements run in processes that are online as far as they know; an audit hook sees every name that is looked up and
every address that is connected to.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import vladva_clip
from tests.support import adapters, our_wheel
from vladva_clip.sources.locate import locate_base
from vladva_clip.storage.config import BaseConfig

PACKAGE = Path(vladva_clip.__file__).parent
NAMES = ["vladva-tiny", "vladva-tiny/scenes", "VLADVA-tiny/base", "vladva-tiny/scenes@main", "vladva", "vladva-7b"]
SCRIPT = """
import json, sys
asked = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        asked.append(f"{event} {arguments}")
sys.addaudithook(hook)
import importlib, open_clip, vladva_clip, vladva_clip.sources.locate
assert vladva_clip.__file__.startswith(sys.argv[1]), vladva_clip.__file__
for statement in sys.argv[2:]:
    asked.clear()
    try:
        said = str(eval(statement))
    except Exception as error:
        said = f"{[kind.__name__ for kind in type(error).__mro__]} {error}"
    print(json.dumps([said, bool(asked)]))
"""


@pytest.fixture(scope="module")
def endpoint() -> str:
    """Nobody listens there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def run(endpoint, tmp_path):
    """Evaluates statements in one process with an empty Hub cache: what each says, whether it asked the network."""

    def run(*statements: str, place: Path = PACKAGE.parent) -> list[tuple[str, bool]]:
        variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        variables |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        variables |= {"PYTHONPATH": str(place), "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-c", SCRIPT, str(place), *statements]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return [tuple(json.loads(line)) for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="module")
def without_assets(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("bare")
    shutil.copytree(
        PACKAGE, place / "vladva_clip", ignore=shutil.ignore_patterns("assets", "__pycache__", "*.egg-info")
    )
    return place


@pytest.fixture(scope="module")
def zipped(tmp_path_factory) -> Path:
    return our_wheel.build(tmp_path_factory.mktemp("wheel"))


class TestMissingFiles:
    STATEMENTS = (
        *("vladva_clip.create_model('vladva-tiny')", "vladva_clip.create_model('vladva-tiny', 'base')"),
        *("vladva_clip.get_tokenizer('vladva-tiny')", "vladva_clip.get_model_config('vladva-tiny')"),
        "open_clip.create_model_and_transforms('vladva-tiny', 'scenes')",
    )

    @pytest.mark.wide
    def test_a_copy_without_them(self, run, without_assets):
        for said, asked in run(*self.STATEMENTS, place=without_assets):
            assert "ValueError" in said and "RuntimeError" in said and "is missing" in said, said
            assert "vladva_clip/assets/" in said and "pip install" in said and not asked, said

    @pytest.mark.slow
    def test_imported_from_a_zip(self, run, zipped):
        """What needs no files works. open_clip is left alone: whose package it is can't be seen from its place."""
        own = [statement for statement in self.STATEMENTS if statement.startswith("vladva_clip.")]
        lists = "vladva_clip.list_models(), vladva_clip.get_model_config('vladva-7b')['embed_dim']"
        *missing, (said, asked) = run(*own, lists, place=zipped)
        assert "vladva-tiny" in said and "4096" in said and not asked
        assert len(missing) == len(own) == 4
        for said, asked in missing:
            assert "ValueError" in said and "is missing" in said and "zip" in said and not asked, said


class TestNamesOnTheHub:
    @pytest.mark.wide
    def test_other_names_are_looked_for(self, run):
        """Or the other tests here would prove nothing."""
        for said, asked in run("vladva_clip.create_model('hf-hub:org/model')", "vladva_clip.create_model('vladva-7b')"):
            assert "ValueError" in said and asked, said

    @pytest.mark.slow
    def test_by_a_user(self, run):
        """Also through open_clip, and where a name with a slash is taken for a Hub id."""
        calls = [
            f"{call}('hf-hub:{name}')"
            for name in NAMES
            for call in ("vladva_clip.create_model", "open_clip.create_model")
        ]
        calls += [f"vladva_clip.sources.locate.from_name({name!r})" for name in NAMES if "/" in name]
        for said, asked in run(*calls):
            assert "ValueError" in said and "not looked for on the Hub" in said and not asked, said

    @pytest.mark.wide
    def test_by_an_adapter(self, run, bases, tmp_path):
        names = [*(f"hf-hub:{name}" for name in NAMES), "vladva-tiny/base", "vladva-small"]
        adapters.write_adapter(bases["llava"], tmp_path / "honest")
        for number, name in enumerate(names):
            shutil.copytree(tmp_path / "honest", tmp_path / str(number))
            path = tmp_path / str(number) / "vladva_config.json"
            config = json.loads(path.read_text())
            path.write_text(json.dumps({**config, "base": {**config["base"], "id": name}}))
        places = [f"'local-dir:{tmp_path / str(number)}'" for number in range(len(names))]
        calls = [
            f"vladva_clip.{function}({place})" for function in ("create_model", "get_tokenizer") for place in places
        ]
        for (said, asked), name in zip(run(*calls), 2 * names, strict=True):
            assert "ValueError" in said and name.removeprefix("hf-hub:").partition("@")[0] in said and not asked, said

    def test_an_alias_in_an_adapter_is_its_model(self, tmp_path):
        with pytest.raises(ValueError, match="llava-hf/llava-1.5-7b-hf"):
            locate_base(BaseConfig("vladva", "llava"), str(tmp_path))

    @pytest.mark.slow
    def test_by_a_captioner_and_by_a_dry_run(self, run):
        """A dry run reads the cache alone, where somebody's repository may be."""
        section = "importlib.import_module('vladva_training.config').ModelSection('hf-hub:vladva-tiny/scenes')"
        captioners = "importlib.import_module('vladva_training.captioning.captioners')"
        plan = f"importlib.import_module('vladva_training.plan.architecture').find_base({section})"
        for said, asked in run(f"{captioners}.open_chat('vladva-tiny', '', 'cpu', 'fp32')", plan):
            assert "not looked for on the Hub" in said and not asked, said
