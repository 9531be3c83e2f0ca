"""Checks whether a run fits in its device's memory, and refuses or warns before its weights are loaded."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from vladva_clip.encoder.loading import locate_base_of
from vladva_clip.interface import devices, machine
from vladva_clip.interface.machine import in_words
from vladva_clip.records.records import Source
from vladva_clip.sources.locate import locate
from vladva_training.config import ModelSection, Recipe
from vladva_training.data.captions import CaptionSplitter
from vladva_training.overrides import apply
from vladva_training.plan.architecture import Base, find_base, other_trainable
from vladva_training.plan.caption_lengths import Captions, measure_opened
from vladva_training.plan.gpus import Gpu
from vladva_training.plan.memory import Memory, Share, is_sharded, lasting_memory, predict_memory
from vladva_training.step.half_precision import refuse_float16

WAYS_OUT = (  # settings that need less memory
    ("optim.ema_decay=0",),
    ("model.precision=bf16",),
    ("model.train=lora",),
    ("model.train=lora", "model.precision=bf16"),
    ("model.train=qlora",),
)
CONTEXT, FRAGMENTATION = 2**29, 0.15  # of a GPU: bytes of the CUDA context, and what the allocator's pieces waste
MOST_PROCESSES = 64  # that a refusal suggests


def world_size() -> int:
    """Return the number of the run's processes, as torchrun states it."""
    return max(1, int(os.environ.get("WORLD_SIZE", "1")))


