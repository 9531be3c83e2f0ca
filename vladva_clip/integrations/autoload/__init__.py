"""The entry point that `import torch` calls: it puts one finder in place, and does nothing else.

The finder finds nothing of its own. It lets `open_clip.factory` and `clip_benchmark.models` be imported as ever, and
has our patch run over each of them right after; no code can have copied a name before that. A program that imports
neither pays for one object in `sys.meta_path`.

Installed as `vladva_clip_autoload`, beside the package: where `vladva_clip` is a script of the user's, or is damaged,
`import torch` still works. Such a script is never run by us: whose the name is, is found out before it is imported.

Whatever goes wrong is reported, and goes no further. KeyboardInterrupt alone passes: only our own code runs here, and
it does not raise that, so it is the user's Ctrl-C, which must end what they wait for.
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
    """Run `install`, unless VLADVA_CLIP_AUTOLOAD=0. What it raises is reported: it would break every `import torch`."""
    try:
        if os.environ.get(VARIABLE) != "0":
            install()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _say(f"vladva_clip: open_clip won't know its models ({type(error).__name__}: {error})")


def install() -> None:
    """Have open_clip and clip_benchmark know our models: now, where they are loaded, else when they are imported.

    Not needed where `import torch` has called `autoload`; calling it again changes nothing.

    Raises:
        ImportError: another module has the name `vladva_clip`; it was not run.
        ValueError: a registered name that open_clip has a model of; a VLADVA_CLIP_MODELS that can't be read.
    """
    if not any(isinstance(finder, PatchingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, PatchingFinder())
    for name in PATCHES:
        if name in sys.modules:
            _patch_once_it_has_run(sys.modules[name])


class PatchingFinder:
    """Finds a module of `PATCHES` as the finders after it do, and has it patched once it has run."""

    def __init__(self) -> None:
        self._asking: set[tuple[int, str]] = set()  # (thread, module)

    def find_spec(self, fullname, path=None, target=None):
        """Return the spec that the others find, with our loader around theirs; None for any other module."""
        asking = (threading.get_ident(), fullname)
        if fullname not in PATCHES or asking in self._asking:  # a finder that asks the others too asks us back
            return None
        self._asking.add(asking)
        try:
            spec = _ask(_after(self), fullname, path, target)
        finally:
            self._asking.discard(asking)
        if hasattr(getattr(spec, "loader", None), "exec_module"):  # not so a bare folder of the module's name
            spec.loader = PatchingLoader(spec.loader)
        return spec


class PatchingLoader:
    """Another loader, until the module runs; nothing of this one stays on the module."""

    def __init__(self, loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str):
        if name == "_loader":  # in a copy that has nothing yet
            raise AttributeError(name)
        return getattr(self._loader, name)  # get_source, is_package, ...: what tools ask of a spec's loader

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then the patch; a patch that fails leaves the module as it is, with a warning."""
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _patch_or_warn(module)


def _after(finder: PatchingFinder) -> list:
    """The finders that have not been asked yet; all of them if ours has been taken out."""
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
    except BaseException as error:  # whoever imports open_clip need not want us
        _warn(f"{module.__name__} won't know vladva_clip's models ({type(error).__name__}: {error})")


def _patch(module: ModuleType) -> None:
    _refuse_a_stranger()
    importlib.import_module(PATCHES[module.__name__]).patch(module)


def _refuse_a_stranger() -> None:
    """Raise ImportError if `vladva_clip` is another's, such as a script in the working directory; run nothing of it."""
    loaded = sys.modules.get(PACKAGE)
    spec = _ask(list(sys.meta_path), PACKAGE, None, None) if loaded is None else getattr(loaded, "__spec__", None)
    origin = getattr(spec, "origin", None)  # the file that the import runs; None for a bare folder
    if not (origin and _is_our_init(origin)) and (spec or loaded):  # the import itself says that there is none
        found = origin or ", ".join(getattr(spec, "submodule_search_locations", None) or [repr(loaded)])
        raise ImportError(f"{found} has the name of the installed package {PACKAGE}: rename it, or start elsewhere")


def _is_our_init(path: str) -> bool:
    """Whether a file is our package's, of this installation or another: this module lies in its folder, or beside."""
    folder, name = os.path.split(path)
    inside = os.path.join(folder, "integrations", "autoload")  # in a checkout
    beside = os.path.join(os.path.dirname(folder), "vladva_clip_autoload")  # from a wheel
    return name.startswith("__init__.") and any(map(os.path.isdir, (inside, beside)))


def _warn(message: str) -> None:
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=4)
    except KeyboardInterrupt:
        raise
    except BaseException:  # under -W error; a program's own way of showing warnings
        _say(message)


def _say(message: str) -> None:
    if sys.stderr is not None:  # None would be stdout to `print`
        with contextlib.suppress(Exception):  # such as a closed stderr
            print(message, file=sys.stderr)
