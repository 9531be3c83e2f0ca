"""Check that a base's config.json describes a model that can be built, and the model that its weight files hold."""

import os
import re
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from vladva_clip.encoder.admission.base_config import read_base_config, ties_head
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.backbones.faults import BUFFERS, check_complete
from vladva_clip.storage.base import CONFIG, BaseFiles
from vladva_clip.storage.config import VladvaConfig
from vladva_clip.storage.tensor_names import EMBEDDING, HEAD, canonical

_LAYER = re.compile(r"language_model\.layers\.(\d+)\.")
MAX_VISUAL_TOKENS = 1 << 15  # per image, whatever context length a config.json states
MAX_BUFFERS = 1 << 24  # elements; older files store constants
# raised by transformers' constructors for impossible values; its strict dataclasses raise a class of their own
_BUILD_ERRORS = (
    *(StrictDataclassError, ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError),
    ValueError,
)


def check_image_size(base: BaseFiles, config: VladvaConfig, stated_in: str) -> None:
    """Refuse an image size that the base's vision tower can't take. A base of another family is not checked here.

    Args:
        base: the base.
        config: of the adapter, the export or the bare base.
        stated_in: the file with that config.

    Raises:
        ValueError: the file, the size in pixels and what the tower takes.
    """
    base_config = read_base_config(base)
    if base_config["model_type"] != config.base.family:
        return
    try:
        backbone_class(config.base.family).image_config(base_config, None, config.image.size)
    except ValueError as error:
        raise ValueError(f"{stated_in}: image.size doesn't fit the base {config.base.id}: {error}") from error


def lacks_head(base_config: dict[str, Any], config: VladvaConfig, base: BaseFiles | None) -> bool:
    """Whether to build a base without its language-model head: the config allows it, and its files have none.

    Args:
        base_config: the admitted content of its config.json.
        config: the model's.
        base: the base; None if its weight files are not at hand: then a base that may lack its head is built without.
    """
    if not config.encoding.headless or ties_head(base_config):
        return False
    return base is None or HEAD not in {canonical(name) for name in base.shapes}


def check_family(config: VladvaConfig, base: BaseFiles, stated_in: str) -> None:
    """Raise ValueError if a base is of another family than the config, which is stated in `stated_in`."""
    found = read_base_config(base)["model_type"]
    if found != config.base.family:
        raise ValueError(
            f"{stated_in} was made for a base of the family {config.base.family!r:.80}, but {base.directory} holds "
            f"{found!r}: the two don't belong together; get the files again"
        )


def check_width(config: VladvaConfig, backbone: Backbone) -> None:
    """Raise ValueError if a base's features have another width than the config states, or are made otherwise."""
    if backbone.embed_dim != config.embed_dim:
        raise ValueError(f"the base's width is {backbone.embed_dim}, the config says embed_dim {config.embed_dim}")
    if backbone.attends_both_ways and config.encoding.is_causal:
        raise ValueError(
            f"the config says attention 'causal', but the LLM of the family {backbone.family} attends both ways; get "
            "a config that belongs to it"
        )
    if backbone.projects != (config.encoding.projection == "trunk"):
        raise ValueError(
            f"the config says projection {config.encoding.projection!r}, but the LLM of the family {backbone.family} "
            f"{'ends' if backbone.projects else 'does not end'} in a projection; get a config that belongs to it"
        )


