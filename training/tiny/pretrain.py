"""Pre-trains the base of vladva-tiny generatively on the drawn world.

    vladva-train pretrain-tiny-vision --output-dir runs/tiny
    vladva-train pretrain-tiny --vision runs/tiny/vision.safetensors --output-dir runs/tiny --minutes 70

The same command with `--resume` continues from the last checkpoint; `--base DIRECTORY` instead of `--vision` starts
from a whole base. Beside the next-token loss, heads on the projector's output keep recognizing what the vision tower
learned: a projector would drop what captions don't need.
Writes `checkpoint.pt` (everything that resuming needs) and `base/` (a Hugging Face LLaVA directory in bf16).
"""

import argparse
import math
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from vladva_clip.interface.arguments import user_path
from vladva_clip.scenes import Scene
from vladva_clip.storage import file_locks, places, whole
from vladva_training.tiny.batches import Batcher
from vladva_training.tiny.forward import target_losses, target_weights, task_means, visual_tokens
from vladva_training.tiny.model import build_model, load_base, save_base
from vladva_training.tiny.pretrain_vision import RecognitionHeads, patch_labels, recognition_loss
from vladva_training.tiny.tasks import all_texts
from vladva_training.tiny.tokenizer import train_tokenizer


@dataclass(frozen=True)
class Settings:
    """A pre-training run.

    Attributes:
        steps: length of the run in optimizer steps, or None if `minutes` decides.
        minutes: length of the run in minutes of training, over all resumed parts.
        image_rows, text_rows: rows of each kind in a step.
        learning_rate: reached after `warmup_steps` and held until the last `decay_share` of the run, in which a
            cosine leads to a hundredth of it.
        vision_rate: learning rate of the vision tower, which comes pre-trained, as a share of the others'.
        autocast: compute in bf16.
    """

    steps: int | None = None
    minutes: float | None = None
    image_rows: int = 36
    text_rows: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay_share: float = 0.4
    vision_rate: float = 0.1
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    autocast: bool = True
    seed: int = 0
    log_every: int = 20
    save_every: int = 100

    def __post_init__(self):
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(f"found steps={self.steps}, minutes={self.minutes}; expected exactly one of the two")

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is done, 0 to 1."""
        return min(1.0, step / self.steps if self.steps else seconds / 60 / self.minutes)

    def learning_rate_at(self, step: int, seconds: float) -> float:
        """Linear warm-up, a plateau, then a cosine."""
        decayed = max(0.0, 1 - (1 - self.progress(step, seconds)) / self.decay_share)
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * decayed))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * cosine


class Pretrainer:
    """A model, its optimizer and its place in the run."""

    def __init__(self, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, settings: Settings):
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.batcher = Batcher(tokenizer, "train", settings.seed)
        self.recognition = RecognitionHeads(model.config.text_config.hidden_size)
        groups = [*parameter_groups(model, settings), recognition_group(self.recognition)]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
        self.step, self.seconds = 0, 0.0

    @property
    def done(self) -> bool:
        """Whether the run has reached its length."""
        return self.settings.progress(self.step, self.seconds) >= 1

    def train_step(self) -> dict[str, float]:
        """One optimizer step on image rows and text rows; returns the mean loss of each task."""
        started, settings = time.perf_counter(), self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(self.step, self.seconds) * group["rate"]
        losses = defaultdict(list)
        for name, value in self._backward_all():
            losses[name].append(value)
        torch.nn.utils.clip_grad_norm_(
            [*self.model.parameters(), *self.recognition.parameters()], settings.max_grad_norm
        )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step, self.seconds = self.step + 1, self.seconds + time.perf_counter() - started
        return {name: sum(values) / len(values) for name, values in losses.items()}

    def _backward_all(self):
        """Adds up the step's gradients, with each target of the step weighted equally; yields (task, loss)."""
        settings = self.settings
        batches = self.batcher.image_batches(self.step, settings.image_rows)
        batches += self.batcher.text_batches(self.step, settings.text_rows)
        total = sum(target_weights(batch).sum() for batch in batches)
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.autocast):
                visual = visual_tokens(self.model, batch)
                losses = target_losses(self.model, batch, visual)
            loss = (losses * target_weights(batch) / total).sum()
            if visual is not None:
                recognized = self._recognition_loss(visual, batch.scenes)
                loss = loss + RECOGNITION_WEIGHT * recognized * len(batch.scenes) / settings.image_rows
                yield "recognition/image", recognized.item()
            loss.backward()
            yield from task_means(batch, losses.detach())

    def _recognition_loss(self, visual: torch.Tensor, scenes: tuple[Scene, ...]) -> torch.Tensor:
        labels = torch.stack([patch_labels(scene) for scene in scenes])
        return recognition_loss(self.recognition(visual.float()), labels)

    def save(self, directory: Path) -> None:
        """Writes `checkpoint.pt`, whole or not at all, then `base/`."""
        state = {
            "model": self.model.state_dict(),
            "recognition": self.recognition.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        with whole.file(directory / "checkpoint.pt") as new:
            torch.save(state, new)
        with whole.folder(directory / "base") as place:
            save_base(self.model, self.tokenizer, place)

    def resume(self, directory: Path) -> None:
        """Continues the run from what `save` wrote."""
        state = torch.load(directory / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.recognition.load_state_dict(state["recognition"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]


def parameter_groups(model: LlavaForConditionalGeneration, settings: Settings) -> list[dict]:
    """Weight decay on matrices and none on vectors (norms and biases); the vision tower at its own rate."""
    tower = model.model.vision_tower
    vision = {id(p) for p in tower.parameters()}
    rest = [p for p in model.parameters() if id(p) not in vision]
    groups = []
    for parameters, rate in ((rest, 1.0), (list(tower.parameters()), settings.vision_rate)):
        matrices, vectors = [p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2]
        groups.append({"params": matrices, "weight_decay": settings.weight_decay, "rate": rate})
        groups.append({"params": vectors, "weight_decay": 0.0, "rate": rate})
    return groups


def recognition_group(heads: RecognitionHeads) -> dict:
    """The recognition heads as a parameter group, at the others' rate."""
    return {"params": list(heads.parameters()), "weight_decay": 0.0, "rate": 1.0}


RECOGNITION_WEIGHT = 0.1
"""Weight of the recognition heads on the projector's output. Captions alone let it drop what they can do without: the
column of an object, which reading order hides, and its size."""


def report(trainer: Pretrainer, losses: dict[str, list[float]], seconds: float, steps: int) -> str:
    """One progress line: loss per task, rows per second and the time left."""
    settings = trainer.settings
    rate = steps * (settings.image_rows + settings.text_rows) / seconds
    progress = settings.progress(trainer.step, trainer.seconds)
    left = trainer.seconds / progress * (1 - progress) / 60
    means = " ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in sorted(losses.items()))
    return f"step {trainer.step} | {means} | {rate:.1f} rows/s | {left:.1f} min left"


def pretrain(trainer: Pretrainer, directory: Path, log=print) -> None:
    """Runs to the end, logging and saving on the way."""
    settings = trainer.settings
    losses, mark = defaultdict(list), trainer.seconds
    while not trainer.done:
        for name, value in trainer.train_step().items():
            losses[name].append(value)
        if trainer.step % settings.log_every == 0:
            log(report(trainer, losses, trainer.seconds - mark, settings.log_every), flush=True)
            losses, mark = defaultdict(list), trainer.seconds
        if trainer.step % settings.save_every == 0:
            trainer.save(directory)
    trainer.save(directory)


def _start(options: argparse.Namespace) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """The model to begin with, and its tokenizer: a whole base, or a vision tower in front of a new LLM."""
    if options.base:
        model, processor = load_base(options.base)
        return model.train(), processor.tokenizer
    tokenizer = train_tokenizer(all_texts())
    model = build_model(tokenizer)
    model.model.vision_tower.load_state_dict(load_file(options.vision))
    return model, tokenizer


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        "vladva-train pretrain-tiny", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--vision", type=user_path, help="written by pretrain-tiny-vision; the LLM starts from scratch")
    start.add_argument("--base", type=user_path, help="directory of a base to continue from")
    parser.add_argument("--output-dir", type=user_path, required=True)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--steps", type=int)
    parser.add_argument("--image-rows", type=int, default=Settings.image_rows, help="per step")
    parser.add_argument("--text-rows", type=int, default=Settings.text_rows, help="per step")
    parser.add_argument("--learning-rate", type=float, default=Settings.learning_rate)
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in the output directory")
    parser.add_argument("--compile", action="store_true", help="about 1.7 times as fast; needs a C++ compiler")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    places.check_folder(options.output_dir, "--output-dir")
    settings = Settings(
        steps=options.steps,
        minutes=options.minutes,
        image_rows=options.image_rows,
        text_rows=options.text_rows,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    torch.manual_seed(settings.seed)
    trainer = Pretrainer(*_start(options), settings)
    trainer.model.set_attn_implementation({"text_config": "eager"})  # with a mask, faster here than SDPA
    options.output_dir.mkdir(parents=True, exist_ok=True)
    with file_locks.held(options.output_dir / file_locks.LOCK):
        if options.resume:
            trainer.resume(options.output_dir)
        if options.compile:
            trainer.model.model.language_model.compile(dynamic=True)
            trainer.model.model.vision_tower.compile(dynamic=True)
        pretrain(trainer, options.output_dir)
