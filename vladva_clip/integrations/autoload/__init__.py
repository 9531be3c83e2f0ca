"""The entry point that `import torch` calls: it installs one import finder, and does nothing else.

The finder finds no modules itself. It lets `open_clip.factory` and `clip_benchmark.models` be imported as usual, and
runs our patch on each of them right after, before any code can have copied a name. For a program that imports neither,
the cost is one object in `sys.meta_path`.

It is installed as `vladva_clip_autoload`, beside the package, so that `import torch` still works if `vladva_clip` is
damaged or a script of the user's. We never run such a script: the owner of the name is checked before the import.

All errors are reported and suppressed, except KeyboardInterrupt: none of our code raises it, so it is the user's Ctrl-C
and must end the import.
"""

import contextlib
import importlib
import os
import sys
import threading
import warnings
from types import ModuleType

VARIABLE = "VLADVA_CLIP_AUTOLOAD"
PACKAGE = "vladva_clip"
PATCHES = {  # module -> ours with a function `patch(module)`
    "open_clip.factory": "vladva_clip.integrations.open_clip",
    "clip_benchmark.models": "vladva_clip.integrations.clip_benchmark",
}


def autoload() -> None:
    """Run `install`, unless VLADVA_CLIP_AUTOLOAD=0. Errors are reported: they would break every `import torch`."""
    try:
        if os.environ.get(VARIABLE) != "0":
            install()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _say(f"vladva_clip: open_clip won't know its models ({type(error).__name__}: {error})")


def install() -> None:
    """Make our models known to open_clip and clip_benchmark: now if they are loaded, otherwise when they are imported.

    Not needed if `import torch` has called `autoload`. Calling it again changes nothing.

    Raises:
        ImportError: another module has the name `vladva_clip`; it was not run.
        ValueError: a registered name is also a model of open_clip; VLADVA_CLIP_MODELS can't be read.
    """
    if not any(isinstance(finder, PatchingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, PatchingFinder())
    for name in PATCHES:
        if name in sys.modules:
            _patch_once_it_has_run(sys.modules[name])


class PatchingFinder:
    """Finds the modules of `PATCHES` with the finders after it, and has each patched once it has run."""

    def __init__(self) -> None:
        self._asking: set[tuple[int, str]] = set()  # (thread, module)

    def find_spec(self, fullname, path=None, target=None):
        """Return the spec that the others find, with our loader wrapped around theirs; None for other modules."""
        asking = (threading.get_ident(), fullname)
        if fullname not in PATCHES or asking in self._asking:  # other finders may ask us in turn
            return None
        self._asking.add(asking)
        try:
            spec = _ask(_after(self), fullname, path, target)
        finally:
            self._asking.discard(asking)
        if hasattr(getattr(spec, "loader", None), "exec_module"):  # a bare folder of that name has no such loader
            spec.loader = PatchingLoader(spec.loader)
        return spec


class PatchingLoader:
    """Stands in for another loader until the module runs, and leaves no trace on the module."""

    def __init__(self, loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str):
        if name == "_loader":  # in a copy without attributes yet
            raise AttributeError(name)
        return getattr(self._loader, name)  # get_source, is_package, ...: what tools ask of a spec's loader

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then the patch; a failing patch only gives a warning and leaves the module unchanged."""
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _patch_or_warn(module)


def _after(finder: PatchingFinder) -> list:
    """The finders that have not been asked yet; all of them if ours was removed."""
    finders = list(sys.meta_path)
    return finders[finders.index(finder) + 1 :] if finder in finders else finders


def _ask(finders: list, *asked):
    for finder in finders:
        find = getattr(finder, "find_spec", None)
        spec = find and find(*asked)
        if spec is not None:
            return spec
    return None


def _patch_once_it_has_run(module: ModuleType) -> None:
    """Patch a module now, or when it has run: `clip_benchmark.models` itself may be the first to import torch.

    Python offers no hook for the end of a module that is already running. But importlib's last act on one is to set
    `_initializing` on its spec, so the spec gets a class that notices this, until then.
    """
    spec = getattr(module, "__spec__", None)
    if not getattr(spec, "_initializing", False):
        _patch(module)
        return
    kind = type(spec)

    class Watched(kind):
        def __setattr__(self, name: str, value) -> None:
            super().__setattr__(name, value)
            if name == "_initializing" and not value:
                self.__class__ = kind
                if sys.modules.get(module.__name__) is module:  # it ran without an error
                    _patch_or_warn(module)

    spec.__class__ = Watched


def _patch_or_warn(module: ModuleType) -> None:
    try:
        _patch(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # importing open_clip must work without us
        _warn(f"{module.__name__} won't know vladva_clip's models ({type(error).__name__}: {error})")


def _patch(module: ModuleType) -> None:
    _refuse_a_stranger()
    importlib.import_module(PATCHES[module.__name__]).patch(module)


def _refuse_a_stranger() -> None:
    """Raise ImportError if `vladva_clip` is another module, such as a script in the working directory; never run it."""
    loaded = sys.modules.get(PACKAGE)
    spec = _ask(list(sys.meta_path), PACKAGE, None, None) if loaded is None else getattr(loaded, "__spec__", None)
    origin = getattr(spec, "origin", None)  # the file to run; None for a bare folder
    if not (origin and _is_our_init(origin)) and (spec or loaded):  # if there is none, the import itself fails
        found = origin or ", ".join(getattr(spec, "submodule_search_locations", None) or [repr(loaded)])
        raise ImportError(f"{found} has the name of the installed package {PACKAGE}: rename it, or start elsewhere")


def _is_our_init(path: str) -> bool:
    """Whether a file is our package's, in any installation: this module is in its folder, or beside it."""
    folder, name = os.path.split(path)
    inside = os.path.join(folder, "integrations", "autoload")  # in a checkout
    beside = os.path.join(os.path.dirname(folder), "vladva_clip_autoload")  # from a wheel
    return name.startswith("__init__.") and any(map(os.path.isdir, (inside, beside)))


def _warn(message: str) -> None:
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=4)
    except KeyboardInterrupt:
        raise
    except BaseException:  # with -W error, or a program's own warning hook
        _say(message)


def _say(message: str) -> None:
    if sys.stderr is not None:  # `print` would take None for stdout
        with contextlib.suppress(Exception):  # such as a closed stderr
            print(message, file=sys.stderr)
