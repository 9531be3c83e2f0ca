"""VladvaCLIP: an LVLM with the face of open_clip's CLIP."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vladva_clip.compact import check_truncate_dim
from vladva_clip.encoder import text_only
from vladva_clip.encoder.backbones import heads
from vladva_clip.encoder.generation import greedy
from vladva_clip.encoder.intermediates import NoIntermediates
from vladva_clip.encoder.loading import Parts, load_parts
from vladva_clip.encoder.probe import require_finite
from vladva_clip.encoder.recording import without_compiled
from vladva_clip.encoder.towers import TextTower, VisualTower
from vladva_clip.hub import card
from vladva_clip.interface import precision_words
from vladva_clip.interface.arguments import optional_text, user_path, whole_number
from vladva_clip.interface.devices import resolve
from vladva_clip.saving import round_trip, save
from vladva_clip.sources.before_download import for_use
from vladva_clip.sources.locate import from_name
from vladva_clip.storage import adapter_files
from vladva_clip.storage.config import VladvaConfig


class VladvaCLIP(NoIntermediates, nn.Module):
    """Image and text encoder over one LVLM (VladVA, arXiv 2412.04378, section 3), and still a captioner.

    A new model is frozen and in eval mode; `train()` and `eval()` never change weights. Features are float32 `(B, D)`
    whatever the weights' dtype or the caller's autocast, new tensors in each call, differentiable in the image, and
    independent of batch and order. Calls from several threads run one after the other.

    Attributes: `visual`, `text` (the towers), `logit_scale` (a scalar, the log), `logit_bias` (a scalar if the sigmoid
    loss trained one, else None), `context_length`, `vocab_size`, `embed_dim` (D after truncation; `config.embed_dim` is
    the full width), `output_dict`, `config`, `base_directory` (of the LVLM's files), `base_lora` (of a published
    embedder's LoRA, merged into them; as a rule None), `base_dtype` (in which its weights were loaded).
    """

    def __init__(self, parts: Parts, output_dict: bool = False, truncate_dim: int | None = None) -> None:
        super().__init__()
        dim = check_truncate_dim(truncate_dim, parts.config.embed_dim)
        config, backbone = parts.config, parts.backbone
        self.config = config
        prompts, encoding = parts.prompts, config.encoding
        self.visual = VisualTower(backbone, parts.image_soft_prompt, prompts, config.image, dim, encoding)
        self.text = TextTower(backbone, parts.text_soft_prompt, prompts, config.context_length, dim, encoding)
        self.logit_scale = _number(config.logit_scale)
        bias = config.logit_bias
        self.register_parameter("logit_bias", None if bias is None else _number(bias))
        self.output_dict = output_dict
        self.context_length, self.vocab_size = self.text.context_length, self.text.vocab_size
        self.embed_dim = self.visual.output_dim
        self._tokenizer, self.base_directory, self.base_lora = parts.tokenizer, parts.base_directory, parts.base_lora
        self._merged_adapter, self.base_dtype = parts.adapter, backbone.dtype  # as loaded, before any cast
        self.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, revision: str | None = None, device: str | torch.device = "cpu", **options: Any
    ) -> "VladvaCLIP":
        """Load an adapter or a bare LVLM.

        Args:
            name_or_path: a directory, a Hub id `org/name`, or any name that `create_model` takes.
            revision: branch, tag or commit of a Hub id.
            device: the model's device (see `devices.resolve`).
            options: `precision`, `merge_lora=True`, `cache_dir` (see `loading.load_parts`), `truncate_dim`.

        Raises:
            ValueError: a source that can't be found, or files that don't fit together; says what to do.
        """
        precision_words.refuse_other_names(options)
        device, word = resolve(device), precision_words.optional("precision", options.get("precision"))
        truncate_dim = options.pop("truncate_dim", None)
        with for_use(word, str(device)):
            source = from_name(str(name_or_path), options.get("cache_dir"), revision)
            parts = load_parts(source, **options)
        model = cls(parts, truncate_dim=truncate_dim).to(device)
        if options.get("load_weights", True):
            require_finite(model, str(name_or_path))
        return model

    def save_pretrained(self, directory: str | Path, verify: bool = True, *, force: bool = False) -> None:
        """Write the adapter (config, soft prompts, LoRA, tokenizer, card), never the base. Features are preserved.

        A `README.md` that `vladva card` did not write is kept.

        Args:
            directory: created if missing; `~` is the home directory.
            verify: read the base's files and embed a picture and two captions, to check that the adapter reproduces the
                model's features. False is for a trainer that froze the base itself.
            force: save beside files that are not an adapter's; they are kept.

        Raises:
            ValueError: the directory has files that are not an adapter's (see `foreign_files.refuse`), or the model has
                changes that an adapter can't hold: another base, a changed module, ...
        """
        directory = user_path(directory)
        save.refuse_other_directory(directory, force)
        state, merged = save.state_of(self)
        if verify:
            self._verify(state, merged)
        readme = card.beside(directory, state.config, state.lora_config)
        adapter_files.write(directory, state, self._open_clip_config(), lambda place: self._write_beside(place, readme))

    def encode_image(self, images: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Embed images.

        Args:
            images: `(B, 3, H, W)` floats from `preprocess`, on any device.
            normalize: scale each feature to length 1.

        Returns:
            `(B, D)` float32.

        Raises:
            ValueError: wrong shape, integer dtype, or values that preprocess can't produce (see `VisualTower.accept`).
        """
        return self._encode(self.visual, images, normalize)

    def encode_text(self, tokens: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Embed captions.

        Args:
            tokens: `(N, L)` int64 from this model's tokenizer, on any device; L need not be `context_length`.
            normalize: scale each feature to length 1.

        Returns:
            `(N, D)` float32, in the order of the rows.

        Raises:
            ValueError: tokens of another tokenizer.
        """
        return self._encode(self.text, tokens, normalize)

    def forward(self, image: torch.Tensor | None = None, text: torch.Tensor | None = None) -> Any:
        """Embed and normalize the given inputs (open_clip's `CLIP.forward`).

        Returns:
            `(image_features, text_features, logit_scale.exp())`, with None for a missing input, then `logit_bias` if
            the model has one; a dict with these keys if `output_dict` is set.
        """
        image_features = None if image is None else self.encode_image(image, normalize=True)
        text_features = None if text is None else self.encode_text(text, normalize=True)
        found = {"image_features": image_features, "text_features": text_features}
        found |= {"logit_scale": self.logit_scale.exp()}
        found |= {} if self.logit_bias is None else {"logit_bias": self.logit_bias}
        return found if self.output_dict else tuple(found.values())

    def get_logits(self, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scaled similarities `(B, N)`, plus the bias if there is one, and their transpose `(N, B)`."""
        image_features, text_features = self.encode_image(image, True), self.encode_text(text, True)
        logits = self.logit_scale.exp() * image_features @ text_features.T
        logits = logits if self.logit_bias is None else logits + self.logit_bias
        return logits, logits.T

    @torch.no_grad()
    def generate(self, images: torch.Tensor, prompt: str | None = None, max_new_tokens: int = 128) -> list[str]:
        """Write one text per image, greedily.

        Args:
            images: `(B, 3, H, W)` floats from `preprocess`.
            prompt: one instruction for all images, put into the family's chat format (`Backbone.chat_template`; the
                base's own template is code, and is not run). None asks the second turn, whose answer is the long
                caption that the recipe trains (VladVA, section 3.2.3); without one in the config, it continues the
                embedding sequence itself.
            max_new_tokens: maximum number of tokens, at least 1.

        Returns:
            B strings. clip_benchmark's captioning task expects CLIP's BPE ids and is not supported.

        Raises:
            ValueError: the model can't generate (see `require_generation`), images of the wrong shape or dtype, a
                prompt that is not a string, or an invalid max_new_tokens.
        """
        self.require_generation()
        max_new_tokens, prompt = whole_number("max_new_tokens", max_new_tokens, 1), optional_text("prompt", prompt)
        images = self.visual.accept(images)
        with self.evaluating():
            rows = [self._generate(chunk, prompt, max_new_tokens) for chunk in images.split(16) if len(chunk)]
        return [self._tokenizer.decode(ids, skip_special_tokens=True).strip() for row in rows for ids in row]

    def require_generation(self) -> None:
        """Refuse what needs next tokens: captions, and their loss.

        Raises:
            ValueError: as `backbones.heads.require`.
        """
        heads.require(self.visual.backbone, self.config)

    def __getstate__(self) -> dict[str, Any]:
        return without_compiled(super().__getstate__())

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Hold the model for this thread, in eval mode and without autocast; then restore each module's mode."""
        with self.visual.backbone.lock.evaluating(self), torch.autocast(self._device.type, enabled=False):
            yield

    def lock_image_tower(self, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
        """Freeze the vision tower except its last `unlocked_groups` blocks (it has no batch norm to freeze)."""
        backbone = self.visual.backbone
        text_only.require_tower(backbone, "train parts of it")
        _lock(backbone.vision_tower, backbone.vision_blocks, whole_number("unlocked_groups", unlocked_groups, 0))

    def lock_text_tower(self, unlocked_layers: int = 0, freeze_layer_norm: bool = True, **_: Any) -> None:
        """Freeze the LLM, which both sides share, except its last `unlocked_layers` layers.

        With freeze_layer_norm=False the norms of the frozen layers stay trainable.
        """
        trunk = self.visual.backbone.trunk_module
        _lock(trunk, trunk.layers, whole_number("unlocked_layers", unlocked_layers, 0))
        if not freeze_layer_norm:
            for name, parameter in trunk.named_parameters():
                parameter.requires_grad_(parameter.requires_grad or "norm" in name)

    def set_grad_checkpointing(self, enable: bool = True, impl: str = "inline") -> None:
        """Recompute activations in the backward pass; only in train mode, as in transformers."""
        lvlm = self.visual.backbone.lvlm
        name = "activation" if hasattr(lvlm, "activation_checkpointing_enable") else "gradient"  # renamed in 5.23
        if enable:
            getattr(lvlm, f"{name}_checkpointing_enable")({"use_reentrant": False})
        else:
            getattr(lvlm, f"{name}_checkpointing_disable")()

    def no_weight_decay(self) -> set[str]:
        """Return the parameters without weight decay: logit scale, soft prompts, biases and norms' scales."""
        return {name for name, parameter in self.named_parameters() if parameter.ndim < 2 or "soft_prompt" in name}

    @property
    def merged(self) -> bool:
        """Whether a LoRA has been merged into the weights, so that they differ from the base's."""
        return self._merged_adapter is not None

    @property
    def _device(self) -> torch.device:
        return self.visual.backbone.device

    def _encode(self, tower: nn.Module, inputs: torch.Tensor, normalize: bool) -> torch.Tensor:
        with self.visual.backbone.lock.held(), torch.autocast(self._device.type, enabled=False):
            features = tower(inputs).float()  # the towers return float64 for a float64 model
            return F.normalize(features, dim=-1) if normalize else features

    def _generate(self, images: torch.Tensor, prompt: str | None, max_new_tokens: int) -> list[list[int]]:
        visual = self.visual
        rows = visual.asking_rows(images) if prompt is None else visual.chat_rows(images, self._chat_ids(prompt))
        return greedy(rows, max_new_tokens, *self._stop_ids())

    def _chat_ids(self, prompt: str) -> list[int]:
        backbone, bos = self.visual.backbone, self.visual.prompts.image.bos
        text = backbone.chat_template.format(visual=backbone.visual_span.text, prompt=prompt)
        return [*bos, *self._tokenizer(text, add_special_tokens=False).input_ids]

    def _stop_ids(self) -> tuple[set[int], list[int]]:
        generation = self.visual.backbone.lvlm.generation_config
        eos = generation.eos_token_id
        eos = {eos} if isinstance(eos, int) else set(eos or ())
        suppressed = [token for token in generation.suppress_tokens or [] if token < self.vocab_size]
        return eos | {self._tokenizer.eos_token_id}, suppressed

    def _write_beside(self, directory: Path, readme: str | None) -> None:
        self._tokenizer.save_pretrained(directory)
        if readme is not None:
            (directory / card.README).write_text(readme, encoding="utf-8")

    def _verify(self, state: adapter_files.StoredAdapter, merged: bool) -> None:
        with torch.device("cpu"):  # the caller's default device may be another
            base = round_trip.opened(self)
            empty = round_trip.check_base(self, base, state, merged)
            if not round_trip.in_four_bits(self):
                parts = round_trip.rebuild(self, base, state, merged, empty)
                round_trip.require_same(self, VladvaCLIP(parts, truncate_dim=self.embed_dim))

    def _open_clip_config(self) -> dict[str, Any]:
        return {
            "model_cfg": open_clip_model_cfg(self.config, self.vocab_size),
            "preprocess_cfg": self.visual.preprocess_cfg,
        }


def open_clip_model_cfg(config: VladvaConfig, vocab_size: int) -> dict[str, Any]:
    """Return the config in open_clip's form: embed_dim, vision_cfg, text_cfg, as plain JSON data."""
    text = {"context_length": config.context_length, "vocab_size": vocab_size, "hf_tokenizer_name": config.base.id}
    return {"embed_dim": config.embed_dim, "vision_cfg": {"image_size": config.image.size}, "text_cfg": text}


def _number(value: float) -> nn.Parameter:
    """Return a scalar parameter in float32, whatever torch's default dtype is."""
    return nn.Parameter(torch.tensor(value, dtype=torch.float32))


def _lock(tower: nn.Module, blocks: nn.ModuleList, unlocked: int) -> None:
    tower.requires_grad_(False)
    for block in list(blocks)[len(blocks) - unlocked :]:
        block.requires_grad_(True)
