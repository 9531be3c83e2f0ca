"""Measures any encoder on scenes it has never seen: retrieval, foils, SugarCrepe++, Winoground, classification.

The scenes that are asked about are new to the encoder, and so are some of the questions: `evaluation_foils` has kinds
that no training draws, since a figure whose foils are those of training tells what was trained, not what is understood.

An encoder is two functions, so that VladvaCLIP and an open_clip CLIP go through the very same code:

    figures = evaluate_scenes(clip_encoder(model, preprocess, tokenizer), "heldout")

The captioner behind a VladvaCLIP is measured by `caption_quality`. Every figure is a fraction in [0, 1].
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.metrics import foil_accuracy, itt_accuracy, top_1_accuracy, tot_accuracy, winoground_scores
from vladva_clip.model import VladvaCLIP
from vladva_clip.scenes import (
    COLORS,
    EVALUATION_KINDS,
    EVALUATION_TRIPLES,
    FAMILY_SIZE,
    FOIL_KINDS,
    HELD_OUT_PAIRS,
    SHAPES,
    TRIPLE_KINDS,
    Mention,
    Scene,
    claim_accuracy,
    evaluation_foils,
    evaluation_triples,
    evaluation_winoground,
    foils,
    long_caption,
    scenes,
    short_captions,
    triples,
    winoground,
)
from vladva_training.run.evaluation import evaluating, long_caption_loss, matches, retrieval_scores
from vladva_training.tiny.evaluate import MAX_CAPTION_TOKENS, naming_accuracy
from vladva_training.tiny.tasks import DESCRIBE_LONG

PAIRS = tuple(product(COLORS, SHAPES))
TEMPLATES = ("{}", "a picture of {}", "there is {}")
BATCH_SIZE = 100

Figures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Encoder:
    """N images -> `(N, D)`, and N texts -> `(N, D)`; the features need not be normalised."""

    encode_images: Callable[[list[Image.Image]], torch.Tensor]
    encode_texts: Callable[[list[str]], torch.Tensor]


def clip_encoder(model: nn.Module, preprocess: Callable, tokenizer: Callable) -> Encoder:
    """Make an encoder of a model with open_clip's interface, in any mode and on any device.

    Args:
        model: with `encode_image` and `encode_text`.
        preprocess: PIL image -> `(3, H, W)`.
        tokenizer: list of texts -> `(N, L)`.
    """
    device = next(model.parameters()).device

    def encode(encode_batch: Callable, prepare: Callable, items: list) -> torch.Tensor:
        with evaluating(model):
            return torch.cat([encode_batch(prepare(chunk).to(device)).float().cpu() for chunk in _chunks(items)])

    return Encoder(
        lambda images: encode(model.encode_image, lambda chunk: torch.stack([preprocess(i) for i in chunk]), images),
        lambda texts: encode(model.encode_text, tokenizer, texts),
    )


def evaluate_scenes(
    encoder: Encoder, split: str, count: int = 1000, foil_count: int = 500, image_size: int = 64
) -> Figures:
    """All figures of an encoder on one split.

    Args:
        encoder: what is measured.
        split: "test" (new scenes of the trained color-shape pairs) or "heldout" (each has a never-seen pair).
        count: images of the gallery, whole families: a multiple of four.
        foil_count: so many of them, the first, are asked about foils and triples.
        image_size: pixels of the drawn images.

    Returns:
        `retrieval`, `foils`, `itt`, `tot`, `winoground`, `zero_shot`; of the kinds that no training draws,
        `evaluation_foils`, `evaluation_itt`, `evaluation_tot`, `evaluation_winoground`: name -> fraction (see the
        functions below).

    Raises:
        ValueError: a gallery with part of a family.
    """
    if count < FAMILY_SIZE or count % FAMILY_SIZE:
        raise ValueError(f"count is {count}; expected whole families of {FAMILY_SIZE}, such as 1000")
    embedded, gallery = Embedded(encoder, image_size), scenes(split, 0, count)
    asked = gallery[:foil_count]
    return {
        "retrieval": retrieval(embedded, gallery),
        "foils": foil_scores(embedded, asked),
        **triple_scores(embedded, asked),
        "evaluation_foils": evaluation_scores(embedded, asked),
        **evaluation_triple_scores(embedded, asked),
        "winoground": winoground_of(embedded, [winoground(split, number) for number in range(count // FAMILY_SIZE)]),
        **evaluation_winoground_scores(embedded, asked),
        "zero_shot": {"top_1": zero_shot(embedded, gallery, split)},
    }


class Embedded:
    """Normalised features of scenes and texts, each encoded once, however often it is asked for."""

    def __init__(self, encoder: Encoder, image_size: int = 64) -> None:
        self.encoder, self.image_size = encoder, image_size
        self._images: dict[Scene, torch.Tensor] = {}
        self._texts: dict[str, torch.Tensor] = {}

    def images(self, drawn: Sequence[Scene]) -> torch.Tensor:
        """Return the features `(N, D)` of N scenes."""
        return self._look_up(self._images, drawn, lambda new: self.encoder.encode_images(self._draw(new)))

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the features `(N, D)` of N texts."""
        return self._look_up(self._texts, texts, self.encoder.encode_texts)

    def _draw(self, drawn: list[Scene]) -> list[Image.Image]:
        return [one.draw(self.image_size) for one in drawn]

    @staticmethod
    def _look_up(known: dict, wanted: Sequence, encode: Callable[[list], torch.Tensor]) -> torch.Tensor:
        new = [item for item in dict.fromkeys(wanted) if item not in known]
        if new:
            known.update(zip(new, F.normalize(encode(new).float(), dim=-1), strict=True))
        return torch.stack([known[item] for item in wanted])


