"""The Makefile on a fresh machine: which Python it takes, and what it leaves behind when something fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.wide  # environments, twenty seconds of them
TOOLS = ("make", "sh", "rm", "touch", "mkdir")
OLD = '#!/bin/sh\nif [ "$1" = --version ]; then echo "Python 3.10.12"; else exit 1; fi\n'
NEW = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
UNFINISHED = f"""#!/bin/sh
if [ "$2" = venv ]; then mkdir -p "$3/bin"; touch "$3/bin/python"; exit 1; fi
exec "{sys.executable}" "$@"
"""


class Machine:
    """A folder with the Makefile, and a PATH on which only `TOOLS` and the given programs are."""

    def __init__(self, root: Path) -> None:
        self.clone, self.path = root / "clone", root / "bin"
        self.venv = self.clone / ".venv"
        self.clone.mkdir()
        self.path.mkdir()
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, self.clone)
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool))

    def put(self, name: str, script: str, folder: Path | None = None) -> None:
        program = (folder or self.path) / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.unlink(missing_ok=True)  # it may be a link to the real Python
        program.write_text(script)
        program.chmod(0o755)

    def make(self, *words: str) -> subprocess.CompletedProcess:
        env = {"PATH": str(self.path), "PIP_NO_INDEX": "1", "HOME": str(self.clone)}
        return subprocess.run(
            [str(self.path / "make"), *words], cwd=self.clone, env=env, capture_output=True, text=True
        )


@pytest.fixture
def machine(tmp_path) -> Machine:
    if not shutil.which("make"):
        pytest.skip("make is not here")
    return Machine(tmp_path)


def said(done: subprocess.CompletedProcess) -> str:
    """The one line that is not make's own about the failed target."""
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("make: ***"))
    return line


@pytest.mark.parametrize("words", [["quickstart"], ["test"], ["dist"]])
def test_an_old_python_is_refused_before_anything_is_made(machine, words):
    machine.put("python3", OLD)
    line = said(machine.make(*words))
    assert "Python 3.10.12" in line and "3.11" in line and "make PYTHON=python3.12 quickstart" in line
    assert not machine.venv.exists()


def test_a_newer_one_beside_it_is_found(machine):
    machine.put("python3", OLD)
    machine.put("python3.12", NEW)
    done = machine.make(".venv/bin/pip")
    assert done.returncode == 0, done.stderr
    assert (machine.venv / "bin/pip").is_file()


def test_the_one_that_is_named_is_taken_or_refused(machine):
    machine.put("mine", OLD)
    machine.put("python3.12", NEW)
    assert "mine is Python 3.10.12" in said(machine.make("PYTHON=mine", "quickstart"))
    assert not machine.venv.exists()


def test_an_environment_that_cannot_be_finished_is_removed(machine):
    machine.put("python3", UNFINISHED)
    assert machine.make("quickstart").returncode == 2
    assert not machine.venv.exists()


def test_an_unfinished_environment_is_finished(machine):
    machine.put("python3", NEW)
    machine.put("python", NEW, machine.venv / "bin")
    done = machine.make(".venv/bin/pip")
    assert done.returncode == 0 and (machine.venv / "bin/pip").is_file(), done.stderr


def test_an_environment_of_an_old_python_is_named(machine):
    for name in ("python", "pip"):
        machine.put(name, OLD, machine.venv / "bin")
    machine.put("python3", NEW)
    line = said(machine.make("quickstart"))
    assert "Python 3.10.12" in line and "rm -rf .venv" in line


def test_after_a_failed_installation_make_installs_again(machine):
    """Without a network pip fails; with a working pip the next call goes on in the same environment."""
    machine.put("python3", NEW)
    assert machine.make("quickstart").returncode == 2
    assert not [*machine.venv.glob(".installed*")]
    machine.put("python", NEW.replace("exec", 'if [ "$2" = pip ]; then exit 0; fi; exec'), machine.venv / "bin")
    machine.put("vladva", "#!/bin/sh\n", machine.venv / "bin")
    done = machine.make("quickstart")
    assert done.returncode == 0 and "-m venv" not in done.stdout, done.stderr
    assert os.listdir(machine.venv).count(".installed-quickstart") == 1
