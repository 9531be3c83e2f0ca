"""What is published: the sdist builds the same wheel, and the page of the index stands on its own."""

import re
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.support import our_wheel

pytestmark = pytest.mark.wide  # builds packages


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    return our_wheel.build_sdist(tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel of the tree."""
    return zipfile.ZipFile(our_wheel.build(tmp_path_factory.mktemp("tree")))


def test_the_sdist_builds_the_same_wheel(wheel, sdist, tmp_path):
    wheels = wheel, zipfile.ZipFile(our_wheel.build_from(sdist, tmp_path))
    one, other = ({name: wheel.read(name) for name in wheel.namelist()} for wheel in wheels)
    assert one == other and len(one) > 200


def test_the_sdist_has_the_docs_and_tests(sdist):
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {"LICENSE", "MODEL_CARD.md", "docs/api.md", "docs/images/quickstart.png", "tests/support/our_wheel.py"}
    assert wanted < names and not [name for name in names if "__pycache__" in name or ".venv" in name]


def test_the_metadata(wheel):
    """The index shows the description alone: relative links and pictures would lead nowhere."""
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    found = message_from_bytes(wheel.read(name))
    assert (found["Name"], found["License-Expression"], found["License-File"]) == (
        "vladva-clip",
        "Apache-2.0",
        "LICENSE",
    )
    assert found["Description-Content-Type"] == "text/markdown" and found["Project-URL"]
    page = found.get_payload(decode=True).decode()
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert links and all(link.startswith("https://") for link in links)
    assert "pip install vladva-clip" in page and "<img" not in page