def device_of(device: str | None) -> torch.device:
    """Return where a run with this `--device` would compute; None for CUDA if there is one, else the CPU.

    Raises:
        ValueError: as `devices.resolve`.
    """
    place = devices.resolve(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # each of torchrun's processes has a GPU
    return place


def memory_of(device: torch.device) -> int | None:
    """Return a GPU's total memory or this machine's available memory, in bytes; None if it is not known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return machine.available_memory() if device.type == "cpu" else None


@dataclass(frozen=True)
class Room:
    """The memory that a run may use on a device.

    Attributes:
        device: where.
        size: in bytes; None if it is not known.
        processes: how many of the run's processes share it.
        place: how a verdict begins: "Here", or the GPU that is assumed.
    """

    device: torch.device
    size: int | None
    processes: int = 1
    place: str = "Here"

    @classmethod
    def on(cls, device: torch.device) -> "Room":
        """Ask the device, or the machine if it is a CPU."""
        return cls(device, memory_of(device), machine.local_processes() if device.type == "cpu" else 1)

    @classmethod
    def of_gpu(cls, gpu: Gpu) -> "Room":
        """Assume a GPU that need not be here."""
        return cls(torch.device("cuda"), gpu.size, place=f"On {gpu.key}")

    def __str__(self) -> str:
        if self.size is None:
            return f"the memory of {self.device} is not known"
        if self.place != "Here":
            return f"it has {in_words(self.size)} in all"
        if self.device.type != "cpu":
            return f"{self.device} has {in_words(self.size)} in all"
        shared = f" for {self.processes} processes" if self.processes > 1 else ""
        return f"this machine has {in_words(self.size)} of memory available{shared}"

    def least(self, memory: Memory, sharded: bool = False) -> float:
        """Return the least bytes that all its processes hold: they can share one copy of weights mapped from files."""
        if sharded:
            return self.processes * memory.total
        return memory.weights + self.processes * (memory.total - memory.weights)

    def needs(self, predicted: float) -> float:
        """Return the bytes of a step by all its processes: as predicted for one, and what a GPU itself needs."""
        own = CONTEXT + FRAGMENTATION * predicted if self.device.type == "cuda" else 0
        return self.processes * (predicted + own)

    def holds(self, size: float) -> bool:
        """Whether this many bytes fit; unknown memory is assumed to be enough."""
        return self.size is None or size <= self.size


@dataclass(frozen=True)
class Fit:
    """A recipe, its base as known from its config (None: unknown), and the free memory before anything is loaded.

    world_size: the run's processes, by default those of this one.
    """

    recipe: Recipe
    base: Base | None
    room: Room
    world_size: int = field(default_factory=world_size)

    @classmethod
    def of_run(cls, recipe: Recipe, device: torch.device) -> "Fit":
        """Check before a run loads its weights; all processes of a machine check before any of them loads.

        Raises:
            ValueError: float16 weights; a device too small for any batch; a refusal by the Hub.
        """
        fit = cls(recipe, _base_of_run(recipe.model), Room.on(device))
        if fit.base is not None:
            refuse_float16(fit.base.backbone, recipe.model)
            fit.refuse_too_little()
        return fit

    def refuse_too_little(self) -> None:
        """Refuse weights, gradients and optimizer state that can't fit; these are known exactly.

        Raises:
            ValueError: states what is needed, what is available, and which settings would fit.
        """
        if not self._holds_least:
            raise ValueError(
                f"model.train={self.recipe.model.train} of {self.recipe.model.name} can't fit: it holds at least "
                f"{self._least()}, but {self.room}. {self._ways_out()}"
            )

    def predict(self, captions: Captions, share: Share) -> Memory:
        """Predict what a process needs at the longest captions."""
        base, outside = self.base, sum(other_trainable(self.recipe, self.base).values())
        longest = base.lengths(captions.longest_short, captions.longest_long)
        size = self.world_size
        return predict_memory(self.recipe, base.backbone, share, longest, base.num_visual_tokens, outside, size)

    @property
    def sharded(self) -> bool:
        """Whether the processes divide what is held for any batch."""
        return is_sharded(self.recipe, self.world_size)

    @property
    def least(self) -> float:
        """Bytes that one process holds for any batch; a device with less is refused."""
        return self._lasting.total

    def answer(self, predicted: Memory) -> str:
        """Say in a few words whether the run would fit: "fits", "may not fit" or "can't fit"."""
        if not self._holds_least:
            return "can't fit"
        return "fits" if self.room.holds(self.room.needs(predicted.total)) else "may not fit"

    def verdict(self, predicted: Memory) -> str:
        """Say in one line whether the run would fit on this machine, or on the GPU that is assumed."""
        place = self.room.place
        if self.recipe.model.train == "qlora" and self.room.device.type != "cuda":
            return f"{place}: can't run: model.train=qlora needs a CUDA device; --on plans for one"
        if self.room.size is None:
            return f"{place}: {self.room}"
        answer, needed = self.answer(predicted), self._needed(predicted)
        if answer == "can't fit":
            return f"{place}: can't fit, a run would be refused: it holds at least {self._least()}, but {self.room}"
        if answer == "may not fit":
            return f"{place}: may not fit, a run would start with a warning: {needed}, but {self.room}"
        return f"{place}: fits: {needed}, and {self.room}"

    def warnings(self, sources: Sequence[Source], splitter: CaptionSplitter, world_size: int) -> list[str]:
        """Warn if the prediction, which is an estimate, exceeds the available memory."""
        if self.base is None or self.room.size is None:
            return []
        captions = measure_opened(self.recipe, [(source, 1) for source in sources], splitter)
        share = Share.of(self.recipe, world_size)
        predicted = self.predict(captions, share)
        if self.room.holds(self.room.needs(predicted.total)):
            return []
        return [
            f"warning: {self._needed(predicted)} for a step at the longest captions, but {self.room}; if it runs "
            f"out of memory, use {', '.join(self._savings(share))}"
        ]

    @property
    def _lasting(self) -> Memory:
        """What a process holds for any batch, without soft prompts whose size is only estimated."""
        counts = other_trainable(self.recipe, self.base)
        known = sum(count for name, count in counts.items() if self.base.prompts or "soft_prompt" not in name)
        return lasting_memory(self.recipe, self.base.backbone, known, self.world_size)

    @property
    def _held(self) -> float:
        """The least bytes that the processes of this machine hold."""
        return self.room.least(self._lasting, self.sharded)

    @property
    def _holds_least(self) -> bool:
        return self.room.holds(self._held)

    def _needed(self, predicted: Memory) -> str:
        """What a step needs, in words."""
        step = self.room.processes * predicted.total
        if (needed := self.room.needs(predicted.total)) == step:
            return f"{in_words(step)} predicted"
        return f"{in_words(step)} predicted, {in_words(needed)} with the CUDA context and fragmentation"

    def _least(self) -> str:
        parts = ", ".join(f"{name} {in_words(size)}" for name, size in vars(self._lasting).items() if size)
        each = " in each process" if self.room.processes > 1 or self.sharded else ""
        return f"{in_words(self._held)} ({parts}{each}; activations come on top)"

    def _ways_out(self) -> str:
        ways = [f"{' '.join(words)} ({in_words(size)})" for words, size in self._smaller().items()]
        return f"Use {', '.join(ways)}, before activations, or {self._larger()}" if ways else f"Use {self._larger()}"

    def _larger(self) -> str:
        """Name the devices that would fit: larger ones, and more of them where processes divide what they hold."""
        if self.recipe.model.train != "full":
            return "a larger device (more devices don't help, as each process holds all of it)"
        if self.room.device.type == "cpu":
            return "more machines or a larger one (processes divide weights, gradients and optimizer state among them)"
        counts = range(self.world_size + 1, MOST_PROCESSES + 1)
        enough = next((n for n in counts if replace(self, world_size=n)._holds_least), None)
        more = f"at least {enough} of them" if enough else "several of them"
        return f"a larger device, or {more} (processes divide weights, gradients and optimizer state among them)"

    def _smaller(self) -> dict[tuple[str, ...], float]:
        """Return changes of the recipe that fit, with the least bytes that each holds."""
        found: dict[tuple[str, ...], float] = {}
        for words in WAYS_OUT:
            recipe = apply(self.recipe, words)
            possible = recipe.model.train != "qlora" or self.room.device.type == "cuda"
            if possible and not any(set(fewer) <= set(words) for fewer in found):
                other = replace(self, recipe=recipe, base=find_base(recipe.model))
                found |= {words: other._held} if other._holds_least else {}
        return found

    def _savings(self, share: Share) -> list[str]:
        section, batch = self.recipe.model, self.recipe.batch
        on_device = share.grad_cache and batch.visual_cache == "device" and self.room.device.type != "cpu"
        wide = self.base.backbone.dtype.itemsize > 2 and section.train != "full"
        return [
            *([f"batch.micro_size below {share.micro}"] if share.micro > 1 else []),
            *([] if section.gradient_checkpointing else ["model.gradient_checkpointing=true"]),
            *(["batch.visual_cache=cpu"] if on_device else []),
            *(["model.precision=bf16"] if wide else []),
            "a larger device",
        ]


def _base_of_run(section: ModelSection) -> Base | None:
    """Find the base, fetching its small files if they are not here.

    None if its files don't fit each other or are incomplete: the loader reports that, or fetches them.
    """
    try:
        if (base := find_base(section)) is not None:
            return base
        source = locate(section.name, section.pretrained, weights=False, profile=section.profile)
        if source.is_adapter:
            locate_base_of(source, source.stated, load_weights=False)
        return find_base(section)
    except ValueError:
        return None
