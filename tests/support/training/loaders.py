"""Loaders for tests: flat options, and what only tests set."""

from collections.abc import Callable, Sequence
from dataclasses import fields

from vladva_clip.records.records import Source
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.examples import ExampleMaker
from vladva_training.data.loader import Loader, Slice, Workers, make_loader

ONLY_TESTS_SET = ("collate", "next_batch", "start_method")


def open_loader(sources: Sequence[Source], splitter: CaptionSplitter, preprocess: Callable, **options) -> Loader:
    """Make a loader from options of `make_loader`, of its dataclasses, and of the loader itself (`ONLY_TESTS_SET`).

    `num_workers` is `Workers.count`.
    """
    options["count"] = options.pop("num_workers", 0)
    later = {name: options.pop(name) for name in ONLY_TESTS_SET if name in options}
    maker, own, workers = (_group(kind, options) for kind in (ExampleMaker, Slice, Workers))
    loader = make_loader(
        sources, ExampleMaker(splitter, preprocess, **maker), Slice(**own), 1, workers=Workers(**workers), **options
    )
    for name, value in later.items():
        setattr(loader, name, value)
    return loader


def _group(kind: type, options: dict) -> dict:
    """Take a dataclass's fields out of the options."""
    return {item.name: options.pop(item.name) for item in fields(kind) if item.name in options}
