"""Measures the captions of a VladvaCLIP on scenes it has never seen."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from vladva_benchmarks.drawn.scene_tasks import World
from vladva_benchmarks.suites.drawn_scenes import IMAGE_SIZE
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.model import VladvaCLIP
from vladva_clip.scenes import Scene, claim_accuracy, long_caption, naming_accuracy, scenes
from vladva_training.run.evaluation import evaluating, long_caption_loss
from vladva_training.tiny.evaluate import MAX_CAPTION_TOKENS
from vladva_training.tiny.tasks import DESCRIBE_LONG


@dataclass(frozen=True)
class Captioner:
    """A VladvaCLIP with its own image transform and tokenizer."""

    model: VladvaCLIP
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: VladvaTokenizer


def caption_quality(captioner: Captioner, world: World, count: int = 200) -> dict[str, float]:
    """Measure captions on the first `count` scenes of a split in a style.

    Returns:
        `continued` and `described`: the share of greedy captions that name exactly the scene's objects. `continued`
        captions stand where the recipe trains them, in the second turn or, without one, right behind the image's rows,
        `described` ones the base's own chat, "Describe the image in detail.". For each of the two, such as
        `described_relations`, the share of true claims by kind of `CLAIM_KINDS` (`vladva_clip.scenes.claims`).
        `ntp_loss`: nats per token of the true long caption in the same place.
    """
    drawn = scenes(world.split, 0, count, world.style)
    images = torch.stack([captioner.preprocess(one.draw(IMAGE_SIZE)) for one in drawn])
    ids = [torch.tensor(row) for row in captioner.tokenizer.long_ids([long_caption(one) for one in drawn])]
    with evaluating(captioner.model):
        nats, tokens = long_caption_loss(captioner.model, images, ids)
    prompts = {"continued": None, "described": DESCRIBE_LONG}
    written = {name: captioner.model.generate(images, prompt, MAX_CAPTION_TOKENS) for name, prompt in prompts.items()}
    scores = {name: value for name, texts in written.items() for name, value in _scores(name, drawn, texts)}
    return scores | {"ntp_loss": nats / tokens}


def _scores(name: str, drawn: Sequence[Scene], texts: Sequence[str]) -> Iterator[tuple[str, float]]:
    yield name, naming_accuracy(drawn, texts)
    for kind, share in claim_accuracy(texts, drawn).items():
        yield f"{name}_{kind}", share
