"""Pre-trains the base of vladva-tiny generatively on the drawn world.

    vladva-train pretrain-tiny-vision --output-dir runs/tiny-base --minutes 20 --compile
    vladva-train pretrain-tiny --output-dir runs/tiny-base --vision runs/tiny-base/vision.safetensors --minutes 70

The same command with `--resume` continues from the last checkpoint; `--base DIRECTORY` instead of `--vision` starts
from a whole base. Beside the next-token loss, heads on the projector's output keep recognizing what the vision tower
learned: a projector would drop what captions don't need. Some tasks see of their prefix the summary token's last state
alone, so that it holds what is where, and a head that images and captions share reads from it which words belong to
each other (`bindings`), so that both say it alike.
Writes `checkpoint.pt` (everything that resuming needs), `metrics.jsonl` (the curve) and, at the end, `base/` (a Hugging
Face LLaVA directory in bf16). Train adapters in another directory: each run writes its own `metrics.jsonl`.
"""

import argparse
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from vladva_clip.interface.arguments import user_path
from vladva_clip.storage import file_locks, places, whole
from vladva_training.tiny.batches import Batcher, TaskBatch
from vladva_training.tiny.bindings import BindingHead
from vladva_training.tiny.course import Course, Trainer, begin, run
from vladva_training.tiny.flags import add_course, add_style, course_of
from vladva_training.tiny.forward import (
    SummaryReader,
    all_losses,
    hidden_states,
    summary_states,
    target_weights,
    task_means,
    visual_tokens,
)
from vladva_training.tiny.model import build_model, load_base, save_base
from vladva_training.tiny.optimizers import Optimizers
from vladva_training.tiny.recognition import RecognitionHeads, recognition_loss
from vladva_training.tiny.tasks import all_texts
from vladva_training.tiny.tokenizer import train_tokenizer
from vladva_training.tiny.validation import Validation

RECOGNITION_WEIGHT = 0.1
"""Weight of the recognition heads on the projector's output. Captions alone let it drop what they can do without: the
column of an object, which reading order hides, and its size."""

PARTS = {"image": 2, "text": 2, "caption": 4}
"""Into how many batches of similar length a step's rows of a kind are split: a few captions are four times as long."""
BINDING_WEIGHT = 1.0
"""Weight of the bindings that the summary tokens tell, beside a mean target."""


@dataclass(frozen=True)
class Settings:
    """What a pre-training run learns from, and how.

    Attributes:
        style: of the scenes.
        image_rows, text_rows, caption_rows: rows of each kind in a step.
        vision_rate: learning rate of the vision tower, which comes pre-trained, as a share of the others'.
        muon: whether Muon takes the matrices (`optimizers.Optimizers`).
        autocast: compute in bf16.
    """

    style: str = "varied"
    image_rows: int = 36
    text_rows: int = 12
    caption_rows: int = 96
    vision_rate: float = 0.1
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    muon: bool = True
    autocast: bool = True
    seed: int = 0


class Steps(Dataset):
    """The batches of each step: image rows and text rows."""

    def __init__(self, batcher: Batcher, settings: Settings) -> None:
        self.batcher, self.settings = batcher, settings

    def __getitem__(self, step: int) -> list[TaskBatch]:
        rows = self.settings
        sizes = {"image": rows.image_rows, "text": rows.text_rows, "caption": rows.caption_rows}
        made = (self.batcher.batches(kind, step, size, PARTS[kind]) for kind, size in sizes.items() if size)
        return [batch for batches in made for batch in batches]


