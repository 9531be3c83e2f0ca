"""Model cards: a README.md for the Hub, made of config, training record, result files and the author's own text."""

import errno
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from vladva_clip.hub import card_license, card_text
from vladva_clip.hub.card_results import Figure, eval_results, read_results, refuse_twice, tables
from vladva_clip.interface.arguments import user_path
from vladva_clip.sources import contents, registry
from vladva_clip.storage import disk, places, whole
from vladva_clip.storage.adapter_files import CONFIG, LORA_CONFIG, read_config
from vladva_clip.storage.allowed_files import refuse_links_out
from vladva_clip.storage.card_files import MARK, NOTES, README, RECORD, RESULTS, is_ours
from vladva_clip.storage.config import VladvaConfig, read_json

MAX_RESULTS, MAX_FIGURES = 256, 1024  # files; figures in total
MAX_NOTES = 1 << 18  # bytes


def write_card(
    directory: Path | str,
    output: Path | str | None = None,
    record: dict[str, Any] | None = None,
    results: list[Path] | None = None,
    license: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
    *,
    licence: str | None = None,
) -> Path:
    """Write the card of an adapter directory.

    The author's own text goes into `card.md` of the directory. What precedes its first `## ` heading becomes the
    introduction; text under a heading is added to the section of that name, or becomes a section of its own.

    Args:
        directory: the adapter's directory.
        output: the file to write; `README.md` in the directory by default.
        record: the record of a training run; by default `training_record.json` in the directory or its parent.
        results: result files (see `card_results.read_results`); by default all JSON files in its `results/`.
        license: a license, preferably from the Hub's list; by default the base's own, if it is known.
        name: the title.
        overwrite: replace a card that this function did not write.
        licence: an earlier spelling of `license`.

    Returns:
        The path of the card.

    Raises:
        ValueError: a file can't be read, or someone else wrote the existing card.
    """
    directory = user_path(directory)
    contents.require_adapter(directory)
    places.check_file(output)
    config, lora = read_config(directory), _lora(directory)
    record = _record(directory) if record is None else record
    text = compose(config, lora, True, record, *_beside(directory, results), license or licence, name)
    return save(user_path(output) if output else directory / README, text, overwrite)


def write_named_card(model_name: str, output: Path | str, overwrite: bool = False, **options: Any) -> Path:
    """Write the card of a packaged model, with the text and the results that ship with it.

    Args:
        model_name: such as "vladva-tiny".
        output: the file to write.
        overwrite: replace a card that this function did not write.
        options: `results` and `license`, as for `write_card`.

    Raises:
        ValueError: as `write_card`, or the model isn't packaged.
    """
    from vladva_clip.encoder import describe
    from vladva_clip.sources import locate, registry  # late: describing a base needs its family's code

    places.check_file(output)
    if registry.packaged_base(model_name) is None:
        raise ValueError(f"{model_name} is not a packaged model: give the directory of an adapter")
    source = locate.locate(model_name)
    directory = registry.ASSETS / registry.canonical(model_name)
    config = read_config(source.directory) if source.is_adapter else describe.describe_base(source)
    lora = _lora(source.directory)
    notes, figures = _beside(directory, options.get("results"))
    license = options.get("license") or options.get("licence")
    text = compose(config, lora, False, _record(directory), notes, figures, license, model_name)
    return save(user_path(output), text, overwrite)


def compose(
    config: VladvaConfig,
    lora: dict[str, Any] | None,
    is_adapter: bool,
    record: dict[str, Any] | None,
    notes: str = "",
    figures: list[Figure] | None = None,
    license: str | None = None,
    name: str | None = None,
) -> str:
    """Return a card's text, after huggingface_hub has parsed its metadata.

    Args:
        config: the model's config.
        lora: the content of adapter_config.json.
        is_adapter: the model is loaded from a directory rather than by `name`.
        record: the record of its training.
        notes: the author's own text.
        figures: its results.
        license: see `write_card`.
        name: the title.

    Raises:
        ValueError: the Hub's client refuses the metadata, or the record is malformed.
    """
    figures = figures or []
    name = name or f"{card_text.base_name(config.base.id)}-vladva"
    license = license or registry.license_of(config.base.id)
    intro, own = card_text.sections(notes)
    made = {
        "Use": card_text.use(name, is_adapter, card_text.is_exported(config)),
        "Base and license": card_text.license(config, license),
        "Settings": card_text.settings(config, lora),
        "Intended use": card_text.INTENDED,
        "Limits": card_text.LIMITS,
    }
    if record:
        made |= {"Training data": card_text.data(record), "How it was trained": card_text.training(record)}
    if _is_trained(config, lora, record):
        made["Base and license"] += f"\n\n{card_text.PATENT}"
    if figures:
        made["Figures"] = tables(figures)
    body = [f"# {name}", MARK, intro or _introduction(config)]
    for heading in dict.fromkeys((*card_text.HEADINGS, *own)):
        if parts := [part for part in (own.get(heading), made.get(heading)) if part]:
            body.append(f"## {heading}\n\n" + "\n\n".join(parts))
    metadata = _metadata(config, lora, figures, license, name)
    return _validated(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(body) + "\n")


def _is_trained(config: VladvaConfig, lora: dict[str, Any] | None, record: dict[str, Any] | None) -> bool:
    """Whether the recipe made the model; a bare base with hand-written prompts has none of its parts."""
    prompt = config.prompt
    return bool(lora or record or prompt.num_image_soft_tokens or prompt.num_text_soft_tokens)


