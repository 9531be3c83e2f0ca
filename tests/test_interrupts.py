"""Ctrl-C, a real SIGINT in a process of its own: one line, status 130, no traceback, no half-written file."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vladva_clip.interface import interrupts
from vladva_clip.storage import whole

BASE = Path(whole.__file__).parents[1] / "assets/vladva-tiny/base"
TRAIN, BENCHMARK = "vladva_training.cli", "vladva_benchmarks.cli"
COMMANDS = {  # name -> module, words, a module that is imported shortly before the work
    "recipe": (TRAIN, ["debug", "output_dir=out"], "vladva_training.train"),
    "dry run": (TRAIN, ["debug", "output_dir=out", "--dry-run"], "vladva_training.plan.dry_run"),
    "pretrain-tiny-vision": (TRAIN, ["pretrain-tiny-vision", "--output-dir", "out"], f"{TRAIN[:15]}.tiny.pixels"),
    "pretrain-tiny": (
        TRAIN,
        ["pretrain-tiny", "--base", str(BASE), "--output-dir", "out", "--minutes", "9"],
        "vladva_training.tiny.tokenizer",
    ),
    "evaluate-tiny": (TRAIN, ["evaluate-tiny", "--output", "out/a.json"], "vladva_training.tiny.probes"),
    "caption": (
        TRAIN,
        [
            "caption",
            "scenes:train:100000",
            "--output",
            "out",
            "--fill",
            "long",
            "--long-model",
            str(BASE),
            "--tokenizer",
            "vladva-tiny",
        ],
        "vladva_training.captioning.fill",
    ),
    "run": (
        BENCHMARK,
        [
            "run",
            "scenes",
            "--model",
            "vladva-tiny",
            "--data-root",
            "data",
            "--output",
            "out",
            "--scene-pictures",
            "4000",
        ],
        "vladva_benchmarks.suites.runner",
    ),
    "scene-figures": (
        BENCHMARK,
        ["scene-figures", "--output", "out/a.json"],
        "vladva_benchmarks.drawn.scene_evaluation",
    ),
    "miniature": (
        BENCHMARK,
        ["miniature", "--results", "out", "--work", "out"],
        "vladva_benchmarks.drawn.miniature_report",
    ),
    "zero-shot": (BENCHMARK, ["zero-shot", "--json", "out/a.json"], "vladva_benchmarks.gauges"),
}
EARLY, IN_TORCH = "vladva_clip.interface.extras", "torch.autograd.function"


def interrupted(module: str, words: list[str], seen: str, pause: float, folder: Path) -> tuple[int, str]:
    """Run a command, and send SIGINT to all of its processes once it has imported a module, and some seconds later.

    Returns:
        The exit status, and stderr without Python's list of imports.
    """
    command = [sys.executable, "-X", "importtime", "-u", "-m", module, *words]
    free = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}  # a job may ignore it
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": folder}
    process = subprocess.Popen(command, start_new_session=True, **streams, **free)
    for line in process.stderr:
        if line.split("|")[-1].strip() == seen:
            break
    time.sleep(pause)
    assert process.poll() is None, "it had ended before"
    os.killpg(process.pid, signal.SIGINT)
    try:
        rest = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    return process.returncode, "".join(line for line in rest.splitlines(True) if not line.startswith("import time:"))


def check(name: str, seen: str, pause: float, folder: Path) -> None:
    module, words, _ = COMMANDS[name]
    status, said = interrupted(module, words, seen, pause, folder)
    lines = [line for line in said.splitlines() if "interrupted" in line or "stopped by a signal" in line]
    assert status == 130 and len(lines) == 1, said
    assert "Traceback" not in said and "Exception ignored" not in said and "KeyboardInterrupt" not in said
    left = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size == 0]
    assert not [path for path in folder.rglob("*") if whole.is_scratch(path)], left


DESTRUCTOR = """
import os, signal, time
from vladva_clip.interface import interrupts

class Pattern:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

