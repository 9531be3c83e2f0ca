"""`vladva classify`: which of some labels fits a picture best."""

from collections import Counter
from pathlib import Path

import click

from vladva_clip.commands import options, output, pictures
from vladva_clip.commands.model import Asked

EXAMPLES = """\b
Examples:
  vladva classify photo.jpg --labels "a cat,a dog"
  vladva classify holiday/ --labels-file labels.txt --top 3 --model qwen3-vl-embedding-2b
  vladva classify "*.png" --labels red,blue --template "a {} car" --json
"""


@click.command(epilog=EXAMPLES, short_help="Choose among labels for each picture.")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--labels", metavar="A,B,...", multiple=True, help="Labels, separated by commas; may be repeated.")
@click.option("--labels-file", metavar="FILE", type=options.PATH, help="A UTF-8 file with a label per line.")
@click.option(
    *("--template", "templates"), metavar="TEXT", multiple=True, default=["{}"], show_default=True,
    help="The text for a label, with {} in its place; of several, the features are averaged.",
)  # fmt: skip
@click.option("--top", type=options.COUNT, default=5, show_default=True, metavar="N", help="Labels to print.")
@options.model()
@options.batch_size
@options.failures
@options.as_json
def classify(
    asked: Asked,
    images: tuple[str, ...],
    labels: tuple[str, ...],
    labels_file: Path | None,
    templates: tuple[str, ...],
    top: int,
    batch_size: int,
    failures_file: Path | None,
    as_json: bool,
) -> int:
    """Choose among labels for each picture, best first, with the cosine and the probability (softmax of the scaled
    cosines, as in CLIP).

    IMAGE is a file, a folder (all pictures below it) or a glob.
    """
    names = _labels(labels, labels_file)
    _check_templates(templates)
    paths, failures = pictures.find(images)
    total = len(paths) + len(failures)
    loaded = asked.load()
    from vladva_clip.index.labels import classify as choose
    from vladva_clip.index.labels import label_features
    from vladva_clip.pictures.batches import batches

    classifier = label_features(loaded.model, loaded.tokenizer, names, templates)  # (D, labels)
    scale = loaded.model.logit_scale.exp().item()
    with output.progress(len(paths), "picture", beside_results=True) as bar:
        for some, pixels in batches(paths, loaded.preprocess, batch_size, failures):
            features = loaded.model.encode_image(pixels.to(classifier.device), normalize=True)
            for path, chosen in zip(some, choose(features, classifier, scale, top), strict=True):
                _print(path, [(names[index], *scores) for index, *scores in chosen], as_json)
            bar.update(len(some))
    return output.finish(failures, total, file=failures_file)


def _labels(given: tuple[str, ...], file: Path | None) -> list[str]:
    labels = [label.strip() for text in given for label in text.split(",") if label.strip()]
    labels += options.lines_of(file)
    if not labels:
        raise click.UsageError('there are no labels: give --labels "a cat,a dog" or --labels-file FILE')
    label, times = Counter(labels).most_common(1)[0]
    if times > 1:
        raise click.UsageError(f"the label {label!r:.80} is there {times} times; one is enough")
    return labels


def _check_templates(templates: tuple[str, ...]) -> None:
    for template in templates:
        if template.count("{}") != 1:
            raise click.UsageError(
                f"the template {template!r} has {template.count('{}')} places for a label, not one {{}}"
            )


def _print(path: Path, chosen: list[tuple[str, float, float]], as_json: bool) -> None:
    if as_json:
        labels = [{"label": label, "cosine": round(c, 6), "probability": round(p, 6)} for label, c, p in chosen]
        output.record(file=str(path), labels=labels)
        return
    output.line(output.heading(path))
    for label, cosine, probability in chosen:
        output.line(f"  {probability:6.1%}  {cosine:+.3f}  {output.plain(label)}")
