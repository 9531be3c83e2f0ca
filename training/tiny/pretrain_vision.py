"""Pre-trains the vision tower of vladva-tiny, as LLaVA's is: it learns to recognize before the LLM learns to talk.

    vladva-train pretrain-tiny-vision --output-dir runs/tiny-base --minutes 20 --compile

Every visual token learns what stands where it looks (color, shape and size, or nothing), which place that is, and what
the background looks like. The same command with `--resume` continues from the last checkpoint. Writes `vision/` with
`checkpoint.pt` and `metrics.jsonl` (the curve) and, at the end, `vision.safetensors` for `pretrain-tiny --vision`.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset
from transformers import CLIPVisionModel

from vladva_clip.scenes import COLORS, crowd, scene, stable_seed
from vladva_clip.storage import file_locks, places, whole
from vladva_training.tiny.course import Course, Trainer, begin, run
from vladva_training.tiny.flags import add_course, add_style, course_of
from vladva_training.tiny.model import vision_config
from vladva_training.tiny.optimizers import Optimizers
from vladva_training.tiny.pixels import draw_pixels
from vladva_training.tiny.recognition import HEADS, RecognitionHeads, patch_labels, recognition_loss

Drawn = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class VisionSettings:
    """What the tower learns from, and how; as `pretrain.Settings`."""

    style: str = "varied"
    batch_size: int = 32
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    muon: bool = True
    autocast: bool = True
    seed: int = 0


class DrawnScenes(Dataset):
    """Batches of (pixels, labels); item `step` is a pure function of the seed and the step.

    Training scenes are crowds: nearly every cell holds an object, so one image teaches three times as much. Every
    fourth one is a scene as captions have it, in which most cells are empty.
    """

    def __init__(self, settings: VisionSettings, split: str = "train") -> None:
        self.settings, self.split = settings, split

    def __getitem__(self, step: int) -> Drawn:
        drawn = [self._scene(step, index) for index in range(self.settings.batch_size)]
        return torch.stack([draw_pixels(one) for one in drawn]), torch.stack([patch_labels(one) for one in drawn])

    def _scene(self, step: int, index: int):
        number = stable_seed(self.settings.seed, "vision", step, index) % 2**30
        if self.split == "train" and index % 4:
            return crowd(number, self.settings.style)
        return scene(self.split, number, self.settings.style)


class Recognizer(nn.Module):
    """The vision tower with recognition heads on its visual tokens."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower
        self.heads = RecognitionHeads(tower.config.hidden_size)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Logits (B, patches, answers) per head, from the states that the projector will read."""
        return self.heads(self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1][:, 1:])


class VisionTrainer(Trainer):
    """The vision tower and its heads."""

    def __init__(self, model: Recognizer, settings: VisionSettings, course: Course) -> None:
        super().__init__(course)
        self.model, self._settings = model, settings
        groups = [(list(model.named_parameters()), 1.0)]
        self.optimizer = Optimizers(groups, settings.weight_decay, settings.muon)
        self._validated: Drawn | None = None

    @property
    def parts(self) -> Mapping[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer}

    @property
    def settings(self) -> Mapping[str, Any]:
        return vars(self._settings)

    @property
    def data(self) -> Dataset:
        return DrawnScenes(self._settings)

    def learn(self, batch: Drawn) -> dict[str, float]:
        """One optimizer step; returns the loss."""
        pixels, labels = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=self._settings.autocast):
            logits = self.model(pixels)
        loss = recognition_loss(logits, labels)
        loss.backward()
        self.optimizer.step(self.learning_rate, self._settings.max_grad_norm)
        return {"loss": loss.item()}

    def validate(self) -> dict[str, float]:
        """The loss, and the share of right answers per head."""
        if self._validated is None:
            settings = VisionSettings(style=self._settings.style, batch_size=256)
            self._validated = DrawnScenes(settings, split="validation")[0]
        return recognition_figures(self.model, *self._validated)

    def write(self, directory: Path) -> None:
        """Write `vision.safetensors` beside the folder of the run."""
        with whole.file(directory.parent / "vision.safetensors") as new:
            save_file(self.model.tower.state_dict(), new)


@torch.no_grad()
def recognition_figures(model: Recognizer, pixels: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """The loss, and the share of right answers per head; of color, shape, size and place where objects are."""
    logits = model(pixels)
    right = torch.stack([one.argmax(-1) for one in logits], dim=1) == labels
    occupied = labels[:, 0] != len(COLORS)
    chosen = {name: right[:, i][occupied] if i < 4 else right[:, i] for i, name in enumerate(HEADS)}
    shares = {name: values.float().mean().item() for name, values in chosen.items()}
    return {"loss": recognition_loss(logits, labels).item(), **shares}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "vladva-train pretrain-tiny-vision", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=VisionSettings.batch_size)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    add_style(parser)
    add_course(parser, Course(minutes=20, learning_rate=1e-3, decay_share=0.8, workers=0))
    options = parser.parse_args(arguments)
    places.check_folder(options.output_dir, "--output-dir")
    return options


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = _parse(arguments)
    settings = VisionSettings(
        style=options.style, batch_size=options.batch_size, muon=options.optimizer == "muon", seed=options.seed
    )
    torch.manual_seed(settings.seed)
    trainer = VisionTrainer(Recognizer(CLIPVisionModel(vision_config())), settings, course_of(options))
    trainer.model.tower.set_attn_implementation("eager")  # at 65 tokens, faster on CPUs than SDPA
    directory = options.output_dir / "vision"
    directory.mkdir(parents=True, exist_ok=True)
    with file_locks.held(directory / file_locks.LOCK):
        begin(trainer, directory, options.resume)
        if options.compile:
            trainer.model.tower.compile()
        run(trainer, directory)
