"""The command line of `vladva-train caption`, and its report at the end."""

import argparse
import dataclasses
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from vladva_clip.interface import devices, extras, precision_words
from vladva_clip.interface.addresses import without_addresses
from vladva_clip.interface.arguments import user_path
from vladva_clip.interface.terminal import take_any_text
from vladva_clip.storage import places
from vladva_training.captioning.settings import (
    FILLS,
    IMAGE_FORMATS,
    CaptionSettings,
    claim,
    one_at_a_time,
    require_resumable,
    writing,
)
from vladva_training.captioning.shards import PROBLEMS, is_finished, list_problems, read_stats
from vladva_training.processes.signals import EndedAtOnce, StopSignals

FINE, PROBLEMS_LISTED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str]) -> int:
    """Run `vladva-train caption`.

    Args:
        arguments: the words after `caption` on the command line.

    Returns:
        Exit status: 0 if everything was filled, 1 if some problems were listed, 2 for an error of the user's (the
        reason is on stderr), 130 and 143 after Ctrl-C and SIGTERM (finished shards stay, the same command continues).
    """
    take_any_text()
    options = _parser().parse_args(arguments)
    try:
        with StopSignals():
            options.device = devices.resolve(options.device)
            return _run(options)
    except (KeyboardInterrupt, SystemExit) as end:  # signals raise SystemExit
        kept = f"{options.output} keeps its finished shards; run the same command to continue from there"
        print(f"vladva-train caption: interrupted: {kept}", file=sys.stderr)
        if isinstance(end, EndedAtOnce):
            raise
        return end.code if isinstance(end, SystemExit) else INTERRUPTED
    except (ValueError, OSError) as error:
        print(without_addresses(f"vladva-train caption: {error}"), file=sys.stderr)
        return REFUSED


def _run(options: argparse.Namespace) -> int:
    from vladva_training.data.specs import open_source

    places.check_folder(options.output, "--output")
    extras.require("webdataset", purpose="vladva-train caption")
    source = open_source(options.source)
    settings = _settings(options, len(source))
    names = _shard_names(settings, options.part)
    splitter = _splitter(settings)
    require_resumable(options.output, settings)
    with writing(options.output, options.part):
        pending = {number: name for number, name in names.items() if not is_finished(options.output, name)}
        captioners = _captioners(settings, options.device) if pending else {}
        claim(options.output, settings)  # after the models, so that a mistyped name leaves no files
        if pending:
            _fill(source, pending, options, settings, splitter, captioners)
        with one_at_a_time(options.output):
            return _report(options.output, settings)


def _settings(options: argparse.Namespace, records: int) -> CaptionSettings:
    names = {field.name for field in dataclasses.fields(CaptionSettings)}
    given = {name: value for name, value in vars(options).items() if name in names}
    word = options.precision or ("fp32" if options.device.type == "cpu" else "bf16")
    precision = precision_words.of_dtype(precision_words.DTYPES[word])  # words for one dtype give the same captions
    return CaptionSettings(**{**given, "records": records, "precision": precision})


def _shard_names(settings: CaptionSettings, part: tuple[int, int] = (0, 1)) -> dict[int, str]:
    """Return number -> name of every `part[1]`-th shard, starting with `part[0]`."""
    width = max(5, len(str(settings.shard_count - 1)))
    return {number: f"{number:0{width}d}" for number in range(part[0], settings.shard_count, part[1])}


def _splitter(settings: CaptionSettings) -> Any:
    from vladva_clip.factory import get_tokenizer
    from vladva_clip.sources.locate import has_schema
    from vladva_clip.sources.registry import list_models
    from vladva_clip.storage.config import HUB, LOCAL
    from vladva_training.data.captions import CaptionSplitter

    name = settings.tokenizer
    if not has_schema(name) and name not in list_models():
        name = f"{LOCAL if Path(name).is_dir() else HUB}{name}"
    return CaptionSplitter(get_tokenizer(name), settings.short_max_tokens, settings.long_max_tokens)


