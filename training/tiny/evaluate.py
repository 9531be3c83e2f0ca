"""Measures the base of vladva-tiny on scenes it has never seen. The weights are stored in bf16 and computed in fp32.

    vladva-train evaluate-tiny --base vladva_clip/assets/vladva-tiny/base --output report.json

Reports the next-token loss of each task, the share of scenes whose generated caption names exactly their objects,
training-free retrieval in a gallery of whole families, what linear probes read from the visual tokens, and the share of
right answers by kind of question.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration

import vladva_clip
from vladva_clip.interface.arguments import user_path
from vladva_clip.scenes import (
    STYLES,
    Scene,
    claim_accuracy,
    facts,
    family_size,
    naming_accuracy,
    scenes,
    short_captions,
    short_sayings,
)
from vladva_clip.storage import places, whole
from vladva_training.run.evaluation import retrieval_scores, true_images
from vladva_training.tiny.batches import Batcher
from vladva_training.tiny.forward import target_losses, task_means
from vladva_training.tiny.model import load_base
from vladva_training.tiny.pixels import draw_pixels
from vladva_training.tiny.probes import question_accuracy, visual_probes
from vladva_training.tiny.tasks import DESCRIBE_LONG

SHIPPED_BASE = Path(vladva_clip.__file__).parent / "assets" / "vladva-tiny" / "base"
MAX_CAPTION_TOKENS = 110
BATCH_SIZE = 50


@torch.no_grad()
def next_token_losses(
    model: LlavaForConditionalGeneration, batcher: Batcher, steps: int, rows: int = 32
) -> dict[str, float]:
    """Mean next-token loss by task and modality, in nats, over `steps` batches of each modality."""
    losses = defaultdict(list)
    for step in range(steps):
        for batch in (*batcher.batches("image", step, rows), *batcher.batches("text", step, rows)):
            for name, value in task_means(batch, target_losses(model, batch)):
                losses[name].append(value)
    return {name: sum(values) / len(values) for name, values in sorted(losses.items())}


@torch.no_grad()
def generate_captions(model: LlavaForConditionalGeneration, batcher: Batcher, drawn: list[Scene]) -> list[str]:
    """Greedy long captions, one per scene."""
    captions = []
    prompt = batcher.image_prompt_ids(DESCRIBE_LONG)
    for chunk in _chunks(drawn):
        input_ids = torch.tensor([prompt] * len(chunk))
        output = model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            pixel_values=torch.stack([draw_pixels(one) for one in chunk]),
            max_new_tokens=MAX_CAPTION_TOKENS,
            do_sample=False,
        )
        captions += batcher.tokenizer.batch_decode(output[:, input_ids.shape[1] :], skip_special_tokens=True)
    return captions


def caption_scores(drawn: list[Scene], captions: list[str]) -> dict[str, float]:
    """`names exactly the objects` (`naming_accuracy`), and the share of true claims of each kind."""
    true = {f"{kind} that are true": share for kind, share in claim_accuracy(captions, drawn).items()}
    return {"names exactly the objects": naming_accuracy(drawn, captions)} | true


def retrieval(model_name: str, drawn: list[Scene]) -> dict[str, float]:
    """Recall between scenes and their first short captions, both ways, and how often the best image is of the family.

    A caption is right for its own scene, and in other styles than the classic one for every scene of which it is true.

    Args:
        model_name: for `vladva_clip.create_model`.
        drawn: whole families in order.
    """
    model, preprocess = vladva_clip.create_model(model_name, precision="fp32")
    tokenizer = vladva_clip.get_tokenizer(model_name)
    images = torch.cat(
        [
            model.encode_image(torch.stack([preprocess(one.draw()) for one in chunk]), normalize=True)
            for chunk in _chunks(drawn)
        ]
    )
    texts = model.encode_text(tokenizer([short_captions(one)[0] for one in drawn]), normalize=True)
    return similarity_scores(texts @ images.T, right_scenes(drawn), family_size(drawn[0].style))


def right_scenes(drawn: Sequence[Scene]) -> torch.Tensor:
    """Which scenes the first short caption of each is right for: (captions, scenes) bool."""
    right = torch.eye(len(drawn), dtype=torch.bool)
    if drawn[0].style == "classic":  # of which each caption tells its scene from its family
        return right
    claims = [short_sayings(one)[0].claims for one in drawn]
    for row, images in zip(right, true_images(claims, list(map(facts, drawn))), strict=True):
        row[images] = True
    return right


def similarity_scores(similarity: torch.Tensor, right: torch.Tensor, size: int = 4) -> dict[str, float]:
    """R@1 and R@5 both ways, and the share of texts whose best image is of their family, from (texts, images)."""
    scores = retrieval_scores(similarity, right)
    families = torch.arange(len(similarity)) // size
    scores["text_to_family_R@1"] = (families[similarity.argmax(dim=1)] == families).float().mean().item()
    return scores


def evaluate(base: Path, count: int, style: str = "classic") -> dict[str, dict[str, float]]:
    """All figures of a base directory, on `count` scenes each of "test" and "heldout" in a style."""
    model, processor = load_base(base)
    report = {}
    for split in ("test", "heldout"):
        batcher, drawn = Batcher(processor.tokenizer, split, style=style), scenes(split, 0, count, style)
        captions = generate_captions(model, batcher, drawn)
        report[f"next-token loss, {split}"] = next_token_losses(model, batcher, steps=-(-count // 100))
        report[f"captions, {split}"] = caption_scores(drawn, captions)
        report[f"training-free retrieval, {split}"] = retrieval(f"local-dir:{base}", drawn)
        report |= _knowledge(model, batcher, drawn, split)
    return report


def _knowledge(
    model: LlavaForConditionalGeneration, batcher: Batcher, drawn: list[Scene], split: str
) -> dict[str, dict[str, float]]:
    """What the visual tokens hold, and which questions the base answers."""
    probes = {f"probes of the {part}, {split}": found for part, found in visual_probes(model, drawn).items()}
    answered = {
        f"questions about {modality}s, {split}": question_accuracy(model, batcher, drawn, modality)
        for modality in ("image", "text")
    }
    return probes | answered


def as_table(report: dict[str, dict[str, float]]) -> str:
    """The report as aligned lines."""
    lines = []
    for title, figures in report.items():
        lines += [title, *(f"  {name:<28}{value:.4f}" for name, value in figures.items())]
    return "\n".join(lines)


def _chunks(drawn: list[Scene]) -> Iterator[list[Scene]]:
    return (drawn[start : start + BATCH_SIZE] for start in range(0, len(drawn), BATCH_SIZE))


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        "vladva-train evaluate-tiny", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=user_path, default=SHIPPED_BASE)
    parser.add_argument("--scenes", type=int, default=1000, help="scenes per split, a multiple of eight")
    parser.add_argument("--style", choices=STYLES, default="classic", help="how scenes are drawn and described")
    parser.add_argument("--output", type=user_path, help="also write the report as JSON")
    options = parser.parse_args(arguments)
    places.check_file(options.output, "--output")
    report = evaluate(options.base, options.scenes, options.style)
    print(as_table(report))
    if options.output:
        whole.write(options.output, (json.dumps(report, indent=2) + "\n").encode())
