"""Models that describe images: BLIP-2 for short captions, any image-and-text chat model of transformers for long ones.

Weights are read from safetensors only, and no code that comes with a model is run. A single caption is decoded greedily
or by beam search; several are drawn by nucleus sampling, each with its own seed.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from vladva_clip.interface import devices, precision_words
from vladva_clip.interface.quiet import quiet_transformers
from vladva_clip.sources.registry import refuse_own_name
from vladva_clip.storage.fields import refuse_acting
from vladva_training.captioning.sampling import OwnDraws

_log = logging.getLogger(__name__)


class Captioner(Protocol):
    """Writes one caption for each image. `name` is the model's id, with its commit or revision if it has one."""

    name: str

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """Describe RGB images; returns as many strings."""

    def sample(
        self, images: Sequence[Image.Image], seeds: Sequence[Sequence[str]], temperature: float, top_p: float
    ) -> list[list[str]]:
        """Draw as many captions of each image as it has seeds; all images have equally many."""


@dataclass
class PromptedCaptioner:
    """Writes captions as a model's continuation of a prompt, the same one for every image.

    `prompt` is the whole text the model reads, including its image placeholder. `tokenization` and `generation` are
    additional arguments for the processor and for `generate`.
    """

    name: str
    model: Any
    processor: Any
    prompt: str
    dtype: torch.dtype
    tokenization: dict[str, Any]
    generation: dict[str, Any]

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """Describe RGB images; returns as many stripped strings.

        Raises:
            ValueError: the model's processor refuses an image.
        """
        return self._write(images, do_sample=False, **self.generation)

    def sample(
        self, images: Sequence[Image.Image], seeds: Sequence[Sequence[str]], temperature: float, top_p: float
    ) -> list[list[str]]:
        """Draw captions of RGB images by nucleus sampling, as many of each as it has seeds.

        A caption is a function of its image and its seed. The other images of the batch change it only where their
        number changes the model's own rounding enough to move a token.

        Args:
            images: RGB images, each encoded once.
            seeds: of each image, equally many.
            temperature, top_p: as in `OwnDraws`.

        Returns:
            For each image its captions, stripped, in the order of its seeds.

        Raises:
            ValueError: the model's processor refuses an image.
        """
        (count,) = {len(own) for own in seeds}
        draws = OwnDraws([seed for own in seeds for seed in own], temperature, top_p)
        texts = self._write(images, **{**self.generation, **_only(draws), "num_return_sequences": count})
        return [texts[start : start + count] for start in range(0, len(texts), count)]

    @torch.inference_mode()
    def _write(self, images: Sequence[Image.Image], **generation: Any) -> list[str]:
        texts = [self.prompt] * len(images)
        inputs = self.processor(images=list(images), text=texts, return_tensors="pt", **self.tokenization)
        inputs = inputs.to(self.model.device, self.dtype)  # the dtype applies only to floating-point tensors
        ids = self.model.generate(**inputs, **generation)
        if not self.model.config.is_encoder_decoder:
            ids = ids[:, inputs["input_ids"].shape[1] :]  # decoder-only models repeat their input
        return [text.strip() for text in self.processor.batch_decode(ids, skip_special_tokens=True)]


def _only(draws: OwnDraws) -> dict[str, Any]:
    """Options of `generate` that leave the choice of each token to `draws`.

    `do_sample` allows several sequences per image. What transformers then does with the scores, by the model's own
    settings, leaves the one token that is possible.
    """
    from transformers import LogitsProcessorList

    return {"do_sample": True, "num_beams": 1, "logits_processor": LogitsProcessorList([draws])}


def open_blip2(
    model: str, prompt: str, device: str | torch.device, precision: str, **generation: Any
) -> PromptedCaptioner:
    """Load a BLIP-2 model: a Hub id, `ID@REVISION` or a local directory.

    Args:
        model: its id or directory.
        prompt: the text that the caption continues; may be empty.
        device, precision: as in `vladva_clip.interface.devices` and `precision_words`.
        generation: options of transformers' `generate` (`max_new_tokens`, `num_beams`).

    Raises:
        ValueError: not a BLIP-2 model, its files lack weights or safetensors, or it comes with code.
        OSError: transformers finds no such model.
    """
    from transformers import Blip2ForConditionalGeneration

    loaded, processor, name = _load(model, Blip2ForConditionalGeneration, device, precision, "blip-2")
    if processor.num_query_tokens is None:  # processors saved before transformers 4.46 don't state it
        processor.num_query_tokens = loaded.config.num_query_tokens
    image_id = processor.tokenizer.convert_tokens_to_ids(str(processor.image_token))
    if image_id != loaded.config.image_token_id:
        raise ValueError(
            f"{model}: the image token has id {image_id} in its tokenizer and {loaded.config.image_token_id} in its "
            "config, expected the same id; use a model saved by transformers 4.46 or later"
        )
    _refuse_image_token(model, prompt, processor)
    return PromptedCaptioner(name, loaded, processor, prompt, _dtype(precision), {}, generation)


