"""A recipe: everything that determines a training run, in frozen dataclasses that check themselves."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from vladva_clip.interface import precision_words
from vladva_clip.interface.arguments import user_path
from vladva_training.losses import CONTRASTIVE, PARTS

SHORT_MAX_TOKENS = 30  # the paper's: a caption with fewer tokens is short
LONG_MAX_TOKENS = 500  # the paper's: a caption with more tokens is not used
TRAINABLE = ("lora", "qlora", "full", "none")
FALSE_NEGATIVES = ("none", "identical", "near", "known")
VISUAL_CACHE = ("device", "cpu")
ON_NON_FINITE = ("stop", "skip")
AUTOCAST = ("bf16", "fp32")


def _check(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{key} is {value!r}, expected {expected}")


def _one_of(section: object, key: str, choices: tuple[str, ...], prefix: str) -> None:
    value = getattr(section, key)
    _check(value in choices, f"{prefix}.{key}", value, f"one of {', '.join(choices)}")


def _all(section: object, keys: str, prefix: str, expected: str, holds: Callable[[float], bool]) -> None:
    for key in keys.split():
        value = getattr(section, key)
        _check(value is None or (math.isfinite(value) and holds(value)), f"{prefix}.{key}", value, expected)


@dataclass(frozen=True)
class ModelSection:
    """Which LVLM, and which parts of it train.

    Attributes:
        name: as in `vladva_clip.create_model`: a name, `local-dir:` or `hf-hub:`. An adapter is trained further.
        pretrained: the name's tag; None for a source without tags.
        image_size: pixels, where the model leaves the size open; None for its own.
        profile: as which published embedder the LVLM of a directory or Hub id is read (see `create_model`).
        precision: of the frozen weights, a word of `vladva_clip.interface.precision_words`; None for the config's own.
        train: "lora" (on the LLM's linear layers), "qlora" (the same over a 4-bit base, CUDA), "full" (the whole LLM)
            or "none" (only the soft prompts, with `soft_prompt`).
        soft_prompt: train the vectors in the prompts' soft slots.
        gradient_checkpointing: keep only each layer's input and recompute the rest in the backward pass, also inside
            GradCache's micro-batches.
        attention: transformers' name of the LLM's attention ("sdpa", "eager", "flash_attention_2", ...); None for its
            own choice. "eager" is faster for short rows without a GPU.
        compile: torch.compile the LLM.
    """

    name: str = "vladva-7b"
    pretrained: str | None = None
    image_size: int | None = None
    profile: str | None = None
    precision: str | None = None
    train: str = "lora"
    lora_rank: int = 16
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    soft_prompt: bool = True
    gradient_checkpointing: bool = False
    attention: str | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", precision_words.optional("model.precision", self.precision))
        _one_of(self, "train", TRAINABLE, "model")
        _all(self, "image_size", "model", "at least 1 pixel", lambda value: value >= 1)
        _all(self, "lora_rank lora_alpha", "model", "at least 1", lambda value: value >= 1)
        _all(self, "lora_dropout", "model", "from 0 to below 1", lambda value: 0 <= value < 1)
        _check(self.train != "none" or self.soft_prompt, "model.train", "none", "soft_prompt=true beside it")


@dataclass(frozen=True)
class DataSection:
    """The training data.

    Attributes:
        train: specs of sources (`vladva_training.data.specs`); several are mixed.
        weights: the share of each source in an epoch; empty to use each source fully.
        in_turn: an epoch reads the sources one after another, each shuffled, so that easy ones can come first.
        evaluation: spec of the source that is evaluated during training; None for no evaluation.
        evaluation_count: number of its records to use.
        short_max_tokens: a caption with fewer ids is short (contrastive); one with this many or more is long (NTP).
        long_max_tokens: a caption with more ids is not used.
        worker_timeout: seconds to wait for a batch from a worker before the run saves its state and stops; 0 for no
            limit.
        max_bad_share: the run stops when a larger share of the records seen is bad.
    """

    train: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    in_turn: bool = False
    evaluation: str | None = None
    evaluation_count: int = 1000
    short_max_tokens: int = SHORT_MAX_TOKENS
    long_max_tokens: int = LONG_MAX_TOKENS
    num_workers: int = 4
    worker_timeout: float = 600.0
    max_bad_share: float = 0.01

    def __post_init__(self) -> None:
        _check(bool(self.train), "data.train", self.train, "at least one source, such as wds:/data/{0000..0999}.tar")
        _check(len(self.weights) in (0, len(self.train)), "data.weights", self.weights, f"none or {len(self.train)}")
        _check(all(weight > 0 for weight in self.weights), "data.weights", self.weights, "positive shares")
        _all(self, "short_max_tokens evaluation_count", "data", "at least 1", lambda value: value >= 1)
        _check(
            self.long_max_tokens >= self.short_max_tokens,
            "data.long_max_tokens",
            self.long_max_tokens,
            f"at least data.short_max_tokens ({self.short_max_tokens})",
        )
        _all(self, "num_workers worker_timeout", "data", "0 or more", lambda value: value >= 0)
        _all(self, "max_bad_share", "data", "a share from 0 to 1", lambda value: 0 <= value <= 1)


@dataclass(frozen=True)
class LossSection:
    """What is minimized: `contrastive + text_text_weight * text-text + ntp_weight * next-token prediction`.

    Attributes:
        contrastive: "info_nce" (the paper), "sigmoid" (SigLIP) or "hardness" (LLaVE's weighted InfoNCE).
        hardness: LLaVE's factor on a negative's cosine.
        false_negatives: which pairs of the global batch are not used as negatives: those with the same picture and with
            "identical" captions, or "near" identical ones (up to case, punctuation and articles). With "known", those
            of "identical" and those whose caption is true of the picture by the facts in their records. With "none",
            all pairs are negatives.
        hard_negatives: false captions per image that are added to its negatives, if the records have them.
        text_text_weight: weight of the contrastive loss between two short captions of an image. Where records say what
            their captions claim and `false_negatives` is "known", the two share a claim.
        ntp_weight: weight of next-token prediction; 0 turns it off.
        ntp_chunk: labeled tokens whose logits exist at the same time.
    """

    contrastive: str = "info_nce"
    hardness: float = 9.0
    false_negatives: str = "identical"
    hard_negatives: int = 0
    text_text_weight: float = 0.0
    ntp_weight: float = 1.0
    ntp_chunk: int = 512

    def __post_init__(self) -> None:
        _one_of(self, "contrastive", tuple(CONTRASTIVE), "loss")
        _one_of(self, "false_negatives", FALSE_NEGATIVES, "loss")
        _all(self, "hardness hard_negatives text_text_weight ntp_weight", "loss", "0 or more", lambda value: value >= 0)
        _all(self, "ntp_chunk", "loss", "at least 1", lambda value: value >= 1)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each part in the sum."""
        return dict(zip(PARTS, (1.0, self.text_text_weight, self.ntp_weight), strict=True))


@dataclass(frozen=True)
class OptimSection:
    """How it is minimized: AdamW, linear warm-up, cosine to `final_share` of the learning rate.

    Attributes:
        soft_prompt_rate: learning rate of the soft prompts, as a multiple of `learning_rate`.
        warmup_share: warm-up steps as a share of the run's steps.
        max_grad_norm: the gradient is clipped to this norm.
        ema_decay: evaluate and save the exponential moving average of the adapter with this decay; 0 turns it off.
        on_non_finite: "stop" the run, or "skip" the step, if its loss or gradient is not finite.
    """

    learning_rate: float = 1e-4
    soft_prompt_rate: float = 1.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    warmup_share: float = 0.03
    final_share: float = 0.0
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0
    on_non_finite: str = "stop"

    def __post_init__(self) -> None:
        _all(self, "learning_rate soft_prompt_rate max_grad_norm", "optim", "above 0", lambda value: value > 0)
        _all(self, "weight_decay", "optim", "0 or more", lambda value: value >= 0)
        _all(self, "beta1 beta2 ema_decay", "optim", "from 0 to below 1", lambda value: 0 <= value < 1)
        _all(self, "warmup_share final_share", "optim", "a share from 0 to 1", lambda value: 0 <= value <= 1)
        _one_of(self, "on_non_finite", ON_NON_FINITE, "optim")


@dataclass(frozen=True)
class BatchSection:
    """How a step is computed.

    Attributes:
        size: images in the global batch, over all processes; each image is compared with this many captions.
        micro_size: images whose activations exist at the same time, per process; None for the process's whole share of
            the batch. If it is smaller than the share, GradCache still computes the gradients of the whole batch.
        visual_cache: where GradCache keeps the frozen vision tower's tokens between its two passes.
        autocast: precision of matrix products, "bf16" or "fp32".
    """

    size: int = 1024
    micro_size: int | None = None
    visual_cache: str = "device"
    autocast: str = "bf16"

    def __post_init__(self) -> None:
        _check(self.size >= 2, "batch.size", self.size, "at least 2: a single image has no negatives")
        _all(self, "micro_size", "batch", "at least 1", lambda value: value >= 1)
        _one_of(self, "visual_cache", VISUAL_CACHE, "batch")
        precision_words.parse("batch.autocast", self.autocast, AUTOCAST)


@dataclass(frozen=True)
class RunSection:
    """How long it runs, and what it writes on the way.

    Attributes:
        epochs: passes over the data, unless `steps` is set.
        steps: optimizer steps; None for `epochs`.
        checkpoint_every, evaluate_every: steps between two; 0 for only one at the end.
        keep_last: how many of the latest checkpoints are kept, besides the best.
        best_metric: the evaluation's figure by which a best checkpoint is kept; None to keep none.
        log_every: steps between two lines of metrics.jsonl.
        sigterm_exit_code: exit status after a SIGTERM, once the state is saved.
    """

    epochs: int = 1
    steps: int | None = None
    checkpoint_every: int = 500
    keep_last: int = 2
    evaluate_every: int = 500
    best_metric: str | None = None
    log_every: int = 10
    sigterm_exit_code: int = 143

    def __post_init__(self) -> None:
        _all(self, "epochs steps keep_last log_every", "run", "at least 1", lambda value: value >= 1)
        _all(self, "checkpoint_every evaluate_every", "run", "0 or more", lambda value: value >= 0)
        _all(self, "sigterm_exit_code", "run", "from 0 to 255", lambda value: 0 <= value <= 255)


@dataclass(frozen=True)
class Recipe:
    """A whole run. Everything except `resume` and `output_dir` affects the result."""

    name: str
    model: ModelSection
    data: DataSection
    loss: LossSection = field(default_factory=LossSection)
    optim: OptimSection = field(default_factory=OptimSection)
    batch: BatchSection = field(default_factory=BatchSection)
    run: RunSection = field(default_factory=RunSection)
    output_dir: str = "runs"
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        _check(bool(self.output_dir), "output_dir", self.output_dir, "a directory")
        if self.output_dir.startswith("~"):
            object.__setattr__(self, "output_dir", str(user_path(self.output_dir)))


def flat(recipe: Recipe) -> dict[str, object]:
    """Return every key of a recipe with its value, sections as dotted keys (`optim.learning_rate`)."""
    values: dict[str, object] = {}
    for item in fields(recipe):
        value = getattr(recipe, item.name)
        if hasattr(value, "__dataclass_fields__"):
            values |= {f"{item.name}.{key.name}": getattr(value, key.name) for key in fields(value)}
        else:
            values[item.name] = value
    return values