def _captioners(settings: CaptionSettings, device: Any) -> dict[str, Any]:
    from vladva_training.captioning.captioners import OPENERS

    return {
        kind: OPENERS[kind](
            getattr(settings, f"{kind}_model"),
            getattr(settings, f"{kind}_prompt"),
            device,
            settings.precision,
            max_new_tokens=getattr(settings, f"{kind}_new_tokens"),
            num_beams=settings.num_beams,
        )
        for kind in settings.kinds
    }


def _fill(
    source: Any,
    pending: dict[int, str],
    options: argparse.Namespace,
    settings: CaptionSettings,
    splitter: Any,
    captioners: dict[str, Any],
) -> None:
    import torch

    from vladva_training.captioning.fill import fill_shards

    try:
        fill_shards(source, pending, options.output, settings, splitter, captioners, options.num_workers)
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"out of device memory at batch size {settings.batch_size} ({str(error).splitlines()[0]}); finished shards "
            "stay, but another --batch-size needs another --output"
        ) from error


def _report(output: Path, settings: CaptionSettings) -> int:
    """List the problems of all finished shards, including other parts', print a summary, return the exit status."""
    names = _shard_names(settings).values()
    stats = [read_stats(output, name) for name in names if is_finished(output, name)]
    problems = [problem for one in stats for problem in one["problems"]]
    list_problems(output, problems)
    filled = sum((Counter(one["filled"]) for one in stats), Counter())
    counts = ", ".join(f"{filled[kind]} {kind} captions written" for kind in settings.kinds)
    print(f"{output}: {sum(one['samples'] for one in stats)} of {settings.records} records, {counts}")
    print(f"{len(stats)} of {len(names)} shards are finished; train on them with wds:{output}")
    if not problems:
        return FINE
    reasons = Counter(problem["reason"] for problem in problems).most_common()
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons)
    print(f"{len(problems)} problems ({listed}), listed in {output / PROBLEMS}", file=sys.stderr)
    return PROBLEMS_LISTED


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r}, expected I/N with I from 0 to N-1, such as 0/8")
    return int(match[1]), int(match[2])


def _parser() -> argparse.ArgumentParser:
    default = {field.name: field.default for field in dataclasses.fields(CaptionSettings)}
    parser = argparse.ArgumentParser(
        prog="vladva-train caption",
        description="Write missing short or long captions into new WebDataset shards. After an interruption the same "
        "command continues; finished shards stay as they are. Unusable records are listed in problems.jsonl.",
    )
    parser.add_argument("source", help="what to caption: wds:..., jsonl:..., csv:..., parquet:..., hf:..., scenes:...")
    parser.add_argument("--output", type=user_path, required=True, help="directory of the new shards")

    def add(option: str, what: str, **further: Any) -> None:
        value = default[option.removeprefix("--").replace("-", "_")]
        parser.add_argument(option, default=value, type=type(value), help=f"{what} ({value!r})", **further)

    add("--fill", "which missing captions to write", choices=FILLS)
    for kind, what in (("short", "a BLIP-2 model"), ("long", "an image-and-text chat model")):
        add(f"--{kind}-model", f"{what}: ID[@REVISION] or directory")
        add(f"--{kind}-prompt", f"the text that {kind} captions answer or continue")
        add(f"--{kind}-new-tokens", "maximum length in tokens of the writing model")
    add("--short-count", "short captions per image, the source's own included; several are drawn by nucleus sampling")
    add("--temperature", "of sampling")
    add("--top-p", "the probability of sampling's nucleus")
    add("--num-beams", "1 is greedy decoding; captions that are sampled have no beams")
    add("--batch-size", "images per batch")
    add("--samples-per-shard", "records of the source per tar")
    add("--image-format", "format of the images in the tars", choices=IMAGE_FORMATS)
    add("--tokenizer", "the backbone's tokenizer, which measures captions: model name, ID or directory")
    add("--short-max-tokens", "a caption with fewer tokens is short")
    add("--long-max-tokens", "a caption with more tokens is not used")
    devices.add_option(parser, default=devices.AUTO, what="the GPU if there is one")
    precision_words.add_option(parser, "fp32 on a CPU, else bf16")
    parser.add_argument("--num-workers", type=int, default=2, help="threads that decode images ahead (2)")
    parser.add_argument(
        "--part", type=_part, default=(0, 1), metavar="I/N", help="only every N-th shard from I on, for several GPUs"
    )
    return parser