def retrieval(embedded: Embedded, gallery: list[Scene]) -> dict[str, float]:
    """R@1 and R@5 both ways between the scenes and the five short captions of each.

    A caption answers every scene that has it word for word among its own.
    """
    captions = [short_captions(one) for one in gallery]
    queries = [caption for five in captions for caption in five]
    similarity = embedded.texts(queries) @ embedded.images(gallery).T  # (5 N, N)
    return retrieval_scores(similarity, matches(queries, captions))


def foil_scores(embedded: Embedded, drawn: list[Scene]) -> dict[str, float]:
    """SugarCrepe's seven kinds: share of scenes that prefer the caption to its foil."""
    asked = [foils(one) for one in drawn]
    return {
        kind: foil_accuracy(
            *(_to_images(embedded, drawn, [captions[kind][side] for captions in asked]) for side in range(2))
        )
        for kind in FOIL_KINDS
    }


def triple_scores(embedded: Embedded, drawn: list[Scene]) -> Figures:
    """SugarCrepe++'s two scores, `itt` and `tot`, of its five kinds."""
    asked = [triples(one) for one in drawn]
    scores = {kind: _triple_scores(embedded, drawn, [one[kind] for one in asked]) for kind in TRIPLE_KINDS}
    return {name: {kind: score[name] for kind, score in scores.items()} for name in ("itt", "tot")}


def evaluation_scores(embedded: Embedded, drawn: list[Scene]) -> dict[str, float]:
    """The kinds of `evaluation_foils`: share of scenes that prefer the caption to all false ones.

    Each kind is asked of the scenes that have it. Chance is 1/4 for `relation_of_four`, else 1/2. A kind that none of
    the scenes has is absent.
    """
    asked = [(one, evaluation_foils(one)) for one in drawn]
    kinds = {kind: [(one, found[kind]) for one, found in asked if kind in found] for kind in EVALUATION_KINDS}
    return {kind: _choice_accuracy(embedded, choices) for kind, choices in kinds.items() if choices}


def evaluation_triple_scores(embedded: Embedded, drawn: list[Scene]) -> Figures:
    """`evaluation_itt` and `evaluation_tot`: SugarCrepe++'s two scores of the kinds of `evaluation_triples`."""
    asked = [(one, evaluation_triples(one)) for one in drawn]
    scores = {}
    for kind in EVALUATION_TRIPLES:
        if having := [(one, found[kind]) for one, found in asked if kind in found]:
            scores[kind] = _triple_scores(embedded, *map(list, zip(*having, strict=True)))
    return {f"evaluation_{name}": {kind: score[name] for kind, score in scores.items()} for name in ("itt", "tot")}


def _triple_scores(embedded: Embedded, drawn: list[Scene], asked: list[tuple[str, str, str]]) -> dict[str, float]:
    """Both scores of N scenes with a (caption, paraphrase, negative) each."""
    columns = list(zip(*asked, strict=True))
    caption, paraphrase, negative = (embedded.texts(column) for column in columns)
    pairs = ((caption, paraphrase), (caption, negative), (paraphrase, negative))
    return {
        "itt": itt_accuracy(*(_to_images(embedded, drawn, column) for column in columns)),
        "tot": tot_accuracy(*((first * second).sum(dim=1) for first, second in pairs)),
    }


def _choice_accuracy(embedded: Embedded, choices: list[tuple[Scene, tuple[str, tuple[str, ...]]]]) -> float:
    """Share of scenes whose caption scores strictly above all the false ones beside it."""
    drawn = [one for one, _ in choices]
    true = _to_images(embedded, drawn, [caption for _, (caption, _) in choices])
    sides = zip(*(false for _, (_, false) in choices), strict=True)
    false = torch.stack([_to_images(embedded, drawn, side) for side in sides])
    return foil_accuracy(true, false.amax(dim=0))


