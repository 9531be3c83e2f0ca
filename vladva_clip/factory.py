"""open_clip's factory functions over our registry and sources: same names, same parameters in the same order."""

import inspect
import logging
import os
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms import Compose

from vladva_clip.compact import check_truncate_dim, untrained_width
from vladva_clip.encoder import text_only
from vladva_clip.encoder.admission.base_fit import check_builds
from vladva_clip.encoder.describe import describe, describe_base, require_family
from vladva_clip.encoder.geometry import asked_side, forced_preprocessing, refuse_other_geometry
from vladva_clip.encoder.loading import load_parts, locate_base_of
from vladva_clip.encoder.preprocess import image_transform
from vladva_clip.encoder.probe import require_finite
from vladva_clip.encoder.tokenizer import CONTEXT_LENGTH, VladvaTokenizer
from vladva_clip.interface import precision_words
from vladva_clip.interface.devices import resolve
from vladva_clip.model import VladvaCLIP, open_clip_model_cfg
from vladva_clip.sources import embedder_signs, registry
from vladva_clip.sources.before_download import for_use
from vladva_clip.sources.locate import Source, has_schema, locate
from vladva_clip.sources.notices import announce
from vladva_clip.storage.adapter_files import MARKER, OPEN_CLIP_CONFIG, read_config
from vladva_clip.storage.base import CONFIG
from vladva_clip.storage.config import VladvaConfig, nearest, read_json

PACKAGED = "vladva-tiny"  # the default of the tokenizer's functions, as it is always at hand
_log = logging.getLogger(__name__)


def create_model(
    model_name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: str | None = None,
    device: str | torch.device = "cpu",
    jit: bool = False,
    **options: Any,
) -> tuple[VladvaCLIP, Compose]:
    """Load a model and its image transform.

    Args:
        model_name: a name from `list_models()`, `hf-hub:ORG/REPO[@REVISION]` or `local-dir:PATH`. The last two can also
            be a bare LVLM of a supported family (training-free mode).
        pretrained: a tag from `list_pretrained()` or an adapter's directory; None means the model's default tag.
        precision: one of open_clip's words, "fp32", "bf16", "fp16", ... (docs/api.md); None means the config's own.
        device: the model's device: "auto", "cpu", "cuda", "cuda:N", "mps" (`devices.resolve`).
        jit: accepted for open_clip's callers; the model stays eager.
        options: open_clip's other keywords (`load_weights`, `force_image_size`, `force_preprocess_cfg`,
            `force_context_length`, `cache_dir`, `output_dict`, ...), `image_size=N` pixels where the model leaves the
            size open, `profile=` a published embedder's name or a JSON file for the directory or Hub id of an LVLM
            (docs/published_models.md), `merge_lora=False` to continue training an adapter, `truncate_dim=N` to keep
            the first N dimensions, rescaled to length 1 (docs/vectors.md), and `text_only=True` to free the vision
            tower after loading, where only captions are embedded.

    Returns:
        The model, frozen and in eval mode, and the transform from a PIL image to float32 `(3, H, W)`.

    Raises:
        ValueError: an unknown name or tag (also a RuntimeError, as in open_clip), an unavailable device, or files that
            are missing, corrupted or don't fit; the message says what to do.
        TypeError: an unknown keyword.
    """
    model, _, preprocess = create_model_and_transforms(
        model_name, pretrained, precision=precision, device=device, jit=jit, **options
    )
    return model, preprocess


