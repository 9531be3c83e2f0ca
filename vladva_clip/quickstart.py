"""`vladva quickstart`: a gallery drawn to files, read back, and three questions put to a model."""

from pathlib import Path

import torch
from open_clip import build_zero_shot_classifier

from vladva_clip import devices
from vladva_clip.contact_sheet import contact_sheet
from vladva_clip.factory import create_model, get_tokenizer
from vladva_clip.gallery import ARRANGEMENTS, PAIRS, Answers, Picture, class_names, draw_gallery
from vladva_clip.metrics import foil_accuracy, recall_at_k
from vladva_clip.pictures import open_file

TEMPLATES = ("{}", "a picture of {}", "there is {}")
SCENES_ONLY = (
    "vladva-tiny knows drawn scenes only, no photographs; a real model needs a GPU and a download: "
    'vladva_clip.create_model("vladva-7b", device="cuda")'
)


def run(output_dir: Path, model_name: str = "vladva-tiny", device: str | torch.device = devices.AUTO) -> str:
    """Draw the gallery, ask the model, write `contact_sheet.png` into `output_dir`.

    Returns:
        The report as text: a table, a few captions and where the contact sheet is.

    Raises:
        ValueError: a device that isn't here; nothing is drawn.
    """
    device = devices.resolve(device)
    gallery = draw_gallery(output_dir)
    answers = ask(model_name, gallery, device)
    sheet = output_dir / "contact_sheet.png"
    contact_sheet(gallery, class_names(), answers).save(sheet)
    return report(gallery, answers, model_name, sheet)


@torch.no_grad()
def ask(model_name: str, gallery: list[Picture], device: str | torch.device = "cpu") -> Answers:
    """Read the files back and put three questions: which class, which picture, which word order."""
    model, preprocess = create_model(model_name, device=device)
    tokenizer = get_tokenizer(model_name)
    images = torch.stack([preprocess(open_file(picture.path)) for picture in gallery])
    image_features = model.encode_image(images, normalize=True).cpu()  # (n, D)
    classifier = build_zero_shot_classifier(model, tokenizer, class_names(), TEMPLATES).cpu()  # (D, classes)
    words = [text for picture in gallery for text in (picture.caption, *picture.swaps)]
    text_features = model.encode_text(tokenizer(words), normalize=True).cpu().view(len(gallery), 4, -1)
    return Answers(
        predicted=(image_features @ classifier).argmax(dim=1),
        similarity=text_features[:, 0] @ image_features.T,
        order=torch.einsum("nd,nkd->nk", image_features, text_features),
        written=model.generate(images[:: len(ARRANGEMENTS)][:4], "Describe the image in detail."),
    )


def report(gallery: list[Picture], answers: Answers, model_name: str, sheet: Path) -> str:
    """Return the answers as a table beside chance, with a few captions."""
    n = len(gallery)
    labels = torch.tensor([picture.label for picture in gallery])
    itself = torch.eye(n, dtype=torch.bool)
    true, *swapped = answers.order.T
    rows = [
        ("zero-shot classification, top-1", (answers.predicted == labels).float().mean().item(), 1 / len(PAIRS)),
        ("text-to-image retrieval, R@1", recall_at_k(answers.similarity, itself, 1), 1 / n),
        ("text-to-image retrieval, R@5", recall_at_k(answers.similarity, itself, 5), 5 / n),
        ("word order: above the swapped objects", foil_accuracy(true, swapped[0]), 1 / 2),
        ("word order: above the swapped colors", foil_accuracy(true, swapped[1]), 1 / 2),
        ("word order: above the swapped relation", foil_accuracy(true, swapped[2]), 1 / 2),
        ("word order: above all three", foil_accuracy(true, torch.stack(swapped).amax(dim=0)), 1 / 4),
    ]
    lines = [f"{model_name} on {n} drawn scenes of {len(PAIRS)} classes", ""]
    lines += [f"{'question':<40}{'model':>8}{'chance':>8}"]
    lines += [f"{name:<40}{value:>8.1%}{chance:>8.1%}" for name, value, chance in rows]
    lines += ["", *_example(gallery[0], answers.order[0]), ""]
    lines += [f"It writes, of {gallery[3 * i].path.name}: {text}" for i, text in enumerate(answers.written)]
    return "\n".join([*lines, "", f"Contact sheet: {sheet}", SCENES_ONLY])


def _example(picture: Picture, scores: torch.Tensor) -> list[str]:
    texts = (picture.caption, *picture.swaps)
    return [f"  {score:+.4f}  {text}" for text, score in zip(texts, scores.tolist(), strict=True)]
