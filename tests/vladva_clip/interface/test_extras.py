"""Which words after `pip install` add an extra, by where the package was installed from."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from vladva_clip.interface import extras

ROOT = Path(__file__).parents[3]
ORIGINS = [  # content of direct_url.json, as pip writes it -> the words; PEP 610
    (None, ["vladva-clip[train]"]),
    ({"url": "file:///a/clone", "dir_info": {}}, ["/a/clone[train]"]),
    ({"url": "file:///a/my%20clone", "dir_info": {"editable": True}}, ["--editable", "/a/my clone[train]"]),
    ({"url": "file:///a/x.whl", "archive_info": {}}, ["vladva-clip[train] @ file:///a/x.whl"]),
    (
        {"url": "https://a.org/x", "vcs_info": {"vcs": "git", "commit_id": "c1"}},
        ["vladva-clip[train] @ git+https://a.org/x@c1"],
    ),
]


@pytest.mark.parametrize(("origin", "words"), ORIGINS)
def test_by_origin(tmp_path, monkeypatch, origin, words):
    (folder := tmp_path / "vladva_clip-1.dist-info").mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.4\nName: vladva-clip\nVersion: 1\n")
    if origin:
        (folder / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(tmp_path)
    assert shlex.split(extras.ourselves("train")) == words
    assert shlex.split(extras.ourselves()) == [word.replace("[train]", "") for word in words]
    if words[-1].startswith("vladva-clip"):
        assert Requirement(words[-1]).extras == {"train"}


def test_a_clone_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    assert shlex.split(extras.ourselves("train,qlora")) == [f"{ROOT}[train,qlora]"]