def create_model_and_transforms(
    model_name: str,
    pretrained: str | os.PathLike[str] | None = None,
    load_weights: bool = True,
    precision: str | None = None,
    device: str | torch.device = "cpu",
    jit: bool = False,
    force_quick_gelu: bool = False,
    force_custom_text: bool = False,
    force_patch_dropout: float | None = None,
    force_image_size: int | tuple[int, int] | None = None,
    force_context_length: int | None = None,
    image_mean: tuple[float, ...] | None = None,
    image_std: tuple[float, ...] | None = None,
    image_interpolation: str | None = None,
    image_resize_mode: str | None = None,
    aug_cfg: dict[str, Any] | None = None,
    pretrained_image: bool = False,
    pretrained_text: bool = True,
    pretrained_image_path: str | None = None,
    pretrained_text_path: str | None = None,
    cache_dir: str | None = None,
    output_dict: bool | None = None,
    weights_only: bool = True,
    **model_kwargs: Any,
) -> tuple[VladvaCLIP, Compose, Compose]:
    """Load a model and both image transforms (open_clip 3.3's signature; see `create_model` for the differences).

    Returns:
        `(model, preprocess_train, preprocess_val)`; the first transform is open_clip's random resized crop.

    Raises:
        ValueError, TypeError: as `create_model`; also an image argument that contradicts the checkpoint.
    """
    device, precision = resolve(device), precision_words.optional("precision", precision)  # before a 7B is downloaded
    neutral = {"force_quick_gelu": force_quick_gelu, "force_custom_text": force_custom_text}
    neutral |= {"force_patch_dropout": force_patch_dropout, "pretrained_image": pretrained_image}
    neutral |= {"pretrained_image_path": pretrained_image_path, "pretrained_text_path": pretrained_text_path}
    _refuse_meaningless(neutral)
    merge_lora, truncate_dim, forced = _our_options(model_kwargs)
    image_size = asked_side(model_kwargs.get("image_size"), force_image_size)
    if jit:
        _log.info("jit=True: an LVLM can't be scripted; the model stays eager")
    with for_use(precision, str(device)):
        source = locate(model_name, pretrained, cache_dir, weights=load_weights, profile=model_kwargs.get("profile"))
    if source.is_adapter and not load_weights:  # the adapter's own small tensors, without the base's
        source = locate(model_name, pretrained, cache_dir)
    asked = {
        "mean": image_mean,
        "std": image_std,
        "interpolation": image_interpolation,
        "resize_mode": image_resize_mode,
    }
    config = _config_of(source, image_size, force_context_length)  # checked before weights load
    _refuse_other_base(model_name, config)
    refuse_other_geometry(config.image, {**asked, **forced})
    if warning := untrained_width(check_truncate_dim(truncate_dim, config.embed_dim), config.encoding.matryoshka_dims):
        _log.warning("%s: %s", model_name, warning)
    with for_use(precision, str(device)):
        parts = load_parts(source, precision, merge_lora, load_weights, image_size, cache_dir)
    parts.config = parts.config.replace(context_length=config.context_length)
    if model_kwargs.get("text_only"):
        text_only.free_tower(parts.backbone)
    model = VladvaCLIP(parts, bool(output_dict), truncate_dim).to(device)
    if load_weights:
        require_finite(model, model_name)
        announce(model_name, source, parts.config.base.id)
    image = parts.config.image
    return model, image_transform(image, is_train=True, aug_cfg=aug_cfg), image_transform(image)


def create_model_from_pretrained(
    model_name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: str | None = None,
    device: str | torch.device = "cpu",
    jit: bool = False,
    force_quick_gelu: bool = False,
    force_custom_text: bool = False,
    force_image_size: int | tuple[int, int] | None = None,
    force_context_length: int | None = None,
    image_mean: tuple[float, ...] | None = None,
    image_std: tuple[float, ...] | None = None,
    image_interpolation: str | None = None,
    image_resize_mode: str | None = None,
    return_transform: bool = True,
    cache_dir: str | None = None,
    weights_only: bool = True,
    **model_kwargs: Any,
) -> tuple[VladvaCLIP, Compose] | VladvaCLIP:
    """Load a model and its inference transform, or the model alone with `return_transform=False`.

    Raises:
        ValueError, TypeError: as `create_model`.
    """
    arguments = {name: value for name, value in locals().items() if name not in ("return_transform", "model_kwargs")}
    model, _, preprocess = create_model_and_transforms(**arguments, **model_kwargs)
    return (model, preprocess) if return_transform else model


def get_tokenizer(
    model_name: str = PACKAGED, context_length: int | None = None, cache_dir: str | None = None, **kwargs: Any
) -> VladvaTokenizer:
    """Load a model's tokenizer, without its weights. One serves all tags of a model.

    Args:
        model_name: as for `create_model`: name the model that you encode with. The default is the packaged model, which
            needs no network; every other family refuses its tokens.
        context_length: width of the rows in tokens; None means the model's own.
        cache_dir: the Hub's cache.
        kwargs: `profile=`, as for `create_model`; other arguments of open_clip's HFTokenizer.

    Raises:
        ValueError: an unknown model (open_clip silently falls back to CLIP's tokenizer; we don't).
    """
    source = locate(model_name, None, cache_dir, weights=False, profile=kwargs.pop("profile", None))
    stated, base = source.stated, source
    if source.is_adapter:
        base = locate_base_of(source, stated, cache_dir, False)
    if base.files.has(CONFIG):  # as for the model, before anything else about its files is refused
        require_family(base)
        if stated is None:
            embedder_signs.refuse(base.directory, base.base_id, base.files.config)
    if context_length is None:
        context_length = stated.context_length if stated else CONTEXT_LENGTH
    return VladvaTokenizer(base.files, context_length, stated and stated.prompt, **kwargs)


