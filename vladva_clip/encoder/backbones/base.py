"""The contract that every LVLM family fulfills, built around transformers' own classes."""

import abc
import copy
import functools
import inspect
import typing
from pathlib import Path

import torch
from torch import nn

from vladva_clip.encoder.backbones import capturing, heads, weights
from vladva_clip.encoder.backbones.visual import Visual
from vladva_clip.encoder.model_lock import ModelLock
from vladva_clip.storage.config import ImageConfig, PromptConfig
from vladva_clip.storage.fields import Fields
from vladva_clip.storage.prompt_config import VisualSpan


class Backbone(nn.Module, abc.ABC):
    """An LVLM as parts: vision tower and projector, token embedding, trunk (the LLM without its head), head.

    `lvlm` is transformers' complete `...ForConditionalGeneration` (an embedder's class may have no head), so that
    parameters have the names PEFT and the Hub use. Nothing is kept between calls: no cache, no padding mask, positions
    always explicit. Callers choose dtype and autocast, and hold `lock`, which serves one thread at a time.
    """

    family: typing.ClassVar[str]  # transformers' model_type
    visual_span: typing.ClassVar[VisualSpan]
    processor_span: typing.ClassVar[VisualSpan | None] = None  # if transformers' processor writes the rest of the span
    starts_with_bos: typing.ClassVar[bool]
    bos_token: typing.ClassVar[str | None]  # None where starts_with_bos is False
    image_template: typing.ClassVar[str]  # holes {prompt} and {visual}; see PromptConfig
    text_template: typing.ClassVar[str]  # holes {prompt} and {caption}
    image_prompt: typing.ClassVar[str] = "Summarize the provided image in one word:"  # VladVA, section 3.2.3
    text_prompt: typing.ClassVar[str] = "Summarize the provided text in one word:"
    second_turn: typing.ClassVar[str]  # hole {caption}
    chat_template: typing.ClassVar[str]  # one question about one image; holes {visual} and {prompt}
    eos_token: typing.ClassVar[str]
    control_tokens: typing.ClassVar[tuple[str, ...]]  # no caption may contain them; includes eos_token
    tokenizer_classes: typing.ClassVar[tuple[str, ...]]  # besides transformers' general ones
    config_fields: typing.ClassVar[Fields]  # of config.json
    implied_config: typing.ClassVar[dict[str, typing.Any]] = {}  # keys that published files leave out, and their values
    processor_fields: typing.ClassVar[Fields]  # of preprocessor_config.json
    default_dtype: typing.ClassVar[str]  # of the published sizes
    projects: typing.ClassVar[bool] = False  # whether the trunk ends in a projection to a width of its own
    attends_both_ways: typing.ClassVar[bool] = False  # whether transformers runs its LLM without causality
    tensors_left_out: typing.ClassVar[tuple[str, ...]] = ()  # how the names of parts begin that are not built
    poor_dtypes: typing.ClassVar[dict[str, str]] = {}  # dtype -> why it should not be used
    refused_dtypes: typing.ClassVar[dict[str, str]] = {}  # dtype -> why it can't be used
    not_exported: typing.ClassVar[str] = ""  # why an export would give other vectors

    def __init__(self, lvlm: nn.Module) -> None:
        super().__init__()
        if lvlm.get_output_embeddings() is None:
            heads.take_away(lvlm)
        self.lvlm = lvlm
        self.lock = ModelLock()

    @classmethod
    @abc.abstractmethod
    def lvlm_class(cls) -> type:
        """Return transformers' class of the family."""

    @classmethod
    @abc.abstractmethod
    def image_config(cls, base_config: dict, processor_config: dict | None, size: int | None) -> ImageConfig:
        """Read the image geometry from the base's own files.

        Args:
            base_config: the content of config.json.
            processor_config: the content of preprocessor_config.json, if there is one.
            size: pixels, for a base that leaves the choice open.
        """

    @classmethod
    def prompt_config(cls) -> PromptConfig:
        """Return the templates of the recipe for this family, whose prompts stand first and alone are soft."""
        own = cls.image_template, cls.text_template, cls.image_prompt, cls.text_prompt
        return PromptConfig(*own, soft_slots="prompt", second_turn=cls.second_turn, caption_ids="in_place")

    def pin_image_size(self, processor: typing.Any, image_size: int) -> None:
        """Set transformers' processor to squares of `image_size` pixels, in place; ValueError if it can't take them."""

    def pinned_config(self, image_size: int) -> dict[str, typing.Any]:
        """Return what config.json must say for transformers' model to take these squares and nothing else."""
        return {}

    @abc.abstractmethod
    def num_visual_tokens(self, image_size: int) -> int:
        """Return the number of visual slots of a square image of `image_size` pixels."""

    def num_patches(self, image_size: int) -> int:
        """Return the number of patches of an image of `image_size` pixels, which the vision tower's blocks see."""
        return (image_size // self.lvlm.config.vision_config.patch_size) ** 2

    def num_crops(self, image_size: int) -> int:
        """Return how many pictures of `num_patches` patches the vision tower sees of an image."""
        return 1

    @abc.abstractmethod
    def visual_tokens(self, images: torch.Tensor) -> Visual:
        """Run the vision tower and the projector on preprocessed images.

        Args:
            images: `(B, 3, H, W)`.

        Returns:
            The visual tokens `(B, N, D)`, or a value that holds them together with what else the trunk takes. Such a
            family overrides `slot_vectors`, `trunk_inputs` and `visual_size`, and nothing outside its file changes.
        """

    def slot_vectors(self, visual: Visual) -> torch.Tensor:
        """Return what is written into the visual slots, `(B, N, D)`."""
        return visual

    def trunk_inputs(self, visual: Visual, visual_mask: torch.Tensor) -> dict[str, typing.Any]:
        """Return further keyword arguments of `trunk` for rows with these images, such as maps for early layers.

        Args:
            visual: from `visual_tokens`.
            visual_mask: `(B, T)` bool, the visual slots.
        """
        return {}

    def visual_size(self, num_visual_tokens: int) -> int:
        """Count the numbers that `visual_tokens` yields for an image with so many visual tokens."""
        return num_visual_tokens * self.hidden_dim

    def position_ids(self, length: int, visual_start: int | None, image_size: int) -> torch.Tensor:
        """Return the positions of rows of `length` tokens, padding included, shaped to broadcast over the batch.

        As most LLMs take them: 0, 1, 2, ..., `(1, T)`.

        Args:
            length: tokens in a row.
            visual_start: index of the first visual slot; None for text rows.
            image_size: pixels.
        """
        return torch.arange(length, device=self.device)[None]

    def check_parts(self, image_size: int) -> None:
        """Check that the sizes of the parts fit together, where transformers would fail only at the first use.

        Args:
            image_size: pixels.

        Raises:
            ValueError: they don't; the sizes are named.
        """

    @property
    def trunk_module(self) -> nn.Module:
        """The LLM without its head."""
        return self.lvlm.model.language_model

    @property
    @abc.abstractmethod
    def vision_tower(self) -> nn.Module:
        """The vision tower (its last blocks are `vision_blocks`)."""

    @property
    @abc.abstractmethod
    def vision_blocks(self) -> nn.ModuleList:
        """The vision tower's transformer blocks that contribute to the visual tokens, first to last."""

    @property
    def hidden_dim(self) -> int:
        """Width of the LLM's embeddings, visual tokens and soft prompts."""
        return self.lvlm.config.get_text_config().hidden_size

    @property
    def embed_dim(self) -> int:
        """Width D of the hidden states that `trunk` returns, which is the width of the features."""
        return self.hidden_dim

    @classmethod
    def width_of(cls, base_config: dict) -> int:
        """Return the width of the features of a base from its config.json, as `embed_dim` is when it is built."""
        text_config = base_config.get("text_config") or {}
        return text_config.get("hidden_size", base_config.get("hidden_size", 4096))  # Llama's own default

    @property
    def vocab_size(self) -> int:
        """Number of rows of the token embedding, at least the tokenizer's number of tokens."""
        return self.lvlm.get_input_embeddings().weight.shape[0]

    @property
    def has_head(self) -> bool:
        """Whether the base has its language-model head; a published embedder may lack it."""
        return heads.is_there(self.lvlm)

    @property
    def head_is_tied(self) -> bool:
        """Whether the head and the token embedding are one tensor."""
        return heads.is_tied(self.lvlm)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.lvlm.get_input_embeddings().weight.dtype

    @property
    def device(self) -> torch.device:
        """The device of the token embedding, where rows are laid out."""
        return self.lvlm.get_input_embeddings().weight.device

    def embed_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Look up `(B, T)` ids: `(B, T, D)`."""
        return self.lvlm.get_input_embeddings()(input_ids)

    def trunk(
        self,
        embeddings: torch.Tensor,
        position_ids: torch.Tensor,
        cache: typing.Any = None,
        **trunk_inputs: typing.Any,
    ) -> torch.Tensor:
        """Run the LLM without its head over right-padded rows; causal attention makes a padding mask unnecessary.

        Args:
            embeddings: `(B, T, D)`.
            position_ids: from `position_ids`; broadcast over the batch.
            cache: a transformers Cache to extend.
            trunk_inputs: from `trunk_inputs`; further arguments of transformers' own forward.

        Returns:
            `(B, T, D)`: the last layer's hidden states after the final norm; no other layer is kept.
        """
        shape = (*position_ids.shape[:-2], embeddings.shape[0], position_ids.shape[-1])
        kept = {} if cache is None else {_cache_keyword(type(self.trunk_module)): cache}
        kept |= {"position_ids": position_ids.expand(shape), "use_cache": cache is not None, **trunk_inputs}
        return self.trunk_module(inputs_embeds=embeddings, **kept).last_hidden_state

    def head(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Apply the language-model head: `(..., D)` hidden states -> `(..., V)` logits.

        Raises:
            ValueError: the base has none.
        """
        return self.lvlm.get_output_embeddings()(hidden_states)

    def __getstate__(self) -> dict[str, typing.Any]:
        with self.lock.held():  # another thread may be in a call that uses the hooks
            capturing.drop_hooks(self.lvlm)
            return super().__getstate__()

    @classmethod
    def from_directory(
        cls,
        directory: Path,
        base_config: dict,
        generation_config: dict,
        dtype: torch.dtype,
        four_bits_on: torch.device | None = None,
        headless: bool = False,
    ) -> "Backbone":
        """Load the base's weights with transformers, strictly. No other file of the directory is read.

        Args:
            directory: of the base.
            base_config: the admitted content of its config.json.
            generation_config: the admitted content of its generation_config.json.
            dtype: of the weights; with `four_bits_on`, of those that are not in 4 bits.
            four_bits_on: the device for the LLM's linear layers in 4 bits; None loads nothing in 4 bits.
            headless: the files lack the language-model head, and nothing else.

        Raises:
            ValueError: weights that are missing, unexpected or of the wrong shape.
            torch.OutOfMemoryError: the device is full.
        """
        admitted = base_config, generation_config
        return cls(weights.load(cls, directory, *admitted, dtype, four_bits_on, headless))

    @classmethod
    def from_config(
        cls, base_config: dict, dtype: torch.dtype, device: str = "meta", headless: bool = False
    ) -> "Backbone":
        """Build the architecture of a config.json with random weights, or with none on `meta`."""
        lvlm_class = cls.lvlm_class()
        config = lvlm_class.config_class.from_dict(copy.deepcopy(base_config))  # from_dict changes its argument
        with torch.device(device):
            lvlm = lvlm_class._from_config(config, dtype=dtype)
        lvlm.tie_weights()  # transformers 5.0 leaves that to from_pretrained
        if headless:
            heads.take_away(lvlm)
        return cls(lvlm)


@functools.cache
def _cache_keyword(trunk: type) -> str:
    """Return the name of the trunk's cache argument. transformers 5.24 renamed it, and ignores other names."""
    return "cache" if "cache" in inspect.signature(trunk.forward).parameters else "past_key_values"
