"""Pre-trains the vision tower of vladva-tiny, as LLaVA's is: it learns to recognize before the LLM learns to talk.

    vladva-train pretrain-tiny-vision --output-dir runs/tiny --scenes 100000

Every visual token learns what stands in its cell of the 3 x 3 grid (color, shape and size, or nothing), which cell
that is, and what the background looks like. Writes `vision.safetensors` for `pretrain-tiny --vision`.
"""

import argparse
import math
import signal
import time

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPVisionModel

from vladva_clip.interface.arguments import user_path
from vladva_clip.scenes import BACKGROUNDS, COLORS, PLACES, SHAPES, SIZES, Scene, crowd, scene, stable_seed
from vladva_clip.storage import places, whole
from vladva_training.tiny.batches import draw_pixels
from vladva_training.tiny.model import IMAGE_SIZE, PATCH_SIZE, vision_config

PATCHES = IMAGE_SIZE // PATCH_SIZE
HEADS = {
    "color": (*COLORS, None),
    "shape": (*SHAPES, None),
    "size": (*SIZES, None),
    "place": tuple(PLACES),
    "background": BACKGROUNDS,
}
"""What each visual token is asked -> possible answers; None is an empty cell."""


def patch_labels(drawn: Scene) -> torch.Tensor:
    """The right answer of every head at every patch, row by row: (heads, patches)."""
    by_cell = {PLACES[o.place]: o for o in drawn.objects}
    names = {cell: name for name, cell in PLACES.items()}
    columns = []
    for patch in range(PATCHES**2):
        cell = _cell(patch % PATCHES), _cell(patch // PATCHES)
        found = by_cell.get(cell)
        words = [getattr(found, name, None) for name in ("color", "shape", "size")]
        words += [names[cell], drawn.background.kind]
        columns.append([answers.index(word) for answers, word in zip(HEADS.values(), words, strict=True)])
    return torch.tensor(columns).T


def _cell(position: int) -> int:
    """The column (or row) of the 3 x 3 grid in which a patch's center lies."""
    return (2 * position + 1) * 3 // (2 * PATCHES)


class DrawnScenes(Dataset):
    """Scenes as (pixels, labels); item `index` is a pure function of the seed and the index.

    Training scenes are crowds: nearly every cell holds an object, so one image teaches three times as much.
    """

    def __init__(self, count: int, seed: int = 0, split: str = "train"):
        self.count, self.seed, self.split = count, seed, split

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        number = stable_seed(self.seed, "vision", index) % 2**30
        drawn = crowd(number) if self.split == "train" else scene(self.split, number)
        return draw_pixels(drawn), patch_labels(drawn)


class RecognitionHeads(nn.Module):
    """One linear head per question on every visual token."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, len(answers)) for answers in HEADS.values())

    def forward(self, visual_tokens: torch.Tensor) -> list[torch.Tensor]:
        """Logits (B, patches, answers) per head, of visual tokens (B, patches, width)."""
        states = self.norm(visual_tokens)
        return [head(states) for head in self.heads]


class Recognizer(nn.Module):
    """The vision tower with recognition heads on its visual tokens."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower
        self.heads = RecognitionHeads(tower.config.hidden_size)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Logits (B, patches, answers) per head, from the states that the projector will read."""
        return self.heads(self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1][:, 1:])


def recognition_loss(logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """The sum of the heads' mean cross-entropies; labels are (B, heads, patches)."""
    losses = [functional.cross_entropy(one.transpose(1, 2).float(), labels[:, i]) for i, one in enumerate(logits)]
    return torch.stack(losses).sum()


@torch.no_grad()
def recognition_accuracy(model: Recognizer, count: int = 256) -> dict[str, float]:
    """Share of right answers per head on test scenes; color, shape and size at occupied cells only."""
    pixels, labels = next(iter(DataLoader(DrawnScenes(count, split="test"), batch_size=count)))
    right = torch.stack([one.argmax(-1) for one in model(pixels)], dim=1) == labels
    occupied = labels[:, 0] != len(COLORS)
    chosen = {name: right[:, i][occupied] if i < 3 else right[:, i] for i, name in enumerate(HEADS)}
    return {name: values.float().mean().item() for name, values in chosen.items()}


def learning_rate_at(step: int, steps: int, peak: float = 1e-3, warmup_steps: int = 100) -> float:
    """Linear warm-up, then a cosine to a fiftieth of the peak."""
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
    return peak * min(1.0, (step + 1) / warmup_steps) * cosine


def pretrain_vision(
    model: Recognizer, count: int, batch_size: int = 64, workers: int = 1, seed: int = 0
) -> list[float]:
    """Trains on `count` scenes; returns the loss of every step."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05, betas=(0.9, 0.95))
    scenes = DrawnScenes(count, seed)
    loader = DataLoader(scenes, batch_size=batch_size, num_workers=workers, worker_init_fn=_leave_ctrl_c)
    started, losses = time.perf_counter(), []
    for step, (pixels, labels) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, len(loader))
        losses.append(_train_step(model, optimizer, pixels, labels))
        if step % 100 == 99:
            rate = (step + 1) * batch_size / (time.perf_counter() - started)
            left = (count - (step + 1) * batch_size) / rate / 60
            print(f"step {step + 1} | loss {losses[-1]:.3f} | {rate:.0f} scenes/s | {left:.1f} min left", flush=True)
    return losses


def _leave_ctrl_c(worker: int) -> None:
    """Leave Ctrl-C to the main process: torch reports a worker that it ends as an error, in the middle of the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _train_step(model: Recognizer, optimizer, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(pixels)
    loss = recognition_loss(logits, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        "vladva-train pretrain-tiny-vision", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output-dir", type=user_path, required=True)
    parser.add_argument("--scenes", type=int, default=100_000)
    parser.add_argument("--compile", action="store_true", help="faster; needs a C++ compiler")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    places.check_folder(options.output_dir, "--output-dir")
    torch.manual_seed(options.seed)
    model = Recognizer(CLIPVisionModel(vision_config()))
    if options.compile:
        model.compile()
    pretrain_vision(model, options.scenes, seed=options.seed)
    print(recognition_accuracy(model))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    with whole.file(options.output_dir / "vision.safetensors") as new:
        save_file(model.tower.state_dict(), new)