def tokenize(texts: str | list[str], context_length: int | None = None, model: str = PACKAGED) -> torch.Tensor:
    """Tokenize with a model's tokenizer, which is cached for the next call.

    Args:
        texts: one caption or a sequence of them.
        context_length: width of the rows in tokens; None means the model's own.
        model: as for `create_model`: name the model that you encode with, since token ids differ between families. The
            default is the packaged model, which needs no network. `encode_text` of LLaVA's and the Qwen families
            refuses its tokens, and it refuses theirs. Qwen's families share a tokenizer, so tokens of one are taken by
            the others.

    Returns:
        `(N, context_length)` int64.

    Raises:
        ValueError: an unknown model, a caption that is not a string, or a width below 2.
    """
    if model not in _tokenizers:
        _tokenizers[model] = get_tokenizer(model)
    return _tokenizers[model](texts, context_length)


_tokenizers: dict[str, VladvaTokenizer] = {}


def get_model_config(model_name: str) -> dict[str, Any] | None:
    """Return open_clip's description of a model as new JSON data, or None for an unknown name.

    Raises:
        ValueError: the source of a registered name can't be loaded.
    """
    if model_name not in registry.list_models():
        return None
    if registry.find(model_name).source is not None:
        return _registered_model_config(model_name)
    entry, base_config = registry.find(model_name), registry.architecture(model_name)
    size = registry.facts(model_name).image_size
    if entry.profile is not None:
        config = entry.profile.config_of()
    else:
        config = describe(base_config, None, entry.base or registry.canonical(model_name), size)
    ours = {"base": config.base.id, "family": config.base.family}
    return {**open_clip_model_cfg(config, base_config["text_config"]["vocab_size"]), MARKER: ours}


def _registered_model_config(model_name: str) -> dict[str, Any]:
    source = locate(model_name, weights=False)
    if source.is_adapter:
        read_config(source.directory)  # checks that no file is a link out of the directory
        return open_clip_cfg(source.directory / OPEN_CLIP_CONFIG)
    config = describe_base(source)
    vocab_size = check_builds(source.files, config.image.size).vocab_size
    return {**open_clip_model_cfg(config, vocab_size), MARKER: {"base": config.base.id, "family": config.base.family}}


def open_clip_cfg(path: Path) -> dict[str, Any]:
    """Return the `model_cfg` of an adapter's open_clip_config.json; raises ValueError if it has none."""
    found = read_json(path).get("model_cfg")
    if not isinstance(found, dict):
        raise ValueError(f"{path}: model_cfg is {found!r:.80}, expected an object; get the file again")
    return found


def _our_options(model_kwargs: dict[str, Any]) -> tuple[bool, int | None, dict[str, Any]]:
    """Check the extra keywords; return merge_lora, truncate_dim and the forced preprocessing."""
    precision_words.refuse_other_names(model_kwargs)
    known = {"merge_lora", "truncate_dim", "image_size", "profile", "text_only"}
    known |= {"force_preprocess_cfg", "require_pretrained"}
    for name in model_kwargs:
        if name not in known:
            every = known | set(inspect.signature(create_model_and_transforms).parameters) - {"model_kwargs"}
            raise TypeError(f"unknown argument {name!r}; {nearest(name, every)}")
    forced = forced_preprocessing(model_kwargs.get("force_preprocess_cfg") or {})
    return model_kwargs.get("merge_lora", True), model_kwargs.get("truncate_dim"), forced


def _refuse_meaningless(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if value:
            raise ValueError(f"{name}={value!r} has no meaning for an LVLM, which is a single network: leave it out")


def _config_of(source: Source, image_size: int | None, context_length: int | None) -> VladvaConfig:
    """Return the config of the model to load, from its JSON files only."""
    config = source.stated if source.is_adapter else describe_base(source, image_size)
    return config if context_length is None else config.replace(context_length=context_length)


def _refuse_other_base(model_name: str, config: VladvaConfig) -> None:
    """Check that an adapter given by path together with a model name was made for that model's base."""
    if has_schema(model_name) or registry.find(model_name).source is not None:
        return
    expected = registry.find(model_name).base or registry.canonical(model_name)
    if config.base.id != expected:
        raise ValueError(
            f"the adapter was made for the base {config.base.id}, but {model_name} has the base {expected}: load it as "
            "local-dir:PATH, which finds its own base"
        )
