"""A fresh interpreter, for what happens at import."""

import os
import subprocess
import sys
from pathlib import Path


def run(code: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Run Python code in a process of its own, offline; its output is text, its exit status unchecked."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("VLADVA_CLIP_")}
    env |= {"HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, env=env, timeout=180)


def check(code: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """The same, for code that must succeed."""
    done = run(code, cwd, **environment)
    assert done.returncode == 0, done.stderr
    return done
