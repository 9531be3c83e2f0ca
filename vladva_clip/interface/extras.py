"""Optional packages that our extras bring: a one-line error when one is missing or can't be imported."""

import contextlib
import importlib
import importlib.util
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION = "vladva-clip"
EXTRAS: dict[str, tuple[str, ...]] = {
    "accelerate": ("train", "benchmarks"),
    "bitsandbytes": ("qlora",),
    "braceexpand": ("train",),
    "clip_benchmark": ("benchmarks",),
    "datasets": ("train",),
    "matplotlib": ("benchmarks",),
    "pyarrow": ("train",),
    "ray": ("ray",),
    "requests": ("benchmarks",),
    "sentence_transformers": ("vectors",),
    "tensorboard": ("train",),
    "tokenizers": ("train",),
    "webdataset": ("train", "benchmarks"),
}
"""Module -> the extras that bring it, as in pyproject.toml; messages name the first one."""
OTHERS = {"sentencepiece": "sentencepiece protobuf"}
"""Modules that no extra brings -> what to install."""


class ExtraError(ImportError, ValueError):
    """An optional package is missing or can't be imported; the message says what to install."""


def require(*modules: str, purpose: str = "this", extra: str | None = None) -> None:
    """Import optional modules, before anything that takes long.

    Args:
        modules: keys of `EXTRAS` or `OTHERS`.
        purpose: what needs them, for the message.
        extra: the extra to name if several bring the package; the first one by default.

    Raises:
        ExtraError: a module is missing or can't be imported; the message says which and why.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # an import of incompatible packages can raise anything
            raise _failed(module, purpose, error, extra) from error


def is_installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # ValueError: a stand-in in sys.modules
        return False


@contextlib.contextmanager
def named(purpose: str, extras: str | None = None) -> Iterator[None]:
    """Within this block, turn a failed import of an optional package into an ExtraError.

    Args:
        purpose: what needs the package, for the message.
        extras: the extras that bring everything the purpose needs; by default the package's own.

    Raises:
        ExtraError: instead of such an ImportError. Any other ImportError is a bug and passes through.
    """
    try:
        yield
    except ExtraError as error:
        if extras is None or is_installed(error.name):
            raise
        raise ExtraError(missing(error.name, purpose, extras), name=error.name) from error
    except ImportError as error:
        cause = next((one for one in _chain(error) if _package(one) in EXTRAS), None)
        if cause is None:
            raise
        raise _failed(_package(cause), purpose, cause, extras) from error


def _chain(error: BaseException | None) -> Iterator[ImportError]:
    """Yield an ImportError and its causes: transformers wraps the failed imports of its own modules."""
    while error is not None:
        if isinstance(error, ImportError):
            yield error
        error = error.__cause__


def _package(error: ImportError) -> str:
    return (error.name or "").partition(".")[0]


def missing(module: str, purpose: str = "this", extras: str | None = None) -> str:
    """Return the message for a module that is not installed, naming the extra that brings it."""
    wanted = OTHERS[module] if module in OTHERS else ourselves(extras or EXTRAS[module][0])
    return f"{purpose} needs {module}, which is not installed: pip install {wanted}"


def ourselves(extras: str = "") -> str:
    """Return what follows `pip install` to install this package from where it came, with extras or without.

    From an index the name is enough. Anything else has left its address in `direct_url.json` (PEP 610): a folder, such
    as a clone, editable or not; a wheel; a repository.
    """
    origin, added = _origin(), f"[{extras}]" if extras else ""
    if origin is None:
        return f'"{DISTRIBUTION}{added}"'
    if "dir_info" in origin:
        editable = "--editable " if origin["dir_info"].get("editable") else ""
        return f'{editable}"{url2pathname(urlsplit(origin["url"]).path)}{added}"'
    address = origin["url"]
    if vcs := origin.get("vcs_info"):
        address = f"{vcs['vcs']}+{address}@{vcs['commit_id']}"
    return f'"{DISTRIBUTION}{added} @ {address}"'


def _origin() -> dict | None:
    """Return the content of `direct_url.json`; None if we come from an index."""
    try:
        return json.loads(metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "null")
    except metadata.PackageNotFoundError:  # on the path, but not installed
        root = Path(__file__).parents[2]
        return {"url": root.as_uri(), "dir_info": {}} if (root / "pyproject.toml").is_file() else None


def _failed(module: str, purpose: str, error: Exception, extras: str | None = None) -> ExtraError:
    """Return the error for a failed import: a missing package, a broken or outdated one, or a missing dependency."""
    lacking = error.name if isinstance(error, ModuleNotFoundError) else None
    if lacking in EXTRAS | OTHERS and not is_installed(lacking):
        return ExtraError(missing(lacking, purpose, extras), name=lacking)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    package = module.replace("_", "-")
    return ExtraError(
        f"{purpose} needs {module}, which is installed{_version(package)} but can't be imported ({reason}): repair it "
        f"with pip install --force-reinstall {package}, or upgrade it with pip install --upgrade {package}",
        name=module,
    )


def _version(package: str) -> str:
    try:
        return f" in version {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""
