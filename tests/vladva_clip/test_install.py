"""The built wheel in an environment of its own, as a new user has it; minutes, so in the slow tier."""

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import our_wheel
import pytest

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
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return root / "venv"


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
    assert "drawn scenes only" in done.stdout


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