def save(path: Path, text: str, overwrite: bool = False) -> Path:
    """Write a card, whole or not at all.

    Raises:
        ValueError: someone else wrote the existing card and `overwrite` is not set, or the file can't be written.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a directory, expected the name of a file for the card")
    if path.exists() and not overwrite and not is_ours(path):
        raise ValueError(f"{path} was not written by `vladva card`; use --overwrite, or choose another --output")
    try:
        if not path.parent.is_dir():  # a mistyped folder is not made
            raise FileNotFoundError(errno.ENOENT, "its folder is missing")
        whole.write(path, text.encode(errors="backslashreplace"))  # paths may hold bytes that are not UTF-8
    except OSError as error:
        raise ValueError(f"{path} can't be written ({disk.reason(error)}); choose another --output") from error
    return path


def beside(directory: Path, config: VladvaConfig, lora: dict[str, Any] | None) -> str | None:
    """Return the card for an adapter that is about to be saved; None if someone else's card is in the directory.

    The card includes the directory's notes but no figures: those were measured on the adapter that was there before.
    """
    if (directory / README).exists() and not is_ours(directory / README):
        return None
    return compose(config, lora, True, None, _notes(directory))


def _beside(directory: Path, results: list[Path] | None) -> tuple[str, list[Figure]]:
    """Return a directory's notes, and the figures of the given files or of its `results/`."""
    paths = _results(directory) if results is None else results
    if len(paths) > MAX_RESULTS:
        raise ValueError(
            f"{directory / RESULTS} has {len(paths)} files, expected at most {MAX_RESULTS}: name some with --results"
        )
    figures = [figure for path in paths for figure in read_results(Path(path))]
    if len(figures) > MAX_FIGURES:
        raise ValueError(
            f"the results have {len(figures)} figures, and a card holds at most {MAX_FIGURES}: name fewer files"
        )
    refuse_twice(figures)
    return _notes(directory), figures


def _results(directory: Path) -> list[Path]:
    paths = sorted((directory / RESULTS).glob("*.json"))
    refuse_links_out(directory, (RESULTS, *(f"{RESULTS}/{path.name}" for path in paths)))
    return paths


def _lora(directory: Path) -> dict[str, Any] | None:
    """Return the LoRA's settings; a card shows two of them."""
    path = directory / LORA_CONFIG
    lora = read_json(path) if path.is_file() else None
    for name in ("r", "lora_alpha"):
        if lora is not None and type(lora.get(name, 8)) not in (int, float):
            raise ValueError(f"{path}: {name} is {lora[name]!r:.80}, expected a number")
    return lora


def _notes(directory: Path) -> str:
    path = directory / NOTES
    refuse_links_out(directory, (NOTES,))
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        content = file.read(MAX_NOTES + 1)
    if len(content) > MAX_NOTES:
        raise ValueError(f"{path} has more than {MAX_NOTES} bytes, the limit for a card's notes; shorten it")
    return content.decode("utf-8", errors="replace")


def _record(directory: Path) -> dict[str, Any] | None:
    """Return the training record in a directory, or in its parent, where `vladva-train` writes it."""
    for place in (directory, directory.absolute().parent):
        if (place / RECORD).is_file() and (place == directory or (place / directory.name / CONFIG).is_file()):
            refuse_links_out(place, (RECORD,))
            return _checked_record(read_json(place / RECORD), place / RECORD)
    return None


def _checked_record(record: dict[str, Any], path: Path) -> dict[str, Any]:
    if not isinstance(record.get("recipe"), dict):
        raise ValueError(f"{path} has no recipe; was it written by vladva-train?")
    train = record["recipe"].get("data.train") or []
    sources = [train] if isinstance(train, str) else train
    parts = all(isinstance(record.get(name) or {}, dict) for name in ("state", "versions"))
    if not (parts and isinstance(sources, list) and all(isinstance(source, str) for source in sources)):
        raise ValueError(f"{path}: state, versions or data.train is malformed; was it written by vladva-train?")
    return record


def _introduction(config: VladvaConfig) -> str:
    if config.base.profile:
        return (
            f"The published embedder `{card_text.base_name(config.base.id)}`, trained further, as an encoder of images "
            "and texts behind open_clip's API: soft prompts and, if there is one, a LoRA."
        )
    return (
        f"The generative vision-language model `{card_text.base_name(config.base.id)}` as an encoder of images and "
        "texts behind open_clip's API: soft prompts and, if there is one, a LoRA, after VladVA (Discriminative "
        "Fine-tuning of LVLMs, CVPR 2025, [arXiv 2412.04378](https://arxiv.org/abs/2412.04378))."
    )


def _metadata(
    config: VladvaConfig, lora: dict[str, Any] | None, figures: list[Figure], license: str | None, name: str
) -> ModelCardData:
    on_hub = config.base.id.count("/") == 1 and ":" not in config.base.id
    return ModelCardData(
        language="en",
        library_name="vladva_clip",
        pipeline_tag="zero-shot-image-classification",
        tags=["clip", "open_clip", "vladva", "image-feature-extraction", *(["lora", "peft"] if lora else [])],
        base_model=config.base.id if on_hub else None,
        base_model_relation="adapter" if on_hub else None,
        model_name=name,
        eval_results=eval_results(figures) or None,
        **card_license.metadata(license, config.base.id if on_hub else None),
    )


def _validated(text: str) -> str:
    """Return the text after huggingface_hub has parsed it, including its results.

    The Hub's own check of a card (`ModelCard.validate`) asks its server, so it runs only when a card is pushed.
    """
    card = ModelCard(text)
    if not card.data.get("license") or not card.text.strip():
        raise ValueError("the card's metadata has no license or its text is empty, as huggingface_hub reads it")
    return text
