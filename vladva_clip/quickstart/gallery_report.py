"""The output of `vladva quickstart`: the table, the model's weaknesses in plain words, cosines and captions."""

import textwrap
from pathlib import Path

from vladva_clip.quickstart.gallery import PAIRS, SHOWN, Answers, Picture
from vladva_clip.quickstart.gallery_figures import figures, in_words, table
from vladva_clip.quickstart.written_claims import marked

SCENES_ONLY = (
    "vladva-tiny knows drawn scenes only; for photographs take a published embedder: `vladva models --fit` says what "
    "each needs"
)


def report(gallery: list[Picture], answers: Answers, model_name: str, sheet: Path) -> str:
    """Return the table of figures, one picture's cosines, and written captions with false sentences marked."""
    rows = figures(gallery, answers)
    lines = [f"{model_name} on {len(gallery)} drawn scenes of {len(PAIRS)} classes", "", *table(rows)]
    if weaknesses := in_words(rows):
        lines += ["", *textwrap.wrap(weaknesses, 100)]
    lines += ["", *_example(gallery[0], answers), ""]
    for index in SHOWN:
        written = marked(answers.written[index], gallery[index].scene)
        lines += [f"It writes, of {gallery[index].path.name}: {written}"]
    return "\n".join([*lines, "", f"Contact sheet: {sheet}", SCENES_ONLY])


def _example(picture: Picture, answers: Answers) -> list[str]:
    """Return a picture's cosines with its word orders, then with the relations of the other axis."""
    scores = [*zip(picture.offered["order"], answers.offered["order"][0].tolist(), strict=True)]
    scores += [*zip(picture.offered["relation"], answers.offered["relation"][0].tolist(), strict=True)][2:]
    lines = [f"  {score:+.4f}  {text}" for text, score in scores]
    return [f"Cosines with {picture.path.name}, the true caption first:", *lines]


def all_cosines(gallery: list[Picture], answers: Answers) -> list[str]:
    """Return the cosines with all captions offered, one line per picture and question."""
    return [
        f"{picture.path.stem} {question}: {' '.join(f'{cosine:.3f}' for cosine in scores[index].tolist())}"
        for question, scores in answers.offered.items()
        for index, picture in enumerate(gallery)
    ]
