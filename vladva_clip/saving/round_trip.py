"""Check, before anything is written, that an adapter would give the model's features once it is saved and loaded.

The base's tensors are compared with its files, one at a time. Then a second model is built from the adapter around the
same base tensors, which takes no memory for another base, and both embed the same picture and captions.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vladva_clip.encoder import lora
from vladva_clip.encoder.admission import own_profiles
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.backbones.faults import BUFFERS
from vladva_clip.encoder.loading import Parts, architecture, load_prompts
from vladva_clip.encoder.prompts import SoftPrompt
from vladva_clip.export.tensors import Tensors
from vladva_clip.storage.adapter_files import StoredAdapter
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.tensor_names import EMBEDDING, HEAD, canonical

MAX_DISTANCE = 1e-5  # of a normalized feature's entries; equal operations on equal tensors don't differ at all
PROBED = ("image features", "text features", "next-token logits")
CAPTION = "A red circle above two blue squares."
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")  # equal up to rounding
_HALF = (torch.float16, torch.bfloat16)
# the casts that .half(), .bfloat16() and .float() may have made
_CASTS = ((), *((dtype,) for dtype in _HALF), _HALF, _HALF[::-1])
_ROUNDING = 2.0**-22  # four roundings in float32
_BROKEN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError)


def opened(model: Any) -> BaseFiles:
    """Open a model's base anew, since its files may have changed since the model was loaded."""
    return BaseFiles(model.base_directory, own_profiles.admission(model.config), model.base_lora)


def check_base(model: Any, base: BaseFiles, state: StoredAdapter, merged: bool) -> Backbone:
    """Compare the LVLM's weights and constants with the base's files, after casts and merging as in loading.

    4-bit weights are left out: they can't be trained.

    Args:
        model: a VladvaCLIP.
        base: its base, opened for this comparison, since the files may have changed.
        state: the adapter to be written.
        merged: the LoRA is merged into the weights.

    Returns:
        The base's architecture, with constants but without weights, for `rebuild`.

    Raises:
        ValueError: some tensors would not be restored by an adapter over these files, or the files can't be read,
            now or under an adapter.
    """
    _require_files(base)
    empty = _with_constants(model, base)
    unlike = _unlike(model, base, state, merged, empty)
    if unlike:
        raise ValueError(
            f"{len(unlike)} of the LVLM's tensors differ from its base in {base.directory}, such as "
            f"{unlike[0]}: trained, averaged, merged into, quantized, replaced, or never loaded. An adapter holds only "
            "soft prompts and a LoRA, so they would be lost. Save the whole LVLM with "
            "model.visual.backbone.lvlm.save_pretrained, or put the change into a LoRA"
        )
    return empty


def _unlike(model: Any, base: BaseFiles, state: StoredAdapter, merged: bool, empty: Backbone) -> list[str]:
    """Return the names of tensors that neither loading nor PEFT's merging of the saved LoRA would produce."""
    found, layers = _base_tensors(model.visual.backbone.lvlm), lora.targets(model.visual.backbone.lvlm)
    expected = _expected(model, base, state, merged, empty)
    unlike = [name for name, tensor in expected if not _is_alike(found.get(name), tensor)]
    if not (unlike and layers):
        return unlike
    explained = _was_added if merged else _was_merged
    stored = ((name, tensor) for name, tensor in _expected(model, base, state, False, empty) if name in unlike)
    return [name for name, tensor in stored if not explained(found.get(name), tensor, name, layers)]


def _require_files(base: BaseFiles) -> None:
    try:
        _ = base.headers  # reads them
    except ValueError as error:
        raise ValueError(
            f"the base's files in {base.directory}, which an adapter depends on, can't be compared with the "
            f"model's weights ({error}). Restore the files, or save the whole LVLM with "
            "model.visual.backbone.lvlm.save_pretrained"
        ) from error


def in_four_bits(model: Any) -> bool:
    """Whether the model has 4-bit weights, with which its features differ from those over the adapter's own base."""
    return any(map(_is_in_four_bits, model.visual.backbone.lvlm.parameters()))


