"""Every Python block of the README, the docs and the model card runs as it stands, alone.

A block runs in a fresh namespace, in a folder that holds the paths the docs use; no variable comes from another block.
`WAYS` says what a block needs besides, and what is true afterwards.
"""

import ast
import csv
import io
import json
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pandas
import pytest

import vladva_clip
from tests.support import hub_server, serving
from tests.support.documented import PAGES, ROOT, Snippet, make_place, snippets
from tests.support.models import embedders
from vladva_clip import cli

SNIPPETS = {snippet.name: snippet for page in PAGES for snippet in snippets(page)}


@dataclass(frozen=True)
class Way:
    """How a block is run.

    Attributes:
        needs: fixtures that stand for a download, a program's output or a Hub.
        folder: where the page says that the block is run.
        then: true of the block's names afterwards; the working directory is still the block's.
        wide: whether it runs in `make test-wide` only, which installs what it imports.
        client: a module of the extra `clients` that it imports, which `make test-all` installs.
    """

    needs: tuple[str, ...] = ()
    folder: str = "."
    then: Callable[[dict], bool] = lambda names: True
    wide: bool = False
    client: str | None = None


def pairs() -> dict:
    return json.loads(Path("sharegpt4v.jsonl").read_text())


WAYS = {  # page and first line -> how the block is run; a block that is not named here needs nothing
    "README.md: import torch, vladva_clip": Way(then=lambda names: names["image_features"].shape == (1, 256)),
    "docs/data.md: # add_long.py, run in the folder of raw/ and data/: CC3M's tars and DreamLIP's captions -> "
    "data/cc3m-long": Way(("cc3m",), then=lambda names: (names["samples"], names["found"]) == (1, 1)),
    "docs/data.md: # rest.py, run in raw/openimages: the first 2.6M images, by id, that are not among the 1.7M": Way(
        ("openimages",), "raw/openimages", lambda names: [*pandas.read_parquet("rest.parquet").url] == ["u/b", "u/c"]
    ),
    "docs/data.md: # pairs.py, run in raw/sharegpt4v: both JSON files -> sharegpt4v.jsonl, one line an image": Way(
        ("sharegpt4v",), "raw/sharegpt4v", lambda names: pairs() == {"image_path": "a", "long_captions": ["A", "A"]}
    ),
    "docs/export.md: from PIL import Image": Way(("exported",), then=lambda names: names["images"].shape == (2, 256)),
    "docs/export.md: # a picture as a message": Way(
        ("exported",), then=lambda names: names["images"].shape == (1, 256)
    ),
    "docs/export.md: import torch": Way(("exported",), then=lambda names: names["features"].shape == (2, 256)),
    "docs/hub.md: import open_clip": Way(("hub",)),
    "docs/mteb.md: # embedder.py": Way(wide=True),
    "docs/mteb.md: import mteb": Way(("published", "embedder", "no_tasks_data"), wide=True),
    "docs/published_models.md: import vladva_clip": Way(
        ("published",), then=lambda names: names["text_features"].shape == names["image_features"].shape
    ),
    "docs/serving.md: # serve.py": Way(client="fastapi"),
    "docs/serving.md: import base64": Way(
        ("served",), then=lambda names: len(names["found"].data) == 2, client="openai"
    ),
    "docs/serving.md: # load.py": Way(("served",), client="openai", wide=True),
    "docs/search.md: import json": Way(then=lambda names: names["rows"][0][0] == 0, client="faiss"),
    "docs/search.md: import faiss": Way(("binary",), then=lambda names: names["distances"][0][0] == 0, client="faiss"),
    "docs/search.md: import lancedb": Way(
        ("parquet",), then=lambda names: names["hits"][0]["name"] == names["rows"]["name"][0].as_py(), client="lancedb"
    ),
    "docs/published_models.md: import json": Way(("mine",), then=lambda names: is_read_without_profile()),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def exported(place) -> None:
    vladva_clip.export_model("vladva-tiny", place / "exported")


@pytest.fixture
def hub(tmp_path):
    """A Hub on the loopback, with a cache of its own."""
    with hub_server.start() as hub:
        hub.tokens = {hub_server.client.TOKEN}
        with hub_server.online(hub, cache_dir=tmp_path / "cache"):
            yield


@pytest.fixture
def published(shared_data, tmp_path, monkeypatch) -> None:
    """Small random weights under the Hub id of `qwen3-vl-embedding-2b`, in a cache."""
    from huggingface_hub import constants

    from tests.support.published.later_repositories import LaterShelf

    LaterShelf(tmp_path, shared_data / "tokenizers" / "qwen2_vl").directory("qwen3-vl-embedding-2b")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.fixture
def mine(place) -> None:
    """Another's embedder in a folder, and a profile for it."""
    embedders.write_qwen(place / "models/mine")
    embedders.write_profile(place / "mine.json")


def is_read_without_profile() -> bool:
    model, _ = vladva_clip.create_model("local-dir:models/mine")
    return model.config.prompt.text_template == embedders.CHAT.format("{caption}")


@pytest.fixture
def served(place):
    """The server of docs/serving.md at the port that the page names."""
    (place / "serve.py").write_text(SNIPPETS["docs/serving.md: # serve.py"].code)
    with serving.running(place, 8000):
        yield


@pytest.fixture
def binary(place) -> None:
    """`binary.npz` of the gallery."""
    out = ["--out", str(place / "binary.npz"), "--quantize", "binary"]
    assert cli.main(["embed", str(place / "vladva-quickstart"), *out]) == 0


@pytest.fixture
def parquet(place) -> None:
    """`scenes.parquet` of the gallery, and a row of a broken picture, which comes first."""
    (place / "0-broken.png").write_bytes(b"")
    words = [str(place / "0-broken.png"), str(place / "vladva-quickstart")]
    assert cli.main(["embed", *words, "--out", str(place / "scenes.parquet")]) == 1


@pytest.fixture
def embedder(place, monkeypatch):
    """The page's first block as the file that its first line names."""
    (place / "embedder.py").write_text(SNIPPETS["docs/mteb.md: # embedder.py"].code)
    monkeypatch.syspath_prepend(place)
    yield
    sys.modules.pop("embedder", None)


@pytest.fixture
def no_tasks_data(monkeypatch) -> None:
    """The data of mteb's tasks is on the Hub: tasks and model are real, `evaluate` only takes its real arguments."""
    import mteb

    done = SimpleNamespace(task_results=[])
    monkeypatch.setattr(mteb, "evaluate", mock.create_autospec(mteb.evaluate, return_value=done))


@pytest.fixture
def cc3m(place) -> None:
    """A tar of one sample, and its long caption."""
    (place / "raw/cc3m").mkdir(parents=True)
    (place / "raw/dreamlip").mkdir()
    with tarfile.open(place / "raw/cc3m/cc3m-train-0000.tar", "w") as tar:
        about = json.dumps({"url": "u"}).encode()
        member = tarfile.TarInfo("0.json")
        member.size = len(about)
        tar.addfile(member, io.BytesIO(about))
    table(place / "raw/dreamlip/cc3m_3long_3short_1raw_captions_url.csv", ["Image Path", "longSV_captions"], ["u", "A"])


@pytest.fixture
def openimages(place) -> None:
    folder, header = place / "raw/openimages", ["ImageID", "OriginalURL"]
    table(folder / "train-images-boxable-with-rotation.csv", header, ["a", "u/a"])
    names = folder / "oidv6-train-images-with-labels-with-rotation.csv"
    table(names, header, ["c", "u/c"], ["a", "u/a"], ["b", "u/b"])


@pytest.fixture
def sharegpt4v(place) -> None:
    (place / "raw/sharegpt4v").mkdir(parents=True)
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    names = ("sharegpt4v_instruct_gpt4-vision_cap100k.json", "share-captioner_coco_lcs_sam_1246k_1107.json")
    for name in names:
        (place / "raw/sharegpt4v" / name).write_text(json.dumps([{"image": "a", "conversations": turns}]))


def table(path: Path, *rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def run(snippet: Snippet) -> dict:
    """Run a block in a fresh namespace, which is returned; a traceback shows the page's own lines."""
    names = {"__name__": "__main__"}
    exec(compile("\n" * (snippet.line - 1) + snippet.code, str(snippet.page), "exec"), names)
    return names


MARKED = [pytest.param(name, marks=[pytest.mark.wide] if WAYS.get(name, Way()).wide else []) for name in SNIPPETS]


@pytest.mark.parametrize("name", MARKED)
def test_a_snippet_runs_alone(name, place, request, monkeypatch):
    way = WAYS.get(name, Way())
    if way.client:
        pytest.importorskip(way.client, reason="in the extra `clients`")
    for fixture in way.needs:
        request.getfixturevalue(fixture)
    monkeypatch.chdir(place / way.folder)
    assert way.then(run(SNIPPETS[name]))


def test_all_snippets_are_read():
    """The test can't pass because it finds nothing, or because two blocks have one name."""
    assert len(SNIPPETS) == sum(len(snippets(page)) for page in PAGES) > 15
    assert not set(WAYS) - set(SNIPPETS)
    for snippet in SNIPPETS.values():
        assert ast.parse(snippet.code).body  # those of test-wide too


def test_a_snippet_that_leans_on_another_block_is_noticed(tmp_path):
    (page := tmp_path / "page.md").write_text("```python\nx = 1\n```\n\n```python\nprint(x)\n```\n")
    first, second = (Snippet(ROOT / "page.md", one.line, one.code) for one in snippets(page))
    assert run(first)["x"] == 1 and second.line == 6
    with pytest.raises(NameError, match="'x'"):
        run(second)
