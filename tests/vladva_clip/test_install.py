"""The built wheel in an environment of its own, as a new user has it; minutes, so in the slow tier."""

import functools
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import our_wheel

NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # "0" turns the isolation off
MISSING = """
from vladva_clip.interface import extras
extras.EXTRAS["no_such_module"] = ("train",)
try:
    extras.require("no_such_module")
except extras.ExtraError as error:
    print(str(error).partition("not installed: ")[2])
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A fresh virtual environment with our wheel installed, and the dependencies of this one in its sight."""
    root = tmp_path_factory.mktemp("install")
    built = our_wheel.build(root)
    make_environment(root / "venv")
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
    return root / "venv"


def make_environment(folder: Path) -> None:
    """Make an environment with the dependencies of this one in its sight, in place of the setuptools it comes with."""
    if not (folder / "bin/pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    remove = [str(folder / "bin/python"), "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools"]
    subprocess.run(remove, check=True, capture_output=True)
    link_dependencies(next((folder / "lib").glob("python3.*")) / "site-packages")


@pytest.fixture
def clone(tmp_path) -> Path:
    """A clean copy of the tree; where the tests run with a wheel alone, there is none."""
    if not (our_wheel.ROOT / "vladva_clip").is_dir():
        pytest.skip("there is no checkout here")
    return our_wheel.tree(tmp_path / "a clone")


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


def shell(folder: Path, *lines: str) -> str:
    """Type lines into one shell, offline, in an environment whose dependencies are there; returns what they print."""
    env = {**os.environ, **NO_NETWORK, **OFFLINE, "OMP_NUM_THREADS": "1"}
    words = ["bash", "-euc", "\n".join(lines)]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_message_about_a_missing_package_names_a_command_that_works(environment, tmp_path):
    """For a wheel; pip takes the command, and has the extra's packages in view."""
    python = environment / "bin/python"
    (command,) = shell(tmp_path, f"{python} -c '{MISSING}'").splitlines()
    assert command.startswith('pip install "vladva-clip[train] @ file:///') and command.endswith('.whl"')
    assert "satisfied: accelerate" in shell(tmp_path, "unset PIP_NO_DEPS", f"{python} -m {command} --dry-run")


@pytest.mark.parametrize("editable", [["--editable"], []])
def test_in_a_clone_it_names_the_clone(clone, tmp_path, editable):
    environment = tmp_path / "venv"
    make_environment(environment)
    python = environment / "bin/python"
    shell(clone, f"'{python}' -m pip install {' '.join(editable)} .")
    (command,) = shell(tmp_path, f"'{python}' -c '{MISSING}'").splitlines()
    assert command == " ".join(["pip install", *editable, f'"{clone}[train]"'])
    shell(tmp_path, f"'{python}' -m {command}")
    place = shell(tmp_path, f"'{python}' -c 'import vladva_clip; print(vladva_clip.__file__)'")
    assert place.startswith(str(clone)) == bool(editable)


def test_the_readmes_commands_run_line_by_line_in_a_fresh_clone(clone):
    """Those of "Try it" and the installation of "Training", in one shell, as they stand there."""
    make, by_hand, *rest = re.findall(r"^```bash\n(.*?)^```", (clone / "README.md").read_text(), re.S | re.M)
    training = next(block for block in rest if "vladva-train debug" in block)
    install, _, dry_run, *_ = training.splitlines()
    assert install.startswith("pip install") and "--dry-run" in dry_run
    shell(clone, "make .venv/bin/pip")
    make_environment(clone / ".venv")
    said = shell(clone, *make.splitlines(), install, dry_run)
    assert "vladva-tiny" in said and (clone / "vladva-quickstart/contact_sheet.png").is_file()
    shutil.rmtree(clone / "vladva-quickstart")
    said = shell(clone, *by_hand.splitlines(), "command -v vladva")
    assert said.strip().endswith(f"{clone}/.venv/bin/vladva")
    assert (clone / "vladva-quickstart/contact_sheet.png").is_file()


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
