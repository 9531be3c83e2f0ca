"""The rival: an open_clip CLIP of vladva-tiny's size, trained from scratch on the same batches.

    rival = train_rival(scene_batches(seed=0), steps=600, seed=0)
    figures = evaluate_worlds(rival_encoder(rival), [World("heldout")])["heldout"]

Architecture and initialization are open_clip's own. The loss is too, but for captions that are known to be true of
another picture of the batch, which are no negatives of it, as in the recipe. It has the vocabulary and the image
transform of vladva-tiny, takes the batches of the recipe's loader (whole families in each; for the same seed the same
scenes and short captions in the same order) and the recipe's optimizer with CLIP's settings. It never sees long
captions.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import torch
from open_clip import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import nn

import vladva_clip
from vladva_benchmarks.suites import models
from vladva_benchmarks.suites.models import Encoder
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.interface import devices
from vladva_training.config import OptimSection
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.examples import ExampleMaker
from vladva_training.data.loader import Loader, Slice, Workers, make_loader
from vladva_training.data.specs import open_source
from vladva_training.losses.contrastive import info_nce
from vladva_training.step.batches import Batch
from vladva_training.step.fused import MAX_LOGIT_SCALE
from vladva_training.step.global_loss import Presence
from vladva_training.step.optim import build_optimizer, build_schedule

TINY = "vladva-tiny"
WIDTH = 256
VISION = CLIPVisionCfg(layers=5, width=192, patch_size=8, image_size=64)
TEXT = CLIPTextCfg(context_length=32, vocab_size=1024, width=WIDTH, heads=4, layers=5)
START, END = 1022, 1023  # free rows in the vocabulary of vladva-tiny's tokenizer; END must be the largest id

# the rate with the lowest loss after 43 steps of 128, among 3e-4, 5e-4, 1e-3 and 3e-3; also open_clip's own. After the
# miniature's 600 steps of 32, the mean loss over 50 steps is 1.51 with 1e-3 and 1.50 with 5e-4
OPTIM = OptimSection(learning_rate=5e-4, weight_decay=0.1, beta1=0.9, beta2=0.98, warmup_share=0.1)


class RivalTokenizer:
    """list[str] -> `(N, 32)` int64 as open_clip's text tower reads them: start, vladva-tiny's own ids, end, zeros."""

    def __init__(self) -> None:
        self.tokenizer: VladvaTokenizer = vladva_clip.get_tokenizer(TINY)

    def __call__(self, texts: str | Sequence[str]) -> torch.Tensor:
        return rows(self.tokenizer.ids(texts))


def rows(captions: Sequence[Sequence[int]]) -> torch.Tensor:
    """Lay captions out as `(N, 32)` int64; ids beyond the context are cut off, as CLIP does."""
    tokens = torch.zeros(len(captions), TEXT.context_length, dtype=torch.long)
    for row, caption in zip(tokens, captions, strict=True):
        ids = [START, *map(int, caption[: TEXT.context_length - 2]), END]
        row[: len(ids)] = torch.tensor(ids)
    return tokens


def build_rival(seed: int) -> CLIP:
    """Build the untrained rival, 6.6 million parameters beside vladva-tiny's 6.5; the same for the same seed."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        return CLIP(WIDTH, VISION, TEXT)


def scene_batches(
    seed: int, batch_size: int = 32, specs: Sequence[str] = ("scenes:train:400000",), num_workers: int = 0
) -> Loader:
    """The recipe's loader over drawn scenes, source after source, families kept together: endless batches.

    They are the same for the same seed.
    """
    preprocess, tokenizer = vladva_clip.create_model(TINY, "base")[1], vladva_clip.get_tokenizer(TINY)
    return make_loader(
        [open_source(spec) for spec in specs],
        ExampleMaker(CaptionSplitter(tokenizer), preprocess, seed, with_facts=True),
        Slice(batch_size),
        tokenizer.eot_token_id,
        in_turn=True,
        workers=Workers(num_workers),
    )


def train_rival(
    batches: Iterable[Batch],
    steps: int,
    seed: int = 0,
    optim: OptimSection = OPTIM,
    device: str | torch.device = "cpu",
    autocast: bool = False,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> CLIP:
    """Train the rival from scratch; the same result for the same seed and batches.

    Args:
        batches: images with short captions, at least `steps` of them.
        steps: optimizer steps, one per batch.
        seed: for the initialization.
        optim: settings of AdamW and the schedule.
        device: where it trains (see `vladva_clip.interface.devices`).
        autocast: compute matrix products in bfloat16.
        on_step: called with the number of each step and its loss.

    Returns:
        The trained model in eval mode.

    Raises:
        ValueError: fewer batches than steps, an image without a short caption, an unavailable device.
    """
    device = devices.resolve(device)
    model = build_rival(seed).to(device).train()
    optimizer = build_optimizer(model, optim)
    schedule = build_schedule(optimizer, optim, steps)
    step = 0
    for step, batch in enumerate(islice(batches, steps), start=1):
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = contrastive_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), optim.max_grad_norm)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        on_step(step, loss.item())
    if step < steps:
        raise ValueError(f"the batches end after {step} of {steps} steps")
    return model.eval()


def contrastive_loss(model: CLIP, batch: Batch) -> torch.Tensor:
    """open_clip's loss on the images and the short captions of a batch, without known false negatives.

    Raises:
        ValueError: an image without a short caption.
    """
    missing = [key for key, caption in zip(batch.keys, batch.short, strict=True) if caption is None]
    if missing:
        raise ValueError(
            f"{len(missing)} images have no short caption, such as {missing[0]}; the rival needs one for each image"
        )
    device = model.logit_scale.device
    images, texts, scale = model(batch.images.to(device), rows(batch.short).to(device))
    same = Presence.of(batch, 0, near=False, known=True).same_short().to(device)
    return info_nce(images, texts, scale.log(), same=same) / 2  # open_clip's is the mean of both directions


def rival_encoder(model: CLIP) -> Encoder:
    """Return the rival as an encoder for the scene figures, with vladva-tiny's image transform."""
    return models.in_hand(model, vladva_clip.create_model(TINY, "base")[1], RivalTokenizer())