def check_builds(base: BaseFiles, image_size: int, headless: bool = False) -> Backbone:
    """Build the architecture on the meta device, so that an invalid config.json is not mistaken for wrong weights.

    Args:
        base: the base.
        image_size: pixels.
        headless: build it without its language-model head.

    Returns:
        The base on the meta device.

    Raises:
        ValueError: transformers can't build the model, no part of the vision tower is used, or an image's visual tokens
            fill the LLM's context.
    """
    base_config = read_base_config(base)
    family = backbone_class(base_config["model_type"])
    try:
        backbone = family.from_config(base_config, torch.float32, headless=headless)
        used = backbone.num_visual_tokens(image_size), len(backbone.vision_blocks)
        context = min(backbone.lvlm.config.get_text_config().max_position_embeddings, MAX_VISUAL_TOKENS)
        too_many = used[0] >= context
        if not too_many:
            backbone.check_parts(image_size)
    except _BUILD_ERRORS as error:
        raise ValueError(
            f"{base.path(CONFIG)} describes no {family.family} model that transformers can build "
            f"({type(error).__name__}: {error}); get the file again"
        ) from error
    if 0 in used:
        raise ValueError(
            f"{base.path(CONFIG)} leaves {used[0]} visual tokens and {used[1]} blocks of the vision tower in use, "
            "expected at least one of each; get the file again"
        )
    if too_many:
        raise ValueError(
            f"image size {image_size} pixels makes {used[0]} visual tokens, but the LLM in {base.directory} has room "
            f"for {context} tokens (max_position_embeddings), including the prompt: use smaller images"
        )
    return backbone


def check_sizes(base: BaseFiles) -> None:
    """Compare the sizes that config.json states with those of the weight files, before anything is built.

    Raises:
        ValueError: the size's name, and both numbers.
    """
    shapes = {canonical(name): shape for name, shape in base.shapes.items()}
    layers = {match[1] for name in shapes if (match := _LAYER.match(name))}
    found = {"num_hidden_layers": len(layers)}
    if len(shapes.get(EMBEDDING, ())) == 2:
        found["vocab_size"], found["hidden_size"] = shapes[EMBEDDING]
    base_config = read_base_config(base)
    llm = base_config.get("text_config", base_config)
    for key, number in found.items():
        if llm.get(key, number) != number:
            raise ValueError(
                f"{base.path(CONFIG)}: {key} is {llm[key]}, but the weight files beside it hold {number}: they don't "
                "belong together; get the files again"
            )


def check_weights(base: BaseFiles, backbone: Backbone) -> None:
    """Check, from the headers alone, that a base's weight files hold the model that its config.json describes.

    Args:
        base: the base.
        backbone: its architecture, on the meta device.

    Raises:
        ValueError: tensors that are missing, unexpected or of another shape, gathered.
    """
    expected = {canonical(name): tuple(tensor.shape) for name, tensor in backbone.lvlm.named_parameters()}
    optional = {canonical(name) for name, _ in backbone.lvlm.named_buffers()}
    if backbone.head_is_tied:  # if stored anyway, it must have the embedding's shape
        expected[HEAD] = tuple(backbone.lvlm.get_output_embeddings().weight.shape)
        optional.add(HEAD)
    loaded = {name: shape for name, shape in base.shapes.items() if not name.startswith(backbone.tensors_left_out)}
    stored = {name: shape for name, shape in loaded.items() if not _is_buffer(name, shape)}
    names = {canonical(name): name for name in stored}
    found = {key: stored[name] for key, name in names.items()}
    misshapen = {
        f"{name} (found {found[name]}, expected {expected[name]})"
        for name in set(expected) & set(found)
        if expected[name] != found[name]
    }
    faults = {
        "missing_keys": set(expected) - set(found) - optional,
        "unexpected_keys": (set(found) - set(expected) - optional) | (set(stored) - set(names.values())),  # or twice
        "mismatched_keys": misshapen,
    }
    check_complete(base.directory, faults)


def check_memory(base: BaseFiles, backbone: Backbone, dtype: torch.dtype) -> None:
    """Refuse random weights that exceed this machine's memory. (Stored weights are bounded by their files.)

    Args:
        base: the base, for errors.
        backbone: its architecture, on the meta device.
        dtype: of the weights.

    Raises:
        ValueError: with both numbers of bytes.
    """
    needed = dtype.itemsize * sum(parameter.numel() for parameter in backbone.parameters())
    if not hasattr(os, "sysconf"):
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ValueError(
            f"{base.path(CONFIG)} describes a model of {needed:,} bytes in {dtype}, this machine has {there:,}"
        )


def _is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    return name.endswith(BUFFERS) and torch.Size(shape).numel() <= MAX_BUFFERS
