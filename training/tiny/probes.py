"""What the base of vladva-tiny knows, part by part: what its visual tokens hold, and which questions it answers.

A recipe can't bring out what the base does not hold. A base that writes good captions may still have lost what captions
don't need: where in its row an object stands, since objects are named in reading order.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from transformers import LlavaForConditionalGeneration

from vladva_clip.scenes import COLORS, PLACES, SHAPES, SIZES, Saying, Scene, SceneObject, short_sayings
from vladva_training.tiny.batches import Batcher
from vladva_training.tiny.forward import hidden_states
from vladva_training.tiny.pixels import draw_pixels
from vladva_training.tiny.questions import Question, questions, readable_questions
from vladva_training.tiny.recognition import PATCHES, center_of
from vladva_training.tiny.tasks import Row, Task

WORDS = {"color": tuple(COLORS), "shape": SHAPES, "size": tuple(SIZES), "place": tuple(PLACES)}
TRAINED_SHARE = 0.75
RIDGE = 1e-2
CHUNK = 100


@torch.no_grad()
def visual_probes(model: LlavaForConditionalGeneration, drawn: Sequence[Scene]) -> dict[str, dict[str, float]]:
    """How well linear probes read an object's words from the visual token at its center.

    Args:
        model: the base.
        drawn: scenes; the probes are fitted on three quarters of them and tested on the rest.

    Returns:
        "vision tower" and "projector" -> word -> share of objects for which the probe names the right one.
    """
    pixels = torch.stack([draw_pixels(one) for one in drawn]).split(CHUNK)
    tower = torch.cat([_tower_tokens(model, chunk) for chunk in pixels])
    projected = torch.cat([torch.stack(list(model.get_image_features(chunk).pooler_output)) for chunk in pixels])
    return {name: _probe(tokens, drawn) for name, tokens in (("vision tower", tower), ("projector", projected))}


def _tower_tokens(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """What the projector reads: (B, patches, width)."""
    return model.model.vision_tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1][:, 1:]


def _probe(tokens: torch.Tensor, drawn: Sequence[Scene]) -> dict[str, float]:
    trained = int(TRAINED_SHARE * len(drawn))
    found = [(row, one) for row, scene in enumerate(drawn) for one in scene.objects]
    states = torch.stack([tokens[row, _center_patch(drawn[row], one)] for row, one in found]).double()
    states = F.pad((states - states.mean(0)) / states.std(0).clamp_min(1e-6), (0, 1), value=1.0)  # (objects, width + 1)
    fitted = torch.tensor([row < trained for row, _ in found])
    return {word: _accuracy(states, _labels(word, found), fitted) for word in WORDS}


def _center_patch(scene: Scene, one: SceneObject) -> int:
    x, y = center_of(scene.look, one)
    return int(y * PATCHES) * PATCHES + int(x * PATCHES)


def _labels(word: str, found: list[tuple[int, SceneObject]]) -> torch.Tensor:
    return torch.tensor([WORDS[word].index(getattr(one, word)) for _, one in found])


def _accuracy(states: torch.Tensor, labels: torch.Tensor, fitted: torch.Tensor) -> float:
    """Ridge regression to one-hot labels on the fitted rows; its share of right answers on the others."""
    known, answers = states[fitted], F.one_hot(labels)[fitted].double()
    damping = RIDGE * len(known) * torch.eye(states.shape[1], dtype=states.dtype)
    weights = torch.linalg.solve(known.T @ known + damping, known.T @ answers)
    return ((states[~fitted] @ weights).argmax(dim=1) == labels[~fitted]).double().mean().item()


@torch.no_grad()
def question_accuracy(
    model: LlavaForConditionalGeneration, batcher: Batcher, drawn: Sequence[Scene], modality: str, seed: int = 0
) -> dict[str, float]:
    """Share of questions whose answer the model would write word for word, by kind.

    Args:
        model: the base.
        batcher: with its tokenizer.
        drawn: scenes; each is asked one question of each kind that it allows.
        modality: "image" asks about the drawing, "text" about one of the short captions.
        seed: chooses questions and captions.

    Returns:
        Kind -> share; a kind that is asked of no scene is left out.
    """
    rng = random.Random(seed)
    rows: dict[str, list[Row]] = defaultdict(list)
    for scene in drawn:
        said = None if modality == "image" else rng.choice(short_sayings(scene))
        for kind, asked in (readable_questions(scene, said) if said else questions(scene)).items():
            question = rng.choice(asked) if asked else None
            rows[kind] += [_row(scene, said, question)] if question else []
    return {kind: _answered(model, batcher, found) for kind, found in rows.items() if found}


def _row(scene: Scene, said: Saying | None, question: Question) -> Row:
    return Row(scene, said and said.text, (Task("question", question.prompt, (question.answer,)),))


def _answered(model: LlavaForConditionalGeneration, batcher: Batcher, rows: list[Row]) -> float:
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return torch.cat([_right(model, batcher, chunk) for chunk in chunks]).float().mean().item()


def _right(model: LlavaForConditionalGeneration, batcher: Batcher, rows: list[Row]) -> torch.Tensor:
    """For each row, whether every token of the answer, its end included, is the likeliest where it stands: (B,)."""
    batch = batcher.collate(rows)
    row, column, token, _ = batch.targets
    right = model.lm_head(hidden_states(model, batch)[row, column]).argmax(-1) == token
    return torch.ones(len(rows), dtype=torch.bool).scatter_reduce(0, row, right, "amin", include_self=True)
