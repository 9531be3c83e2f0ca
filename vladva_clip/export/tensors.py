"""The tensors of an export, one at a time: the base's as stored, with LoRA merged and the slots' rows filled."""

from collections.abc import Callable

import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open

from vladva_clip.encoder import lora
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.backbones.faults import BUFFERS
from vladva_clip.encoder.published_lora import Layers
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.tensor_names import EMBEDDING, HEAD, canonical

MAX_WEIGHT = 1e18  # its square is just below float32's largest number
Change = Callable[[torch.Tensor], torch.Tensor]


class Tensors:
    """A base's tensors under the names in its files, changed for the export as they are read.

    The files are memory-mapped: between two calls of `read`, no tensor is in memory.

    Args:
        base: the base's files.
        backbone: the base's architecture; its weights are on the meta device, or stand-ins under the adapter's LoRA.
        dtype: of the export.
        rows: rows of the exported embedding and head.
        replaced: name in transformers' model -> tensor that replaces the base's own, before anything is merged.
        changes: canonical name -> function applied to that tensor after merging, in `dtype`.

    Raises:
        ValueError: the head is tied to the embedding, but the files store a different one.
    """

    def __init__(
        self,
        base: BaseFiles,
        backbone: Backbone,
        dtype: torch.dtype,
        rows: int,
        replaced: dict[str, torch.Tensor],
        changes: dict[str, Change],
    ) -> None:
        self._files = [safe_open(path, framework="pt") for path in base.headers]
        self._dtype, self._rows, self._changes = dtype, rows, changes
        self._layers = {canonical(name): layer for name, layer in lora.targets(backbone.lvlm).items()}
        self._replaced = {canonical(name): tensor for name, tensor in replaced.items()}
        self._published = Layers(base, backbone)
        self._stored = _index(self._files)
        if backbone.head_is_tied:
            self._drop_tied_head()

    def shapes(self) -> dict[str, torch.Tensor]:
        """Return all tensors of the export by name, on the meta device, so only with shape and dtype."""
        return {
            name: torch.empty(self._shape(key), dtype=self._dtype, device="meta")
            for key, (name, _) in self._stored.items()
        }

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor as it goes into the export.

        Raises:
            ValueError: the tensor has values that the export's dtype can't represent, NaN, or values above 1e18.
        """
        key = canonical(name)
        module, _, leaf = key.rpartition(".")
        tensor = self._merged(module, leaf) if module in self._layers else self._load(key)
        tensor = self._changes[key](tensor) if key in self._changes else tensor
        if self._dtype == torch.float16 and not tensor.isfinite().all():
            raise ValueError(f"{name} has values that float16 can't represent; export with --precision bf16 or fp32")
        if not (tensor.abs() <= MAX_WEIGHT).all():  # nor NaN
            raise ValueError(f"{name} has NaN or values above {MAX_WEIGHT:g}: get the base's files again")
        return tensor.contiguous()

    def _load(self, key: str) -> torch.Tensor:
        """The base's tensor as published: with its own LoRA, where it has one."""
        if key in self._replaced:
            return self._replaced[key].to(self._dtype)
        module, _, leaf = key.rpartition(".")
        published = self._published.layers.get(module)
        return self._merge(published, module, self._as_stored)[leaf] if published else self._as_stored(key)

    def _as_stored(self, key: str) -> torch.Tensor:
        name, file = self._stored[key]
        replaced = self._published.replaced
        return (replaced[key] if key in replaced else file.get_tensor(name)).to(self._dtype)

    def _merged(self, module: str, leaf: str) -> torch.Tensor:
        return self._merge(self._layers[module], module, self._load)[leaf]

    def _merge(self, layer: LoraLayer, module: str, load: Callable[[str], torch.Tensor]) -> dict[str, torch.Tensor]:
        names = {part: f"{module}.{part}" for part in ("weight", "bias")}
        return lora.merged(layer, {part: load(name) for part, name in names.items() if name in self._stored})

    def _shape(self, key: str) -> tuple[int, ...]:
        name, file = self._stored[key]
        shape = tuple(file.get_slice(name).get_shape())
        return (self._rows, *shape[1:]) if key in (EMBEDDING, HEAD) else shape

    def _drop_tied_head(self) -> None:
        """Drop a stored head that is tied to the embedding, after checking that both are equal."""
        if HEAD not in self._stored:
            return
        head, embedding = (self._stored[key][1].get_tensor(self._stored[key][0]) for key in (HEAD, EMBEDDING))
        if not torch.equal(head, embedding):
            raise ValueError(
                "config.json ties the head to the embedding (tie_word_embeddings), but the files have a different "
                "head: get the base's files again"
            )
        del self._stored[HEAD]


def _index(files: list) -> dict[str, tuple[str, object]]:
    """Return canonical name -> (name as stored, open file)."""
    stored: dict[str, tuple[str, object]] = {}
    for file in files:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            if name.endswith(BUFFERS):
                continue
            stored[canonical(name)] = (name, file)
    return stored
