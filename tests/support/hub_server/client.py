"""The real client, turned to a Hub of ours: in this process, or in one of its own, which reads the environment."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

TOKEN = "hf_TopSecretTokenOfATest"


@contextlib.contextmanager
def online(hub, token: str | None = TOKEN, cache_dir: Path | None = None) -> Iterator[None]:
    """The client in this process talks to `hub`, without proxies, and tries again without waiting."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)
        for name, value in (("HF_HUB_OFFLINE", False), ("ENDPOINT", hub.url), ("HF_HUB_DISABLE_XET", True)):
            patch.setattr(constants, name, value)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
        if cache_dir:
            patch.setattr(constants, "HF_HUB_CACHE", str(cache_dir))
        patch.setenv("HF_TOKEN", token) if token else patch.delenv("HF_TOKEN", raising=False)
        patch.setattr(time, "sleep", lambda seconds: None)
        close_session()
        try:
            yield
        finally:
            close_session()


def call(statement: str, url: str, offline: bool = False, **environment: str) -> str:
    """Run a statement in a process of its own, as the client reads its settings when imported.

    Returns:
        What was printed; for a ValueError its type and message.
    """
    script = (
        "import time, vladva_clip, vladva_clip.sources.locate\n"
        "time.sleep = lambda seconds: None\n"  # a client that tries again does so at once
        f"try:\n    {statement}\nexcept ValueError as error:\n    print(type(error).__name__, error)\n"
    )
    variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    variables |= {"HF_HUB_OFFLINE": str(int(offline)), "HF_ENDPOINT": url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    variables |= {"HF_HUB_DISABLE_XET": "1", **environment}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=variables, timeout=180)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
