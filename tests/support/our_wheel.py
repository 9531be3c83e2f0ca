"""The project's wheel, built from a clean copy of the tree: what an earlier build left behind must not get into it.

With VLADVA_CLIP_WHEEL it is the wheel that is named there, as in `make test-dist`, where there is no tree.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", "vladva-quickstart")


BUILT = os.environ.get("VLADVA_CLIP_WHEEL")


def tree(out: Path) -> Path:
    """Copy the tree, without what is built or installed in it; returns `out`."""
    return Path(shutil.copytree(ROOT, out, ignore=shutil.ignore_patterns(*LEFT_OUT)))


def build(out: Path) -> Path:
    """Build the wheel into `out`, offline; returns its path."""
    return Path(shutil.copy(BUILT, out)) if BUILT else build_from(tree(out / "tree"), out)


def build_from(source: Path, out: Path) -> Path:
    """Build the wheel of a folder or sdist into `out`, offline; returns its path."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    return next(out.glob("*.whl"))


def build_sdist(out: Path) -> Path:
    """Build the sdist into `out`, offline; returns its path."""
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(out)], cwd=tree(out / "tree"), check=True, capture_output=True)
    return next(out.glob("*.tar.gz"))
