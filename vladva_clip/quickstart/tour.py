"""`vladva quickstart`: draw a gallery to files, read it back, and ask a model easy and hard questions about it."""

from collections.abc import Callable
from pathlib import Path

import torch
from open_clip import build_zero_shot_classifier
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vladva_clip.factory import create_model, get_tokenizer
from vladva_clip.interface import devices
from vladva_clip.pictures.files import open_file
from vladva_clip.quickstart.contact_sheet import contact_sheet
from vladva_clip.quickstart.gallery import OBJECTS, Answers, Picture, class_names, draw_gallery
from vladva_clip.quickstart.gallery_figures import figures, table
from vladva_clip.quickstart.gallery_report import all_cosines, report
from vladva_clip.scenes import CLASS_TEMPLATES, Mention
from vladva_clip.storage import places, whole


def run(
    output_dir: Path,
    model_name: str = "vladva-tiny",
    device: str | torch.device = devices.AUTO,
    say: Callable[[str], None] = lambda step: None,
) -> str:
    """Draw the gallery, ask the model, and write `contact_sheet.png` into `output_dir`; `say` is told each step.

    Returns:
        The report as text: a table, a few captions and the path of the contact sheet.

    Raises:
        ValueError: an unavailable device, or a folder that can't be written; nothing is drawn then.
    """
    device = devices.resolve(device)
    places.check_folder(output_dir)
    say(f"drawing scenes to {output_dir}")
    gallery = draw_gallery(output_dir)
    say(f"asking {model_name} on {device}: which caption, which picture, and what it writes itself")
    answers = ask(model_name, gallery, device)
    sheet = output_dir / "contact_sheet.png"
    say(f"drawing {sheet}")
    save_sheet(sheet, gallery, answers)
    return report(gallery, answers, model_name, sheet)


def save_sheet(path: Path, gallery: list[Picture], answers: Answers) -> None:
    """Write the contact sheet as a PNG whose "Description" has the table and all cosines as text."""
    description = PngInfo()
    description.add_text("Description", "\n".join([*table(figures(gallery, answers)), *all_cosines(gallery, answers)]))
    sheet = contact_sheet(gallery, class_names(), answers)
    small = sheet.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)  # a third of the bytes
    with whole.file(path) as new:
        small.save(new, "PNG", optimize=True, pnginfo=description)


@torch.no_grad()
def ask(model_name: str, gallery: list[Picture], device: str | torch.device = "cpu") -> Answers:
    """Read the files back and ask the questions: which class, which object, which picture, which caption of four."""
    model, preprocess = create_model(model_name, device=device)
    tokenizer = get_tokenizer(model_name)
    images = torch.stack([preprocess(open_file(picture.path)) for picture in gallery])
    features = model.encode_image(images, normalize=True).cpu()  # (n, D)
    names = [Mention(*pair).phrase for pair in OBJECTS]
    classes, objects = (
        build_zero_shot_classifier(model, tokenizer, some, CLASS_TEMPLATES).cpu() for some in (class_names(), names)
    )  # (D, classes), (D, 48)
    encode = _encoder(model, tokenizer)
    return Answers(
        predicted=(features @ classes).argmax(dim=1),
        named=features @ objects,
        similarity=encode([picture.caption for picture in gallery]) @ features.T,
        offered={question: _offered(question, gallery, features, encode) for question in gallery[0].offered},
        logit_scale=model.logit_scale.exp().item(),
        written=model.generate(images, "Describe the image in detail."),
    )


def _encoder(model: torch.nn.Module, tokenizer: Callable) -> Callable[[list[str]], torch.Tensor]:
    """Return a function from N texts to `(N, D)` normalized features that encodes each text only once."""
    known: dict[str, torch.Tensor] = {}

    def encode(texts: list[str]) -> torch.Tensor:
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            known.update(zip(new, model.encode_text(tokenizer(new), normalize=True).cpu(), strict=True))
        return torch.stack([known[text] for text in texts])

    return encode


def _offered(question: str, gallery: list[Picture], features: torch.Tensor, encode: Callable) -> torch.Tensor:
    """Return the cosines `(n, 4)` of each picture with the captions offered for it."""
    texts = [text for picture in gallery for text in picture.offered[question]]
    return torch.einsum("nd,nkd->nk", features, encode(texts).view(len(gallery), -1, features.shape[1]))
