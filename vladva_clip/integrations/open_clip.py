"""The patch for open_clip: its factory functions accept our names, and its lists show them. Nothing else changes.

Our slow imports happen only when one of our models is requested.
"""

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from vladva_clip.sources import bare_names, profiles, registry
from vladva_clip.sources.download import find_file
from vladva_clip.sources.locate import BASE_FILE, CONFIG_FILE, EXPORT_FILE, has_schema
from vladva_clip.sources.profiles import Profile
from vladva_clip.storage.adapter_files import MARKER, OPEN_CLIP_CONFIG
from vladva_clip.storage.config import HUB, read_json

_LOADING: ContextVar[str | None] = ContextVar("the model name that open_clip itself is loading", default=None)


def patch(factory: ModuleType) -> None:
    """Patch `open_clip.factory` once it has run, and modules that have already imported its functions by name.

    Raises:
        ValueError: a registered name is also a model of open_clip, or VLADVA_CLIP_MODELS can't be read; nothing is
            changed then.
    """
    if hasattr(factory.create_model, MARKER):
        return
    entries = {name: registry.find(name) for name in registry.list_models()}
    for name in entries:
        _refuse_taken(factory, name)
    wrapped = {name: _wrap(getattr(factory, name), ours) for name, ours in _OURS.items()}
    originals = {id(getattr(factory, name)): ours for name, ours in wrapped.items()}
    for name, entry in entries.items():
        _list(factory, name, entry)
    vars(factory).update(wrapped)
    if hasattr(sys.modules["open_clip"], "create_model"):  # it was loaded before us
        rebind(originals)
    if _observe not in registry.observers:
        registry.observers.append(_observe)


def is_ours(model_name: Any, cache_dir: str | None = None) -> bool:
    """Whether a name is one of ours, a published embedder's, or a source whose open_clip_config.json has our marker."""
    if not isinstance(model_name, str) or not has_schema(model_name):
        return model_name in registry.list_models()
    if _profile(model_name) is not None:
        return True
    path = find_file(model_name, OPEN_CLIP_CONFIG, cache_dir)
    try:
        return path is not None and MARKER in read_json(path)
    except (ValueError, OSError):  # open_clip reads the file next and reports the error
        return False


def _profile(model_name: str) -> Profile | None:
    """The profile of a Hub id with our prefix; None for anything else."""
    repo = model_name.removeprefix(HUB).partition("@")[0]
    return profiles.of_repository(repo) if model_name.startswith(HUB) else None


def _observe(name: str, entry: registry.Entry) -> None:
    """Add a name that is about to be registered, if open_clip is loaded."""
    factory = sys.modules.get("open_clip.factory")
    if factory is None:  # removed from sys.modules; a new import will list every name
        return
    _refuse_taken(factory, name)
    _list(factory, name, entry)


def _refuse_taken(factory: ModuleType, name: str) -> None:
    if name in factory._MODEL_CONFIGS and MARKER not in factory._MODEL_CONFIGS[name]:
        raise ValueError(f"the model name {name!r} is taken by one of open_clip's own models; choose another")


def _list(factory: ModuleType, name: str, entry: registry.Entry) -> None:
    """Add a name to the two tables that open_clip's list functions read; get_model_config supplies the rest."""
    configs, pretrained = factory._MODEL_CONFIGS, importlib.import_module("open_clip.pretrained")._PRETRAINED
    configs[name] = {MARKER: {"name": name}}
    pretrained[name] = {tag: {"url": "", "hf_hub": "", MARKER: {"name": name, "tag": tag}} for tag in entry.tags}


def _wrap(original: Callable, ours: Callable) -> Callable:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = _given(signature, args, kwargs)
        except TypeError:
            return original(*args, **kwargs)  # which reports what is wrong with the call
        name = given.get("model_name")
        if isinstance(name, str) and not has_schema(name):
            name = name.replace("/", "-")  # as open_clip reads names
        if name == _LOADING.get() or not is_ours(name, given.get("cache_dir")):
            _refuse_meant_for_us(given.get("model_name"), original)
            return _as_before(name, given.get("model_name"), original, args, kwargs)
        return ours(**{**given, "model_name": name})

    setattr(call, MARKER, True)
    return call


def _refuse_meant_for_us(name: Any, original: Callable) -> None:
    """Refuse a bare path of our files or a bare Hub id of our models: open_clip would take CLIP's tokenizer for it.

    Raises:
        UnknownModelError: with the spelling that works. `get_model_config` returns None instead, as for any such name.
    """
    if not isinstance(name, str) or has_schema(name) or original.__name__ == "get_model_config":
        return
    if name.replace("/", "-") in sys.modules["open_clip.factory"]._MODEL_CONFIGS:
        return
    directory = Path(os.path.expanduser(name))
    is_repository = name.partition("@")[0].lower() in registry.repositories()
    if is_repository or any(os.path.isfile(directory / file) for file in (CONFIG_FILE, EXPORT_FILE, BASE_FILE)):
        raise registry.unknown(name, registry.list_models())


def _as_before(name: Any, bare: Any, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call open_clip's own function; functions that it calls in turn need not look for our marker again."""
    token = _LOADING.set(name)
    try:
        return original(*args, **kwargs)
    except registry.UnknownModelError:
        raise
    except RuntimeError as error:  # open_clip lists its own names, and not what is wrong with a path
        if "not found in built-ins" in str(error) and (bare_names.is_path(bare) or bare_names.is_directory(bare)):
            raise registry.unknown(bare, registry.list_models()) from error
        raise
    finally:
        _LOADING.reset(token)


def _given(signature: inspect.Signature, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return a call's arguments by name, in the order of the installed open_clip.

    Arguments equal to its defaults are left out, since some releases have arguments that ours lacks. The precision is
    kept: open_clip's default is fp32, and ours is the model's own dtype.
    """
    given = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
        elif name in given and name != "precision" and _same(given[name], parameter.default):
            del given[name]
    return given


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and value == default  # arrays would compare item by item


def rebind(replacements: dict[int, Callable]) -> None:
    """Replace functions, by their ids, in every module that has them: the package's own, its clients', a caller's."""
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        for name, value in list(names.items()) if isinstance(names, dict) else ():
            if id(value) in replacements:
                names[name] = replacements[id(value)]


def _create_model(**given: Any) -> Any:
    return _create_model_and_transforms(**given)[0]


def _create_model_and_transforms(**given: Any) -> Any:
    from vladva_clip import factory  # loads our model's code and PEFT

    return factory.create_model_and_transforms(**given)


def _create_model_from_pretrained(**given: Any) -> Any:
    from vladva_clip import factory

    return factory.create_model_from_pretrained(**given)


def _get_tokenizer(**given: Any) -> Any:
    from vladva_clip import factory

    return factory.get_tokenizer(**given)


def _get_model_config(model_name: str) -> dict[str, Any] | None:
    from vladva_clip import factory

    if (profile := _profile(model_name)) is not None:
        return factory.get_model_config(profile.name)
    if has_schema(model_name):
        return factory.open_clip_cfg(find_file(model_name, OPEN_CLIP_CONFIG))
    return factory.get_model_config(model_name)


_OURS: dict[str, Callable] = {
    "create_model": _create_model,
    "create_model_and_transforms": _create_model_and_transforms,
    "create_model_from_pretrained": _create_model_from_pretrained,
    "get_tokenizer": _get_tokenizer,
    "get_model_config": _get_model_config,
}