try:
    with interrupts.kept(""):
        Pattern()
        time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_in_a_destructor_where_python_drops_it():
    """As those of the package `regex`, which parses a long pattern into objects that have one."""
    free = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    done = subprocess.run([sys.executable, "-c", DESTRUCTOR], capture_output=True, text=True, timeout=50, **free)
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)


@pytest.mark.parametrize("name", ["dry run", "evaluate-tiny", "zero-shot"])
@pytest.mark.parametrize("seen", [EARLY, IN_TORCH])
def test_while_libraries_are_imported(name, seen, tmp_path):
    check(name, seen, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "dry run"])
@pytest.mark.parametrize("pause", [1.0, 10.0])
def test_in_the_middle_of_work(name, pause, tmp_path):
    check(name, COMMANDS[name][2], pause, tmp_path)


@pytest.mark.parametrize("script", ["vladva-train", "vladva-benchmark"])
def test_a_console_script(script, tmp_path):
    """The same through the installed script, whose own two lines run first."""
    path = shutil.which(script, path=os.path.dirname(sys.executable))
    words = {"vladva-train": ["debug", "--dry-run"], "vladva-benchmark": ["zero-shot"]}[script]
    if path is None:
        pytest.skip("the console scripts are not installed beside this Python")
    code = f"import sys; sys.argv = {[path, *words]!r}; exec(open({path!r}).read())"
    (tmp_path / "started_as_a_script.py").write_text(code)
    status, said = interrupted("started_as_a_script", [], IN_TORCH, 0, tmp_path)
    assert (status, said) == (130, f"{script}: interrupted\n")


@pytest.mark.parametrize(
    "call", [pytest.param("run(Path('out'))", marks=pytest.mark.wide), "export_model('vladva-tiny', 'out')"]
)
def test_functions_leave_nothing_half_written(call, tmp_path):
    """As functions they raise KeyboardInterrupt: their caller decides. It comes as soon as anything is on the disk."""
    script = (
        "import signal, threading, time, os\nfrom pathlib import Path\n"
        "from vladva_clip import export_model\nfrom vladva_clip.quickstart.tour import run\n"
        "def later():\n    while not os.listdir():\n        time.sleep(0.001)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "threading.Thread(target=later, daemon=True).start()\n"
        f"try:\n    {call}\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "interrupted\n" and ran.stderr == ""
    assert not [path for path in tmp_path.rglob("*") if whole.is_scratch(path)]


@pytest.fixture
def handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("error", [ImportError, None])
def test_what_a_library_makes_of_it(handler, error):
    with pytest.raises(KeyboardInterrupt), interrupts.kept("interrupted"):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except BaseException:
            if error:
                raise error("a module can't be imported") from None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


INTERRUPTED_IMPORT = """
import os, pathlib, signal, sys
from vladva_clip.interface import interrupts
pathlib.Path("struck.py").write_text("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)")
sys.path.insert(0, "")
signal.signal(signal.SIGINT, signal.default_int_handler)
{before}
try:
    with interrupts.kept("interrupted"):
        {within}
        import struck
except KeyboardInterrupt:
    print("alive")
    {after}
"""
WAIT = "child = os.fork(); child and print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
FORKED = {"within": WAIT, "after": "os._exit(7)"}


@pytest.mark.parametrize(
    ("changes", "status", "out", "err"),
    [
        ({}, 130, "", "interrupted\n"),
        ({"before": "sys.ps1 = '>>> '"}, 0, "alive\n", ""),
        (FORKED, 130, "alive\n7\n", "interrupted\n"),
    ],
    ids=["a program", "a session", "a forked worker"],
)
def test_an_import_ends_a_program_but_no_session_and_no_worker(tmp_path, changes, status, out, err):
    code = INTERRUPTED_IMPORT.format(**({"before": "", "within": "pass", "after": "pass"} | changes))
    ran = subprocess.run([sys.executable, "-u", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (status, out, err)


def test_other_errors_and_other_handlers_are_left_alone(handler):
    with pytest.raises(ZeroDivisionError), interrupts.kept("interrupted"):
        raise ZeroDivisionError
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.kept("interrupted"):
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
