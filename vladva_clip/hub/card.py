"""Model cards: README.md in the Hub's form, from config, training record, result files and a text of one's own."""

import errno
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from vladva_clip.hub import card_text
from vladva_clip.hub.card_results import Figure, eval_results, read_results, refuse_twice, tables
from vladva_clip.interface.arguments import user_path
from vladva_clip.storage import disk, whole
from vladva_clip.storage.adapter_files import CONFIG, LORA_CONFIG, read_config
from vladva_clip.storage.allowed_files import refuse_links_out
from vladva_clip.storage.card_files import MARK, NOTES, README, RECORD, RESULTS, is_ours
from vladva_clip.storage.config import VladvaConfig, read_json

MAX_RESULTS, MAX_FIGURES = 256, 1024  # files, and figures in all
MAX_NOTES = 1 << 18  # bytes
# as their pages on the Hub state it
LICENCES = {"llava-hf/llava-1.5-7b-hf": "llama2", "llava-hf/llava-1.5-13b-hf": "llama2"}
LICENCES |= {"Qwen/Qwen2-VL-2B-Instruct": "apache-2.0", "vladva-tiny": "apache-2.0"}


def write_card(
    directory: Path | str,
    output: Path | str | None = None,
    record: dict[str, Any] | None = None,
    results: list[Path] | None = None,
    licence: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the card of an adapter directory.

    Text of one's own stands in `card.md` of the directory: before its first `## ` heading the introduction, behind the
    headings what is added to the sections of that name, or sections of their own.

    Args:
        directory: the adapter's.
        output: where it goes, `README.md` in the directory by default.
        record: what a training run leaves; by default `training_record.json` in the directory or the one above it.
        results: result files (see `card_results.read_results`); by default all JSON files of its `results/`.
        licence: a licence of the Hub's list; by default that of a base that is known.
        name: the title.
        overwrite: replace a card that this function did not write.

    Returns:
        The path of the card.

    Raises:
        ValueError: files that can't be read, or a card that someone else wrote.
    """
    directory = user_path(directory)
    config, lora = read_config(directory), _lora(directory)
    record = _record(directory) if record is None else record
    text = compose(config, lora, True, record, *_beside(directory, results), licence, name)
    return save(user_path(output) if output else directory / README, text, overwrite)


def write_named_card(model_name: str, output: Path | str, overwrite: bool = False, **options: Any) -> Path:
    """Write the card of a packaged model, with the text and the results that are packaged beside it.

    Args:
        model_name: such as "vladva-tiny".
        output: where it goes.
        overwrite: replace a card that this function did not write.
        options: `results` and `licence`, as for `write_card`.

    Raises:
        ValueError: as `write_card`; a model that isn't packaged.
    """
    from vladva_clip.encoder import describe
    from vladva_clip.sources import locate, registry  # the description of a base needs its family's code

    if registry.packaged_base(model_name) is None:
        raise ValueError(f"{model_name} is not packaged: give the directory of an adapter")
    source = locate.locate(model_name)
    directory = registry.ASSETS / registry.canonical(model_name)
    config = read_config(source.directory) if source.is_adapter else describe.describe_base(source)
    lora = _lora(source.directory)
    notes, figures = _beside(directory, options.get("results"))
    text = compose(config, lora, False, _record(directory), notes, figures, options.get("licence"), model_name)
    return save(user_path(output), text, overwrite)


def compose(
    config: VladvaConfig,
    lora: dict[str, Any] | None,
    is_adapter: bool,
    record: dict[str, Any] | None,
    notes: str = "",
    figures: list[Figure] | None = None,
    licence: str | None = None,
    name: str | None = None,
) -> str:
    """Return a card's text, whose metadata huggingface_hub has read back.

    Args:
        config: of the model.
        lora: the content of adapter_config.json.
        is_adapter: whether it is loaded from a directory of its own, or by `name`.
        record: of its training.
        notes: text of one's own.
        figures: its results.
        licence: see `write_card`.
        name: the title.

    Raises:
        ValueError: metadata that the Hub's client refuses, a record of another form.
    """
    figures = figures or []
    name = name or f"{card_text.base_name(config.base.id)}-vladva"
    licence = licence or LICENCES.get(config.base.id)
    intro, own = card_text.sections(notes)
    made = {
        "Use": card_text.use(name, is_adapter),
        "Base and licence": card_text.licence(config, licence),
        "Settings": card_text.settings(config, lora),
        "Intended use": card_text.INTENDED,
        "Limits": card_text.LIMITS,
    }
    if record:
        made |= {"Training data": card_text.data(record), "How it was trained": card_text.training(record)}
    if figures:
        made["Figures"] = tables(figures)
    body = [f"# {name}", MARK, intro or _introduction(config)]
    for heading in dict.fromkeys((*card_text.HEADINGS, *own)):
        if parts := [part for part in (own.get(heading), made.get(heading)) if part]:
            body.append(f"## {heading}\n\n" + "\n\n".join(parts))
    metadata = _metadata(config, lora, figures, licence, name)
    return _validated(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(body) + "\n")


def save(path: Path, text: str, overwrite: bool = False) -> Path:
    """Write a card, whole or not at all.

    Raises:
        ValueError: a card that someone else wrote is there, and `overwrite` is not set; no file can be written there.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a directory; a card is written to a file")
    if path.exists() and not overwrite and not is_ours(path):
        raise ValueError(f"{path} was not written by `vladva card`; replace it with --overwrite, or choose --output")
    try:
        if not path.parent.is_dir():  # a mistyped folder is not made
            raise FileNotFoundError(errno.ENOENT, "its folder is missing")
        whole.write(path, text.encode(errors="backslashreplace"))  # paths may hold bytes that are not UTF-8
    except OSError as error:
        raise ValueError(f"{path} can't be written ({disk.reason(error)}); choose another --output") from error
    return path


def beside(directory: Path, config: VladvaConfig, lora: dict[str, Any] | None) -> str | None:
    """Return the card of an adapter that is about to be saved; None where someone else's card is.

    It has the notes of the directory, but no figures: those that lie there were measured on what was there before.
    """
    if (directory / README).exists() and not is_ours(directory / README):
        return None
    return compose(config, lora, True, None, _notes(directory))


def _beside(directory: Path, results: list[Path] | None) -> tuple[str, list[Figure]]:
    """The notes and the figures that lie in a directory, or the figures of the given files."""
    paths = _results(directory) if results is None else results
    if len(paths) > MAX_RESULTS:
        raise ValueError(f"{directory / RESULTS} holds {len(paths)} files, {MAX_RESULTS} at most are read: name some")
    figures = [figure for path in paths for figure in read_results(Path(path))]
    if len(figures) > MAX_FIGURES:
        raise ValueError(
            f"the results hold {len(figures)} figures, {MAX_FIGURES} at most go into a card: name some files"
        )
    refuse_twice(figures)
    return _notes(directory), figures


def _results(directory: Path) -> list[Path]:
    paths = sorted((directory / RESULTS).glob("*.json"))
    refuse_links_out(directory, (RESULTS, *(f"{RESULTS}/{path.name}" for path in paths)))
    return paths


def _lora(directory: Path) -> dict[str, Any] | None:
    """The LoRA's settings, of which a card shows two."""
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
        raise ValueError(f"{path} has more than {MAX_NOTES} bytes, which no card needs")
    return content.decode("utf-8", errors="replace")


def _record(directory: Path) -> dict[str, Any] | None:
    """The training record in a directory, or above it where `vladva-train` puts it."""
    for place in (directory, directory.absolute().parent):
        if (place / RECORD).is_file() and (place == directory or (place / directory.name / CONFIG).is_file()):
            refuse_links_out(place, (RECORD,))
            return _checked_record(read_json(place / RECORD), place / RECORD)
    return None


def _checked_record(record: dict[str, Any], path: Path) -> dict[str, Any]:
    if not isinstance(record.get("recipe"), dict):
        raise ValueError(f"{path} has no recipe; is it a record of vladva-train?")
    train = record["recipe"].get("data.train") or []
    sources = [train] if isinstance(train, str) else train
    parts = all(isinstance(record.get(name) or {}, dict) for name in ("state", "versions"))
    if not (parts and isinstance(sources, list) and all(isinstance(source, str) for source in sources)):
        raise ValueError(f"{path}: state, versions or data.train have another form; is it a record of vladva-train?")
    return record


def _introduction(config: VladvaConfig) -> str:
    return (
        f"`{card_text.base_name(config.base.id)}`, a generative vision-language model, as an encoder of images and "
        "texts behind open_clip's API: soft prompts and, where there is one, a LoRA, after VladVA (Discriminative "
        "Fine-tuning of LVLMs, CVPR 2025, [arXiv 2412.04378](https://arxiv.org/abs/2412.04378))."
    )


def _metadata(
    config: VladvaConfig, lora: dict[str, Any] | None, figures: list[Figure], licence: str | None, name: str
) -> ModelCardData:
    on_hub = config.base.id.count("/") == 1 and ":" not in config.base.id
    return ModelCardData(
        license=licence or "other",
        language="en",
        library_name="vladva_clip",
        pipeline_tag="zero-shot-image-classification",
        tags=["clip", "open_clip", "vladva", "image-feature-extraction", *(["lora", "peft"] if lora else [])],
        base_model=config.base.id if on_hub else None,
        base_model_relation="adapter" if on_hub else None,
        model_name=name,
        eval_results=eval_results(figures) or None,
        **({} if licence else {"license_name": "see-the-base"}),
    )


def _validated(text: str) -> str:
    """Have huggingface_hub read the card back, its results too, and find in it what was meant.

    The Hub's own check of a card (`ModelCard.validate`) asks its server and is made when a card is pushed.
    """
    card = ModelCard(text)
    if not card.data.get("license") or not card.text.strip():
        raise ValueError("the card's metadata could not be read back by huggingface_hub")
    return text
