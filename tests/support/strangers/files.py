"""Hand-made attacks with pipes and devices for files, with links and folders, and directories that are two things."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.strangers.cases import UNREAD, Attack, Case
from tests.support.strangers.configs import BIG, NAN, ODD

BASE_FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"),
    *("processor_config.json", "chat_template.jinja", "model.safetensors"),
)
ADDED = (
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
)
ADDED += ("chat_template.json", "additional_chat_templates", "adapter_config.json", "vladva_export.json", "merges.txt")
ADDED += (
    "vladva_base.json",
    "vladva_prompt.json",
    "video_preprocessor_config.json",
    "pytorch_model.bin",
    "params.json",
    "tekken.json",
    "modules.json",
)
ADAPTER_FILES = (
    *("vladva_config.json", "adapter_config.json", "adapter_model.safetensors", "soft_prompt.safetensors", "card.md"),
    *("open_clip_config.json", "README.md", "training_record.json", "results/x.json", "tokenizer.json", "results"),
)
STATED = ("base/vladva_export.json", "base/vladva_base.json")


def attacks() -> list[Attack]:
    """All of them."""
    return [*_kinds(), *_folders(), *_both(), *_exports()]


def _folders() -> list[Attack]:
    def many(case: Case, place: str) -> None:
        (case.root / place).mkdir(exist_ok=True)
        for number in range(3000):
            case.put(f"{place}/{number}.json", {"dataset": f"d{number}", "task": "t", "metrics": {"a": 0.5}})

    def deep(case: Case, side: str) -> None:
        path = case.root / side
        for _ in range(300):
            path = path / "results"
        path.mkdir(parents=True)

    made = [Attack("card: thousands of results", "adapter", lambda case: many(case, "adapter/results"), entry="card")]
    made += [
        Attack(f"thousands of files in {side}", side, lambda c, side=side: many(c, side))
        for side in ("base", "adapter")
    ]
    made += [
        Attack(f"deep folders in {side}", side, lambda c, side=side: deep(c, side)) for side in ("base", "adapter")
    ]
    return [*made, Attack("deep folders that are pushed", "adapter", lambda c: deep(c, "adapter"), entry="push")]


def _both() -> list[Attack]:
    """A base that is an adapter too, and adapters over themselves."""

    def config(case: Case, place: str, base: str) -> None:
        data = case.read("adapter/vladva_config.json")
        data["base"]["id"] = f"local-dir:{case.root / base}"
        case.put(f"{place}/vladva_config.json", data)

    def whole(case: Case) -> None:
        for path in (case.root / "base").iterdir():
            case.put(f"adapter/{path.name}", path.read_bytes())
        config(case, "adapter", "adapter")

    def beside(case: Case) -> None:
        for name in (
            "adapter_config.json",
            "adapter_model.safetensors",
            "soft_prompt.safetensors",
            "vladva_config.json",
        ):
            case.put(f"base/{name}", (case.root / "adapter" / name).read_bytes())

    return [
        Attack("an adapter over itself", "adapter", lambda case: config(case, "adapter", "adapter")),
        Attack("an adapter over itself, which is a base too", "adapter", whole),
        Attack("a base that is an adapter over itself", "base", lambda case: config(case, "base", "base")),
        Attack("a base that is an adapter over an adapter", "base", lambda case: config(case, "base", "adapter")),
        Attack("a base with an adapter's files", "base", beside),
    ]


def _exports() -> list[Attack]:
    """Bases that say of themselves that they are exports, or that they have templates of their own."""

    def stating(file: str, key: str, value: Any) -> Callable[[Case], None]:
        def apply(case: Case) -> None:
            case.put(file, case.read("adapter/vladva_config.json"))
            case.set(file, (key, value))

        return apply

    keys = ("base", "prompt", "image", "embed_dim", "context_length", "dtype", "base.id", "base.family", "image.size")
    keys += ("image.mean", "prompt.image_template", "prompt.text_template", "prompt.num_image_soft_tokens")
    keys += ("prompt.text_prompt", "prompt.second_turn", "prompt.soft_slots", "prompt.caption_ids")
    values = (*ODD, BIG, NAN, "{visual}", "{caption}", "local-dir:/etc", "../x")
    made = [
        Attack(f"{file} {key} = {value!r}", "base", stating(file, key, value))
        for file in STATED
        for key in keys
        for value in values
    ]
    for hole, key in (
        ("{visual}", "prompt.image_template"),
        ("{caption}", "prompt.text_template"),
        ("{caption}", "prompt.second_turn"),
    ):
        for title, text in (
            ("long", "a " * 200_000),
            ("images", "<image>" * 500),
            ("ends", "</s>"),
            ("broken", "\ud800"),
        ):
            made += [Attack(f"{file} {key} {title}", "base", stating(file, key, f"{text}{hole}")) for file in STATED]
    return made


def _kinds() -> list[Attack]:
    made = []
    for side, names in (("base", (*BASE_FILES, *ADDED)), ("adapter", ADAPTER_FILES)):
        for name in names:
            for kind, make in KINDS.items():
                made.append(Attack(f"{side}/{name} is {kind}", side, _made(f"{side}/{name}", make)))
            out = _made(f"{side}/{name}", _link_out)
            made.append(Attack(f"{side}/{name} is a link to its like outside", side, out))
    return made


def _made(file: str, make: Callable[[Path, Case], Any]) -> Callable[[Case], None]:
    def apply(case: Case) -> None:
        path = case.root / file
        case.put("kept", path.read_bytes() if path.is_file() else b"{}")
        if path.is_dir():
            path.rename(path.with_name("moved"))
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        make(path, case)

    return apply


def _link_out(path: Path, case: Case) -> None:
    """A link to an honest file of somebody else's: reading it would do no harm here, but may elsewhere."""
    target = case.outside / "like"
    target.unlink(missing_ok=True)
    (case.root / "kept").rename(target)
    os.utime(target, UNREAD)
    path.symlink_to(target)


def _socket(path: Path, case: Case) -> None:
    os.chdir(path.parent)  # the name of a socket may be no longer than a hundred letters
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(case.root)


KINDS: dict[str, Callable[[Path, Case], Any]] = {
    "a pipe": lambda path, case: os.mkfifo(path),
    "a folder": lambda path, case: path.mkdir(),
    "a socket": _socket,
    "a link to a secret": lambda path, case: path.symlink_to(case.outside / "secret.json"),
    "a link to nothing": lambda path, case: path.symlink_to("nowhere"),
    "a link to itself": lambda path, case: path.symlink_to(path.name),
    "a link to zeros": lambda path, case: path.symlink_to("/dev/zero"),
    "a link to a pipe": lambda path, case: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
    "empty": lambda path, case: path.write_bytes(b""),
    "all hole": lambda path, case: (path.write_bytes(b""), os.truncate(path, 1 << 36)),
    "a pickle": lambda path, case: path.write_bytes(case.trap()),
    "a list": lambda path, case: path.write_bytes(b"[]"),
    "an empty object": lambda path, case: path.write_bytes(b"{}"),
}