def rebuild(model: Any, base: BaseFiles, state: StoredAdapter, merged: bool, backbone: Backbone) -> Parts:
    """Build a second model from the adapter, as loading does, around the model's own base tensors.

    Args:
        model, base, state, merged: as for `check_base`.
        backbone: the result of `check_base`; it is filled in place.
    """
    lvlm = model.visual.backbone.lvlm
    _borrow(backbone.lvlm, _base_tensors(lvlm))
    _set_attention(backbone.lvlm, lvlm)
    if state.lora_config is not None and not merged:
        lora.inject(backbone.lvlm, state.lora_config, state.lora)
        _cast_lora(backbone.lvlm, lora.targets(lvlm))
    tokenizer, prompts, config = load_prompts(state.config, base)
    towers = {"image": model.visual, "text": model.text}
    soft = {side: _soft_prompt(state.soft_prompt[side], tower.soft_prompt) for side, tower in towers.items()}
    parts = backbone, prompts, soft["image"], soft["text"], config, tokenizer, base.directory
    return Parts(*parts, None, model.base_lora)


def require_same(model: Any, rebuilt: Any) -> None:
    """Compare two models: their input settings, and their outputs for one picture and two captions.

    Raises:
        ValueError: naming the difference.
    """
    for name in ("visual.prompts", "visual.image_size", "visual.preprocess_cfg", "text.prompts", "text.context_length"):
        found, expected = (_attribute(each, name) for each in (model, rebuilt))
        if found != expected:
            raise ValueError(f"model.{name} is {found!s:.200}, but the adapter would be loaded with {expected!s:.200}")
    if model._tokenizer.get_vocab() != rebuilt._tokenizer.get_vocab():
        raise ValueError(
            "the model's tokenizer has another vocabulary than its base's. An adapter is loaded with the base's own, "
            "so it can't add tokens"
        )
    for what, found, expected in zip(PROBED, _probe(model), _probe(rebuilt), strict=False):
        _compare(what, found, expected)


