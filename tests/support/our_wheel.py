"""The project's wheel, built from a clean copy of the tree: what an earlier build left behind must not get into it."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", "vladva-quickstart")


def build(out: Path) -> Path:
    """Build the wheel into `out`, offline; returns its path."""
    shutil.copytree(ROOT, out / "tree", ignore=shutil.ignore_patterns(*LEFT_OUT))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(out / "tree")], check=True)
    return next(out.glob("*.whl"))
