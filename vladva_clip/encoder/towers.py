"""The two towers around one LVLM: `visual` owns it, `text` refers to it. Each makes rows and runs them."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn

from vladva_clip.encoder import alterations, text_only
from vladva_clip.encoder.backbones.base import Backbone, Visual
from vladva_clip.encoder.intermediates import NoIntermediates
from vladva_clip.encoder.prefix_cache import MIN_ROWS, PrefixCache
from vladva_clip.encoder.preprocess import preprocess_cfg
from vladva_clip.encoder.prompts import Prompts, SequenceBatch, SoftPrompt
from vladva_clip.encoder.recording import is_exporting, refuse_tracing, without_compiled
from vladva_clip.encoder.rows import Rows
from vladva_clip.encoder.token_rows import check_tokens, foreign_rows, split_captions
from vladva_clip.interface.arguments import whole_number
from vladva_clip.pictures.image_values import highest, require_normalized
from vladva_clip.storage.config import ImageConfig
from vladva_clip.storage.encoding_config import EncodingConfig

MICRO_BATCH_TOKENS = {"cpu": 4096}  # of the trunk, padding included; more would spill a CPU's caches
MICRO_BATCH_TOKENS_ELSEWHERE = 16384
MIN_BEGINNING = 8  # tokens; a shorter beginning of all captions is not worth keeping
ENOUGH_TOKENS, LENGTH_RATIO = 1024, 1.25  # a micro-batch of this size takes no row so much longer than its first


class Tower(NoIntermediates, nn.Module):
    """What both towers share: the bound on one micro-batch.

    Attributes:
        micro_batch_tokens: tokens of the trunk in one micro-batch, padding included; depends on the device unless set.
            None resets it; anything but a whole number of at least 1 is a ValueError.
    """

    backbone: Backbone
    output_dim: int
    _micro_batch_tokens: int | None = None

    @property
    def micro_batch_tokens(self) -> int:
        return self._micro_batch_tokens or MICRO_BATCH_TOKENS.get(
            self.backbone.device.type, MICRO_BATCH_TOKENS_ELSEWHERE
        )

    @micro_batch_tokens.setter
    def micro_batch_tokens(self, tokens: int | None) -> None:
        self._micro_batch_tokens = None if tokens is None else whole_number("micro_batch_tokens", tokens, 1)

    def __getstate__(self) -> dict[str, Any]:
        return without_compiled(super().__getstate__())

    def truncated(self, features: torch.Tensor) -> torch.Tensor:
        """Return the first `output_dim` dimensions in memory of their own."""
        return features[:, : self.output_dim].contiguous()


class VisualTower(Tower):
    """`(B, 3, H, W)` -> `(B, D)` float32; open_clip's `model.visual`. The LVLM is registered here, as `backbone`."""

    def __init__(
        self,
        backbone: Backbone,
        soft_prompt: SoftPrompt,
        prompts: Prompts,
        image: ImageConfig,
        output_dim: int | None = None,
        encoding: EncodingConfig = EncodingConfig(),  # noqa: B008, it is frozen
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.soft_prompt = soft_prompt
        self.prompts = prompts
        self.encoding = encoding
        self.image_size = (image.size, image.size)
        self.image_mean, self.image_std = image.mean, image.std
        self.preprocess_cfg = preprocess_cfg(image)
        self.output_dim = output_dim or backbone.embed_dim
        self.num_visual_tokens = backbone.num_visual_tokens(image.size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed preprocessed images, a micro-batch at a time.

        Args:
            images: `(B, 3, H, W)` floats of the model's image size.

        Returns:
            `(B, D)` float32, not normalized.

        Raises:
            ValueError: see `accept`.
        """
        refuse_tracing("the image tower")
        images = self.accept(images)
        if is_exporting():
            return self.truncated(self.rows(images).features())
        at_a_time = max(1, self.micro_batch_tokens // self.row_length)
        features = [self.rows(chunk).features() for chunk in images.split(at_a_time) if len(chunk)]
        if not features:
            return images.new_zeros((0, self.output_dim), dtype=torch.float32)
        return self.truncated(torch.cat(features))

    @property
    def row_length(self) -> int:
        """Tokens of an image's row, with nothing behind it; the last one is the summary token."""
        return len(self.prompts.image_row(self.num_visual_tokens))

    @property
    def answer_index(self) -> int:
        """Index of the token that predicts the first token of a caption behind an image."""
        return self.row_length - 1 + len(self.prompts.second_turn)

    def rows(self, images: torch.Tensor) -> Rows:
        """Return the rows of `(B, 3, H, W)` images on the backbone's device and in its dtype."""
        layout = self.prompts.image_batch(images.shape[0], self.num_visual_tokens)
        return self._rows(layout, self.soft_prompt, self.backbone.visual_tokens(images))

    def continued_rows(self, visual: Visual, captions: Sequence[torch.Tensor | None]) -> Rows:
        """Return the rows of images, each with the second turn and a caption behind it.

        Args:
            visual: from `backbone.visual_tokens`, for B images.
            captions: B captions' ids (see `Prompts.continued_batch`); None for an image without one.

        Raises:
            ValueError: a caption behind an image whose feature would depend on it.
        """
        if not self.encoding.is_causal and any(caption is not None for caption in captions):
            raise ValueError(
                "attention is bidirectional: an image's feature would see the caption behind it; expected no captions"
            )
        layout = self.prompts.continued_batch(captions, self.num_visual_tokens)
        return self._rows(layout, self.soft_prompt, visual)

    def asking_rows(self, images: torch.Tensor) -> Rows:
        """Return the rows of `(B, 3, H, W)` images that end where a long caption would follow."""
        nothing = torch.zeros(0, dtype=torch.long)
        return self.continued_rows(self.backbone.visual_tokens(images), [nothing] * len(images))

    def chat_rows(self, images: torch.Tensor, chat_ids: list[int]) -> Rows:
        """Return the rows of a chat with one image each.

        Args:
            images: `(B, 3, H, W)` on the backbone's device and in its dtype.
            chat_ids: the rendered chat, with one visual slot that stands for the whole image.
        """
        layout = self.prompts.chat_batch(len(images), self.num_visual_tokens, chat_ids)
        return self._rows(layout, None, self.backbone.visual_tokens(images))

    def _rows(self, layout: SequenceBatch, soft_prompt: SoftPrompt | None, visual: Visual) -> Rows:
        return Rows.of_images(self.backbone, layout, soft_prompt, visual, self.image_size[0], self.encoding)

    def accept(self, images: torch.Tensor) -> torch.Tensor:
        """As `ready`, and check the values of a CPU tensor. Training skips this, because it handles NaN itself.

        Raises:
            ValueError: a wrong shape, an integer dtype, NaN, infinity, or values that were not normalized.
        """
        ready = self.ready(images)
        require_normalized(images, highest(self.image_mean, self.image_std))
        return ready

    def ready(self, images: torch.Tensor) -> torch.Tensor:
        """Check images, and return them on the backbone's device and in its dtype.

        Raises:
            ValueError: not a tensor, a wrong shape, or an integer dtype; or there is no vision tower (`text_only`).
        """
        text_only.require_tower(self.backbone, "embed images")
        expected = (3, *self.image_size)
        if not isinstance(images, torch.Tensor):
            raise ValueError(
                f"encode_image got {type(images).__name__}, expected a tensor (B, 3, H, W) from preprocess"
            )
        if images.ndim != 4 or tuple(images.shape[1:]) != expected or not images.is_floating_point():
            raise ValueError(
                f"encode_image got {tuple(images.shape)} {images.dtype}, expected floats (B, 3, {expected[1]}, "
                f"{expected[2]}): use the preprocess that create_model returned, and stack its tensors"
            )
        return images.to(self.backbone.device, self.backbone.dtype)


class TextTower(Tower):
    """`(N, context_length)` tokens -> `(N, D)` float32; open_clip's `model.text`. It only refers to the LVLM."""

    def __init__(
        self,
        backbone: Backbone,
        soft_prompt: SoftPrompt,
        prompts: Prompts,
        context_length: int,
        output_dim: int | None = None,
        encoding: EncodingConfig = EncodingConfig(),  # noqa: B008, it is frozen
    ) -> None:
        super().__init__()
        self.__dict__["backbone"] = backbone  # past nn.Module's registration: `visual` owns it
        self.soft_prompt = soft_prompt
        self.prompts = prompts
        self.encoding = encoding
        self.context_length = context_length
        self.vocab_size = backbone.vocab_size
        self.output_dim = output_dim or backbone.embed_dim

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed captions: trim them, sort them by length, run a micro-batch at a time, and restore the order.

        Args:
            tokens: `(N, L)` int64 from this model's tokenizer; any L.

        Returns:
            `(N, D)` float32, not normalized.

        Raises:
            ValueError: foreign tokens (see `token_rows.split_captions`).
        """
        refuse_tracing("the text tower")
        if is_exporting():
            return self._whole(tokens)
        captions = split_captions(tokens, self.prompts.eot_token_id, self.vocab_size)
        if not captions:
            return torch.zeros((0, self.output_dim), device=self.backbone.device)
        start = len(self.prompts.text.before) if self._shares_beginning(len(captions)) else 0
        cache = self._run_beginning(captions[0], start) if start else None
        lengths = [self.prompts.text_length(len(caption)) - start for caption in captions]
        batches = list(micro_batches(lengths, self.micro_batch_tokens))
        features = [self._features([captions[index] for index in batch], cache, start) for batch in batches]
        back = torch.tensor([*chain(*batches)], device=self.backbone.device).argsort()
        return self.truncated(torch.cat(features))[back]

    def rows(self, captions: Sequence[torch.Tensor]) -> Rows:
        """Return the rows of captions' ids, 1-D int64 without the end of text."""
        return Rows.of_text(self.backbone, self.prompts.text_batch(captions), self.soft_prompt, self.encoding)

    def _shares_beginning(self, count: int) -> bool:
        """Whether to run the template's beginning once for so many captions: it pays, and changes nothing."""
        if count < MIN_ROWS or len(self.prompts.text.before) < MIN_BEGINNING or not self.encoding.shares_beginnings:
            return False
        trunk = self.backbone.trunk_module  # in training, dropout and checkpointing take whole rows
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in (*self.parameters(), *trunk.parameters()))
        return not (learns or trunk.training or alterations.is_altered(self, self.backbone))

    def _run_beginning(self, caption: torch.Tensor, length: int) -> PrefixCache:
        cache = PrefixCache(config=self.backbone.lvlm.config.get_text_config())
        self.rows([caption]).columns(0, length).hidden_states(cache)
        return cache

    def _features(self, captions: Sequence[torch.Tensor], cache: PrefixCache | None, start: int) -> torch.Tensor:
        if cache is None:
            return self.rows(captions).features()
        cache.put_before([0] * len(captions))
        return self.rows(captions).columns(start).features(cache)

    def _whole(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed all rows at once, padding included. Foreign rows become NaN: an exported program can't refuse them."""
        check_tokens(tokens)
        tokens = tokens.to(self.backbone.device, torch.long)
        foreign = foreign_rows(tokens, self.prompts.eot_token_id, self.vocab_size)
        layout = self.prompts.whole_text_batch(tokens.clamp(0, self.vocab_size - 1))
        foreign = foreign | (layout.summary_index < 0)  # an empty caption in a template that adds nothing
        features = self.truncated(Rows.of_text(self.backbone, layout, self.soft_prompt, self.encoding).features())
        return features.masked_fill(foreign[:, None], float("nan"))


def micro_batches(lengths: Sequence[int], bound: int) -> Iterator[list[int]]:
    """Sort rows by length and cut them into runs of similar lengths.

    Args:
        lengths: tokens of each row.
        bound: maximum tokens of a run, padding included; a longer row is a run of its own.

    Yields:
        Indices of a run's rows, shortest first.
    """
    rows: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = lengths[index]
        first = lengths[rows[0]] if rows else longest
        much_longer = first * len(rows) >= ENOUGH_TOKENS and longest > LENGTH_RATIO * first
        if rows and (much_longer or longest * (len(rows) + 1) > bound):
            yield rows
            rows = []
        rows.append(index)
    if rows:
        yield rows