def _compare(what: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    alike = found.shape == expected.shape
    distance = (found - expected).abs().max().item() if alike else float("inf")
    if not distance <= MAX_DISTANCE:  # nor NaN
        raise ValueError(
            f"saved and loaded, the model would give other {what} (a normalized entry differs by {distance:.2g}), "
            "because of a hook, a replaced module or activation, a patched function or a value that is not finite. An "
            "adapter can't hold that; remove it and save again"
        )


@torch.no_grad()
def _probe(model: Any) -> list[torch.Tensor]:
    """Return normalized features of a picture and two captions, and a head's logits; no random numbers are used."""
    height, width = model.visual.image_size
    image = torch.arange(3.0 * height * width).mul(0.37).sin().view(1, 3, height, width)
    ids = [*model._tokenizer(CAPTION, add_special_tokens=False).input_ids, model.text.prompts.eot_token_id]
    tokens = torch.tensor([ids, [ids[0], ids[-1], *[0] * (len(ids) - 2)]])
    backbone = model.visual.backbone
    try:
        with model.evaluating(), _not_compiled():
            features = model.encode_image(image, normalize=True), model.encode_text(tokens, normalize=True)
            if not backbone.has_head or backbone.projects:
                return [*features]
            logits = backbone.head(backbone.embed_tokens(tokens[:1].to(backbone.device)))
            return [*features, F.normalize(logits.float(), dim=-1)]
    except torch.OutOfMemoryError:
        raise
    except _BROKEN as error:
        raise ValueError(f"the model can't embed one picture and two captions, as a check: {error!s:.300}") from error


def _not_compiled() -> contextlib.AbstractContextManager:
    """Run compiled modules eagerly: the kernels of `torch.compile` round differently."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and its import takes seconds
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def _expected(
    model: Any, base: BaseFiles, state: StoredAdapter, merged: bool, empty: Backbone
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors that loading would produce, under their names in transformers' model."""
    backbone = _with_stand_ins(model, base, state) if merged else empty
    replaced = lora.base_parameters(state.lora)
    stored = Tensors(base, backbone, model.base_dtype, backbone.vocab_size, replaced, {})
    for name, _ in empty.lvlm.named_parameters(remove_duplicate=False):
        tied_head = empty.head_is_tied and canonical(name) == HEAD
        yield name, stored.read(EMBEDDING if tied_head else name)
    kept = {name for name in empty.lvlm.state_dict() if not name.endswith(BUFFERS)}  # of the buffers, in the files
    for name, buffer in empty.lvlm.named_buffers(remove_duplicate=False):
        yield name, stored.read(name) if name in kept else buffer


def _with_constants(model: Any, base: BaseFiles) -> Backbone:
    """Return the base's architecture: parameters on the meta device, buffers as transformers computes them."""
    backbone = architecture(model.config, base, model.base_dtype)
    for module in backbone.lvlm.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty_like(buffer, device="cpu")
    for parameter in backbone.lvlm.parameters():
        parameter._is_hf_initialized = True  # transformers' mark, so that it initializes none of them
    backbone.lvlm.initialize_weights()
    return backbone


def _with_stand_ins(model: Any, base: BaseFiles, state: StoredAdapter) -> Backbone:
    backbone = architecture(model.config, base, model.base_dtype)
    lora.stand_in(backbone.lvlm)
    backbone.lvlm.tie_weights()
    lora.inject(backbone.lvlm, state.lora_config, state.lora)
    return backbone


def _base_tensors(lvlm: nn.Module) -> dict[str, torch.Tensor]:
    """Return all tensors except the LoRA's, by their names without a LoRA."""
    named = [*lvlm.named_parameters(remove_duplicate=False), *lvlm.named_buffers(remove_duplicate=False)]
    return {lora.own_name(name): tensor.detach() for name, tensor in named if not lora.is_lora(name)}


def _is_alike(found: torch.Tensor | None, expected: torch.Tensor) -> bool:
    """Whether a tensor equals the expected one bit by bit, perhaps after casts to half precision and back."""
    if found is None or found.is_meta:
        return False
    if _is_in_four_bits(found):
        return True
    return any(torch.equal(found, _cast(expected.to(found.device), *casts, found.dtype)) for casts in _CASTS)


def _is_in_four_bits(tensor: torch.Tensor) -> bool:
    return getattr(tensor, "quant_state", None) is not None  # bitsandbytes' Params4bit


def _cast(tensor: torch.Tensor, *dtypes: torch.dtype) -> torch.Tensor:
    for dtype in dtypes if tensor.is_floating_point() else dtypes[-1:]:
        tensor = tensor.to(dtype)
    return tensor


def _was_merged(found: torch.Tensor | None, expected: torch.Tensor, name: str, layers: dict[str, Any]) -> bool:
    """Whether a weight under a LoRA differs from the expected one only by the rounding of PEFT's merge and unmerge."""
    path, _, leaf = name.rpartition(".")
    if path not in layers or leaf != "weight" or found is None or found.dtype not in (torch.float32, torch.float64):
        return False
    expected = expected.to(found)
    added = sum(layers[path].get_delta_weight(adapter).detach().abs() for adapter in layers[path].r)
    return bool(((found - expected).abs() <= _ROUNDING * (expected.abs() + added)).all())


def _was_added(found: torch.Tensor | None, stored: torch.Tensor, name: str, layers: dict[str, Any]) -> bool:
    """Whether a weight is the stored one plus its LoRA, rounded once, as PEFT's `merge_adapter` computes it.

    Loading rounds the LoRA before it is added.
    """
    path, _, leaf = name.rpartition(".")
    if path not in layers or leaf != "weight" or found is None:
        return False
    added = sum(layers[path].get_delta_weight(adapter).detach() for adapter in layers[path].merged_adapters)
    weights = (_cast(stored.to(found.device), *casts, found.dtype) for casts in _CASTS)
    return any(torch.equal(found, weight.add(added).to(found.dtype)) for weight in weights)


def _borrow(lvlm: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Put the given tensors into a model without copying them."""
    for prefix, module in list(lvlm.named_modules()):
        place = f"{prefix}." if prefix else ""
        for name, _ in list(module.named_parameters(recurse=False)):
            module._parameters[name] = nn.Parameter(tensors[place + name], requires_grad=False)
        for name, _ in list(module.named_buffers(recurse=False)):
            module._buffers[name] = tensors[place + name]
    lvlm.tie_weights()


def _set_attention(lvlm: nn.Module, theirs: nn.Module) -> None:
    chosen = {
        part: getattr(theirs.config, part)._attn_implementation
        for part in ("text_config", "vision_config")
        if getattr(theirs.config, part)._attn_implementation in ATTENTION
    }
    lvlm.set_attn_implementation(chosen)


def _cast_lora(lvlm: nn.Module, theirs: dict[str, Any]) -> None:
    """Cast a LoRA to the dtypes of the model's own LoRA."""
    for name, layer in lora.targets(lvlm).items():
        for part in layer.adapter_layer_names:
            for parameter in getattr(theirs[name], part).parameters():
                getattr(layer, part).to(parameter.dtype)


def _soft_prompt(saved: torch.Tensor, theirs: SoftPrompt) -> SoftPrompt:
    return SoftPrompt(saved).to(theirs.weight.device, theirs.weight.dtype)


def _attribute(model: Any, path: str) -> Any:
    for name in path.split("."):
        model = getattr(model, name)
    return model