class Pretrainer(Trainer):
    """The whole LLaVA, with recognition heads on its visual tokens."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        settings: Settings,
        course: Course,
    ) -> None:
        super().__init__(course)
        self.model, self.tokenizer, self._settings = model, tokenizer, settings
        self.recognition = RecognitionHeads(model.config.text_config.hidden_size)
        self.reader = SummaryReader(model.config.text_config.hidden_size)
        self.binding = BindingHead(model.config.text_config.hidden_size)
        rates = named_rates(model, (self.recognition, self.reader, self.binding), settings)
        self.optimizer = Optimizers(rates, settings.weight_decay, settings.muon)
        self._data = Steps(Batcher(tokenizer, "train", settings.seed, settings.style), settings)
        self.validation = Validation(Batcher(tokenizer, "validation", settings.seed, settings.style))

    @property
    def parts(self) -> Mapping[str, Any]:
        return {
            "model": self.model,
            "recognition": self.recognition,
            "reader": self.reader,
            "binding": self.binding,
            "optimizer": self.optimizer,
        }

    @property
    def settings(self) -> Mapping[str, Any]:
        return vars(self._settings) | {"vocabulary": _fingerprint(self.tokenizer)}

    @property
    def data(self) -> Dataset:
        return self._data

    def learn(self, batch: list[TaskBatch]) -> dict[str, float]:
        """One optimizer step on image rows and text rows; returns the mean loss of each task."""
        losses = defaultdict(list)
        for name, value in self._backward_all(batch):
            losses[name].append(value)
        self.optimizer.step(self.learning_rate, self._settings.max_grad_norm)
        return {name: sum(values) / len(values) for name, values in losses.items()}

    def _backward_all(self, batches: list[TaskBatch]) -> Iterator[tuple[str, float]]:
        """Adds up the step's gradients, by the weights of all its targets; yields (task, loss)."""
        total = sum(target_weights(one).sum() for batch in batches for one in (batch, batch.behind) if one)
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=self._settings.autocast):
                visual = visual_tokens(self.model, batch)
                states = hidden_states(self.model, batch, visual)
                found = list(all_losses(self.model, self.reader, batch, states))
            loss = sum((losses * target_weights(one)).sum() for one, losses in found) / total
            bound = self.binding(summary_states(batch, states).float(), batch.bound)
            loss = loss + BINDING_WEIGHT * bound * _share(batch, batches)
            yield f"binding/{batch.modality}", bound.item()
            if visual is not None:
                recognized = recognition_loss(self.recognition(visual.float()), batch.labels)
                loss = loss + RECOGNITION_WEIGHT * recognized * len(batch.labels) / self._settings.image_rows
                yield "recognition/image", recognized.item()
            loss.backward()
            for one, losses in found:
                yield from task_means(one, losses.detach())

    def validate(self) -> dict[str, float]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._settings.autocast):
            return self.validation.figures(self.model, self.reader)

    def write(self, directory: Path) -> None:
        """Write `base/`."""
        with whole.folder(directory / "base") as place:
            save_base(self.model, self.tokenizer, place)


def _share(batch: TaskBatch, batches: list[TaskBatch]) -> float:
    """A batch's part of the bindings' loss, half of which is the images', half the captions'."""
    rows = sum(len(one.input_ids) for one in batches if one.modality == batch.modality)
    return len(batch.input_ids) / rows / len({one.modality for one in batches})


def _fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """A hash of which word has which id: a resumed run trains its tokenizer anew."""
    return hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def named_rates(model: LlavaForConditionalGeneration, heads: Iterable[nn.Module], settings: Settings) -> list:
    """(named parameters, rate) of a model and of heads that go when it is done: the vision tower has its own rate."""
    named = list(model.named_parameters())
    vision = [one for one in named if "vision_tower" in one[0]]
    rest = [one for one in named if "vision_tower" not in one[0]]
    return [
        (rest, 1.0),
        (vision, settings.vision_rate),
        ([one for head in heads for one in head.named_parameters()], 1.0),
    ]


def _start(options: argparse.Namespace) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """The model to begin with, and its tokenizer: a whole base, or a vision tower in front of a new LLM."""
    if options.base:
        model, processor = load_base(options.base)
        return model.train(), processor.tokenizer
    tokenizer = train_tokenizer(all_texts())
    model = build_model(tokenizer)
    model.model.vision_tower.load_state_dict(load_file(options.vision))
    return model, tokenizer


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "vladva-train pretrain-tiny", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--vision", type=user_path, help="written by pretrain-tiny-vision; the LLM starts from scratch")
    start.add_argument("--base", type=user_path, help="directory of a base to continue from")
    parser.add_argument("--image-rows", type=int, default=Settings.image_rows, help="per step")
    parser.add_argument("--text-rows", type=int, default=Settings.text_rows, help="per step")
    parser.add_argument("--caption-rows", type=int, default=Settings.caption_rows, help="captions with nothing behind")
    parser.add_argument("--vision-rate", type=float, default=Settings.vision_rate, help="share of the learning rate")
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    add_style(parser)
    add_course(parser, Course(steps=1, learning_rate=1e-3))
    options = parser.parse_args(arguments)
    places.check_folder(options.output_dir, "--output-dir")
    return options


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = _parse(arguments)
    settings = Settings(
        style=options.style,
        image_rows=options.image_rows,
        text_rows=options.text_rows,
        caption_rows=options.caption_rows,
        vision_rate=options.vision_rate,
        muon=options.optimizer == "muon",
        seed=options.seed,
    )
    torch.manual_seed(settings.seed)
    trainer = Pretrainer(*_start(options), settings, course_of(options))
    trainer.model.set_attn_implementation({"text_config": "eager"})  # with a mask, faster here than SDPA
    options.output_dir.mkdir(parents=True, exist_ok=True)
    with file_locks.held(options.output_dir / file_locks.LOCK):
        begin(trainer, options.output_dir, options.resume)
        if options.compile:
            trainer.model.model.language_model.compile(dynamic=True)
            trainer.model.model.vision_tower.compile(dynamic=True)
        run(trainer, options.output_dir)
