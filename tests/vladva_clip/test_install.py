"""The built wheel in an environment of its own, as a new user has it; minutes, so in the slow tier."""

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import our_wheel

NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A fresh virtual environment with our wheel installed, and the dependencies of this one in its sight."""
    root = tmp_path_factory.mktemp("install")
    built = our_wheel.build(root)
    subprocess.run([sys.executable, "-m", "venv", str(root / "venv")], check=True)
    pip = [
        str(root / "venv" / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(built),
    ]
    subprocess.run(pip, check=True)
    site = next((root / "venv" / "lib").glob("python3.*")) / "site-packages"
    link_dependencies(site)
    return root / "venv"


def link_dependencies(site: Path) -> None:
    """Link what is installed here into another site-packages, but for ourselves, in whatever way we are installed."""
    for folder in (Path(path) for path in sys.path if Path(path).name == "site-packages"):
        for item in folder.iterdir():
            ours = item.suffix == ".pth" or item.name.startswith(("vladva_", "__editable__"))
            if not ours and not (site / item.name).exists():
                (site / item.name).symlink_to(item)


def test_quickstart_without_network_in_a_minute(environment, tmp_path):
    start = time.monotonic()
    env = {**os.environ, **NO_NETWORK, "OMP_NUM_THREADS": "2"}
    env.pop("HF_HUB_OFFLINE", None)  # a user has not set it
    done = subprocess.run(
        [str(environment / "bin" / "vladva"), "quickstart"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 60
    assert (tmp_path / "vladva-quickstart" / "contact_sheet.png").is_file()
    assert "only drawn scenes" in done.stdout


def test_the_wheel_is_what_runs(environment, tmp_path):
    code = "import vladva_clip, vladva_training, vladva_benchmarks; print(vladva_clip.__file__)"
    done = subprocess.run(
        [str(environment / "bin" / "python"), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(environment))


def test_no_network_for_a_real_name_is_said_so(environment, tmp_path):
    """A cold cache and a dead network, online mode: the message names the ways out, and it does not take forever."""
    code = "import vladva_clip; vladva_clip.create_model('vladva-2b')"
    env = {**os.environ, **NO_NETWORK, "HF_HOME": str(tmp_path)}
    env.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [str(environment / "bin" / "python"), "-c", code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "vladva-tiny" in done.stderr.splitlines()[-1] and "local-dir" in done.stderr.splitlines()[-1]


def test_open_clip_knows_us_while_we_are_installed(environment, tmp_path):
    """With no import of ours; after the uninstallation torch, open_clip and clip_benchmark are as they were."""
    python = str(environment / "bin" / "python")
    ask = "import open_clip; print([name for name in open_clip.list_models() if 'vladva' in name])"
    run = functools.partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "vladva-tiny" in run([python, "-c", ask]).stdout
    usage = [python, "-m", "clip_benchmark.cli", "eval", "--help"]
    assert "{open_clip,ja_clip,vladva}" in run(usage).stdout
    run([python, "-m", "pip", "uninstall", "--yes", "vladva-clip"])
    assert run([python, "-c", ask]).stdout == "[]\n"
    assert "{open_clip,ja_clip}" in run(usage).stdout
