"""Will it fit? Download, disk and memory of the built-in models, by arithmetic from their shapes. Needs no torch."""

from dataclasses import dataclass
from typing import Any

from vladva_clip.interface import precision_words
from vladva_clip.sources import activations, registry

BATCH, CAPTION, PROMPT = 64, 32, 32  # pictures or texts of a call; tokens of a caption; tokens of a template
MICRO_BATCH_TOKENS = {"cpu": 4096, "gpu": 16384}  # the towers' own bounds (encoder/towers.py)
# bytes: Python, torch and transformers with their libraries; the CUDA context, which lies on the GPU
RUNTIME = {"cpu": 880_000_000, "gpu": 2**29}
FRAGMENTATION = {"cpu": 0.0, "gpu": 0.15}  # of the activations: what the GPU's allocator wastes
PRECISIONS = ("fp32", "bf16", "fp16")
# families that overflow in float16 (huggingface/transformers#33294; EmbeddingGemma 2's model card)
OVERFLOW = ("qwen2_vl", "qwen2_5_vl", "embedding_gemma2")
ITEMSIZE = {"fp32": 4, "bf16": 2, "fp16": 2}
PREDICTED, MEASURED = "predicted", "measured"
# bytes; made by: python -m tests.support.measured_fit vladva-tiny fp32 (and bf16)
_MEASURED = {("vladva-tiny", "fp32", "cpu"): 1_039_867_904, ("vladva-tiny", "bf16", "cpu"): 966_078_464}


@dataclass(frozen=True)
class Fit:
    """What a model takes.

    device: "cpu", or "gpu" for any accelerator. download_bytes: the weight files, as stored on the Hub; 0 for a
    packaged model. disk_bytes: the same files, which the Hub's cache holds once, or those of the package.
    weights_bytes: in `precision`. memory_bytes: at inference, everything included, while one batch of pictures or texts
    is embedded. origin: of memory_bytes, "predicted" or "measured".
    """

    name: str
    precision: str
    device: str
    download_bytes: int
    disk_bytes: int
    weights_bytes: int
    memory_bytes: int
    origin: str = PREDICTED


def names() -> list[str]:
    """Return the names of the built-in models, without aliases."""
    return list(registry.MODELS)


def precisions(name: str) -> tuple[str, ...]:
    """Return the precisions in which a built-in model computes well."""
    family = registry.architecture(name)["model_type"]
    return tuple(word for word in PRECISIONS if word != "fp16" or family not in OVERFLOW)


def default_precision(name: str) -> str:
    """Return the precision of a built-in model that no one states."""
    return precision_words.of_dtype(registry.facts(name).dtype)


def of(name: str, precision: str | None = None, device: str = "cpu") -> Fit | None:
    """Return what a built-in model takes; None for a registered name or a family whose shapes are not known here.

    Args:
        name: of a built-in model, or an alias.
        precision: any of `precision_words`; the model's own for None.
        device: "cpu" or "gpu".

    Raises:
        ValueError: an unknown name or precision.
    """
    name = registry.canonical(name)
    if registry.find(name).source is not None:
        return None
    word = precision_words.of_dtype(precision_words.DTYPES[precision or default_precision(name)])
    if (beside := beside_weights(name, word, device)) is None:
        return None
    weights = registry.facts(name).num_parameters * ITEMSIZE[word]
    download, disk = stored_bytes(name)
    measured = _MEASURED.get((name, word, device))
    memory, origin = (measured, MEASURED) if measured else (weights + beside, PREDICTED)
    return Fit(name, word, device, download, disk, weights, memory, origin)


def stored_bytes(name: str) -> tuple[int, int]:
    """Return the bytes of a built-in model's download and those that it takes on the disk: weight files alone."""
    entry, facts = registry.find(name), registry.facts(name)
    if (packaged := registry.packaged_base(name)) is not None:
        return 0, sum(path.stat().st_size for path in packaged.parent.rglob("*.safetensors"))
    if entry.profile is None:
        return (facts.num_parameters * ITEMSIZE[precision_words.of_dtype(facts.dtype)],) * 2
    adapter = ITEMSIZE["fp32"] * entry.profile.adapter.get("num_parameters", 0)
    # stated to 0.1 GB; files hold whole bytes per parameter, unless they have parts that are not loaded
    stated = entry.profile.download_gb
    exact = facts.num_parameters * round((stated * 1e9 - adapter) / facts.num_parameters) + adapter
    return (exact if round(exact / 1e9, 1) == stated else round(stated * 1e9),) * 2


def beside_weights(name: str, precision: str, device: str) -> int | None:
    """Return the bytes beside the weights; None for a family whose shapes are not known here."""
    config, size = registry.architecture(name), registry.facts(name).image_size
    size = size or config["vision_config"]["image_size"]
    working = working_bytes(config, size, ITEMSIZE[precision], device)
    return None if working is None else RUNTIME[device] + working


def working_bytes(config: dict[str, Any], image_size: int, itemsize: int, device: str) -> int | None:
    """Return the bytes of tensors beside the weights while a batch is embedded: its inputs and one micro-batch.

    Args:
        config: the base's config.json.
        image_size: pixels.
        itemsize: bytes of an element of the weights.
        device: "cpu" or "gpu".
    """
    images, texts = image_bytes(config, image_size, itemsize, device), text_bytes(config, itemsize, device)
    if images is None:
        return None
    return input_bytes(image_size, itemsize, device) + round((1 + FRAGMENTATION[device]) * max(images, texts))


def input_bytes(image_size: int, itemsize: int, device: str) -> int:
    """Return the bytes of a batch of prepared pictures: float32 on the CPU, and a copy in another dtype or place."""
    numbers = BATCH * 3 * image_size**2
    if device != "cpu":
        return numbers * itemsize
    return numbers * (4 + (itemsize if itemsize != 4 else 0))


def image_bytes(config: dict[str, Any], image_size: int, itemsize: int, device: str) -> int | None:
    """Return the peak of one micro-batch of images: in the vision tower, or in the language model."""
    if (vision := activations.vision_of(config, image_size)) is None:
        return None
    row = vision.visual_tokens + PROMPT
    images = min(BATCH, max(1, MICRO_BATCH_TOKENS[device] // row))
    trunk = activations.trunk_of(config).bytes(images * row, itemsize) + images * vision.maps * itemsize
    return max(vision.bytes(images, itemsize), trunk)


def text_bytes(config: dict[str, Any], itemsize: int, device: str) -> int:
    """Return the peak of one micro-batch of texts."""
    tokens = min(BATCH * (CAPTION + PROMPT), MICRO_BATCH_TOKENS[device])
    return activations.trunk_of(config).bytes(tokens, itemsize)


def name_of(repository: str) -> str | None:
    """Return the built-in model whose weights a Hub repository holds; None if there is none."""
    of_it = (name for name, entry in registry.MODELS.items() if entry.base and entry.base.lower() == repository.lower())
    return next(of_it, None)


def in_words(size: float) -> str:
    """Return a number of bytes in decimal units, as the Hub and disks state them: "4.3 GB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= 0.95 * scale or unit == "MB":
            return f"{size / scale:,.1f} {unit}"
    raise AssertionError("unreachable")