def winoground_of(embedded: Embedded, quadruples: Sequence[tuple[Scene, Scene, str, str]]) -> dict[str, float]:
    """Winoground's text, image and group score of (scene, scene, caption, caption)."""
    images = torch.stack([embedded.images([one[side] for one in quadruples]) for side in (0, 1)], dim=1)  # (F, 2, D)
    texts = torch.stack([embedded.texts([one[side] for one in quadruples]) for side in (2, 3)], dim=1)
    return winoground_scores(images @ texts.transpose(1, 2))


def evaluation_winoground_scores(embedded: Embedded, drawn: list[Scene]) -> Figures:
    """The same of `vladva_clip.scenes.evaluation_winoground`'s quadruples; nothing where no scene has one."""
    quadruples = [found for one in drawn if (found := evaluation_winoground(one))]
    return {"evaluation_winoground": winoground_of(embedded, quadruples)} if quadruples else {}


def zero_shot(embedded: Embedded, gallery: list[Scene], split: str) -> float:
    """Top-1 accuracy of naming an object: which color-shape pair is in the image?

    A scene has several objects, so each of them is a question of its own. Its classes are all 48 pairs but those of
    the scene's other objects: one class is true of the image, and among the false ones are those that give the
    object another's color or shape. In "heldout" only objects of never-seen pairs are asked about. A class is the mean
    feature of its prompts, "a red circle" in the wordings of `TEMPLATES`. Chance is about 1/46.
    """
    asked = HELD_OUT_PAIRS if split == "heldout" else PAIRS
    questions = [(row, pair) for row, one in enumerate(gallery) for pair in sorted(one.pairs) if pair in asked]
    similarity = embedded.images(gallery) @ _classifier(embedded).T  # (N, 48)
    others = torch.tensor([[other in gallery[row].pairs - {pair} for other in PAIRS] for row, pair in questions])
    scores = similarity[[row for row, _ in questions]].masked_fill(others, float("-inf"))
    return top_1_accuracy(scores, torch.tensor([PAIRS.index(pair) for _, pair in questions]))


@dataclass(frozen=True)
class Captioner:
    """A VladvaCLIP with the transform and tokenizer that belong to it."""

    model: VladvaCLIP
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: VladvaTokenizer


def caption_quality(captioner: Captioner, split: str, count: int = 200, image_size: int = 64) -> dict[str, float]:
    """Captions of a VladvaCLIP on scenes of a split.

    Returns:
        `continued` and `described`: share of greedy captions that name exactly the scene's objects, from the embedding
        prompt (which the recipe trains to be continued; an untuned base answers it with one word) and from the base's
        own chat, "Describe the image in detail."; for each of the two, such as `described_relations`, the share of
        true claims for each kind of `CLAIM_KINDS` (`vladva_clip.scenes.claims`); `ntp_loss`: nats per token of the
        true long caption behind the embedding prompt.
    """
    drawn = scenes(split, 0, count)
    images = torch.stack([captioner.preprocess(one.draw(image_size)) for one in drawn])
    ids = [torch.tensor(row) for row in captioner.tokenizer.ids([long_caption(one) for one in drawn])]
    with evaluating(captioner.model):
        nats, tokens = long_caption_loss(captioner.model, images, ids)
    prompts = {"continued": None, "described": DESCRIBE_LONG}
    written = {name: captioner.model.generate(images, prompt, MAX_CAPTION_TOKENS) for name, prompt in prompts.items()}
    scores = {name: value for name, texts in written.items() for name, value in _caption_scores(name, drawn, texts)}
    return scores | {"ntp_loss": nats / tokens}


def _caption_scores(name: str, drawn: list[Scene], texts: list[str]) -> Iterator[tuple[str, float]]:
    yield name, naming_accuracy(drawn, texts)
    for kind, share in claim_accuracy(texts, drawn).items():
        yield f"{name}_{kind}", share


def _to_images(embedded: Embedded, drawn: list[Scene], texts: Sequence[str]) -> torch.Tensor:
    """Similarity `(N,)` of each scene to its own text."""
    return (embedded.images(drawn) * embedded.texts(texts)).sum(dim=1)


def _classifier(embedded: Embedded) -> torch.Tensor:
    prompts = [template.format(Mention(*pair).phrase) for pair in PAIRS for template in TEMPLATES]
    return F.normalize(embedded.texts(prompts).view(len(PAIRS), len(TEMPLATES), -1).mean(dim=1), dim=-1)


def _chunks(items: list) -> Iterator[list]:
    return (items[start : start + BATCH_SIZE] for start in range(0, len(items), BATCH_SIZE))
