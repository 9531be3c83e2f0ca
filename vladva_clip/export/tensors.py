"""The tensors of an export, one at a time: the base's as stored, with LoRA merged and the slots' rows filled."""

from collections.abc import Callable

import torch
from safetensors import safe_open

from vladva_clip.encoder import lora
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.backbones.faults import BUFFERS
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.tensor_names import EMBEDDING, HEAD, canonical

MAX_WEIGHT = 1e18  # whose square float32 holds just so
Change = Callable[[torch.Tensor], torch.Tensor]


class Tensors:
    """A base's tensors under the names of its files, read when asked for and changed on the way.

    The files are mapped, not read: between two calls of `read` nothing is held.

    Args:
        base: the base.
        backbone: the base's architecture, its weights on the meta device or stand-ins under the adapter's LoRA.
        dtype: of the export.
        rows: rows of the exported embedding and head.
        replaced: by transformers' names, what stands in place of the base's own tensors before anything is merged.
        changes: canonical name -> what becomes of that tensor, once it is merged and in `dtype`.

    Raises:
        ValueError: a stored head that is tied to the embedding and another one.
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
        self._stored = _index(self._files)
        if backbone.head_is_tied:
            self._drop_tied_head()

    def shapes(self) -> dict[str, torch.Tensor]:
        """Return every tensor of the export on the meta device: its name, shape and dtype."""
        return {
            name: torch.empty(self._shape(key), dtype=self._dtype, device="meta")
            for key, (name, _) in self._stored.items()
        }

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor as it goes into the export.

        Raises:
            ValueError: values that the export's dtype can't hold.
        """
        key = canonical(name)
        module, _, leaf = key.rpartition(".")
        tensor = self._merged(module, leaf) if module in self._layers else self._load(key)
        tensor = self._changes[key](tensor) if key in self._changes else tensor
        if self._dtype == torch.float16 and not tensor.isfinite().all():
            raise ValueError(f"{name} has values that float16 can't hold; export with --precision bf16 or fp32")
        if not (tensor.abs() <= MAX_WEIGHT).all():  # nor NaN
            raise ValueError(f"{name} has values that no sum of squares can hold, or NaN: get the base's files again")
        return tensor.contiguous()

    def _load(self, key: str) -> torch.Tensor:
        name, file = self._stored[key]
        tensor = self._replaced[key] if key in self._replaced else file.get_tensor(name)
        return tensor.to(self._dtype)

    def _merged(self, module: str, leaf: str) -> torch.Tensor:
        parameters = {
            part: self._load(f"{module}.{part}") for part in ("weight", "bias") if f"{module}.{part}" in self._stored
        }
        return lora.merged(self._layers[module], parameters)[leaf]

    def _shape(self, key: str) -> tuple[int, ...]:
        name, file = self._stored[key]
        shape = tuple(file.get_slice(name).get_shape())
        return (self._rows, *shape[1:]) if key in (EMBEDDING, HEAD) else shape

    def _drop_tied_head(self) -> None:
        """A head that is tied to the embedding is not stored twice; stored nevertheless, it must be equal."""
        if HEAD not in self._stored:
            return
        head, embedding = (self._stored[key][1].get_tensor(self._stored[key][0]) for key in (HEAD, EMBEDDING))
        if not torch.equal(head, embedding):
            raise ValueError(
                "config.json ties the head to the embedding (tie_word_embeddings), but the files hold another head: "
                "get the base's files again"
            )
        del self._stored[HEAD]


def _index(files: list) -> dict[str, tuple[str, object]]:
    """canonical name -> name as stored, and the open file."""
    stored: dict[str, tuple[str, object]] = {}
    for file in files:
        for name in file.keys():  # noqa: SIM118 (no mapping)
            if name.endswith(BUFFERS):
                continue
            stored[canonical(name)] = (name, file)
    return stored