def open_chat(
    model: str, prompt: str, device: str | torch.device, precision: str, **generation: Any
) -> PromptedCaptioner:
    """Load an image-and-text chat model; arguments as for `open_blip2`. The prompt becomes the user's message.

    Raises:
        ValueError: the model has no chat template, its files lack weights or safetensors, or it comes with code.
        OSError: transformers finds no such model.
    """
    from transformers import AutoModelForImageTextToText

    loaded, processor, name = _load(model, AutoModelForImageTextToText, device, precision)
    if not getattr(processor, "chat_template", None):
        raise ValueError(f"{model} has no chat template; expected an image-and-text chat model, such as LLaVA-1.5")
    _refuse_image_token(model, prompt, processor)
    processor.tokenizer.padding_side = "left"  # so that all answers of a batch start at the same position
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    begun = bool(processor.tokenizer.bos_token) and text.startswith(processor.tokenizer.bos_token)
    tokenization = {"padding": True, "add_special_tokens": not begun}
    return PromptedCaptioner(name, loaded, processor, text, _dtype(precision), tokenization, generation)


_OTHER_WAY = (
    "run its authors' own program and add its answers to the source as long_caption (docs/data.md), "
    "or choose another model"
)

OPENERS: dict[str, Callable[..., Captioner]] = {"short": open_blip2, "long": open_chat}
"""Kind of caption -> how to load the model that writes it."""


def _load(
    model: str, model_class: Any, device: str | torch.device, precision: str, model_type: str | None = None
) -> tuple:
    """Return the model, its processor, and its name with the commit."""
    from transformers import AutoConfig, AutoProcessor, PreTrainedConfig

    device, dtype, place = devices.resolve(device), _dtype(precision), _place(model)
    try:
        _refuse_acting(PreTrainedConfig.get_config_dict(**place)[0], f"config.json of {model}: ")
    except ValueError as error:
        raise ValueError(f"{error}. If it needs that code, {_OTHER_WAY}") from error
    config = AutoConfig.from_pretrained(**place, trust_remote_code=False)
    if model_type and config.model_type != model_type:
        raise ValueError(f"{model} is a {config.model_type} model, expected a {model_type} one")
    options = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # wrong shapes are an error below
    try:
        with quiet_transformers(large=True):  # what its table would report is checked below
            loaded, info = model_class.from_pretrained(**place, **options)
    except OSError as error:
        if "safetensors" not in str(error):
            raise
        raise ValueError(f"{error} Pickled weights, which can run code, are not read: {_OTHER_WAY}") from error
    if lacking := sorted([*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])]):
        raise ValueError(f"{model}: {len(lacking)} tensors are missing or of another shape ({lacking[0]}, ...)")
    if unused := sorted(map(str, info["unexpected_keys"])):
        _log.warning("%s: %d tensors of its files have no place in the model (%s, ...)", model, len(unused), unused[0])
    processor = AutoProcessor.from_pretrained(**place, trust_remote_code=False)
    if loaded.generation_config.pad_token_id is None:  # otherwise transformers picks one and warns at each batch
        loaded.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    commit = getattr(config, "_commit_hash", None) or place.get("revision")
    name = place["pretrained_model_name_or_path"]
    return loaded.to(device).eval(), processor, f"{name}@{commit}" if commit else name


def _refuse_image_token(model: str, prompt: str, processor: Any) -> None:
    token = str(getattr(processor, "image_token", None) or "<image>")
    if token in prompt:
        raise ValueError(
            f"the prompt for {model} is {prompt!r:.200}, expected one without {token}: it is added automatically"
        )


def _dtype(precision: str) -> torch.dtype:
    return getattr(torch, precision_words.DTYPES[precision_words.parse("precision", precision)])


def _refuse_acting(config: dict[str, Any], where: str) -> None:
    """Refuse keys by which a captioner's config would choose code or files, at any depth. Quantization is allowed."""
    refuse_acting(set(config) - {"quantization_config"}, config, where)
    for key, part in config.items():
        if isinstance(part, dict):
            _refuse_acting(part, f"{where}{key}.")


def _place(model: str) -> dict[str, str]:
    if Path(model).is_dir():
        return {"pretrained_model_name_or_path": model}
    refuse_own_name(model)
    name, _, revision = model.partition("@")
    place = {"pretrained_model_name_or_path": name}
    return {**place, "revision": revision} if revision else place
