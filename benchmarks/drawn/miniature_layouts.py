"""vladva-tiny's base under other templates: the same weights in a directory that states other prompts."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vladva_clip.sources.locate import BASE_FILE
from vladva_clip.storage import whole
from vladva_clip.storage.config import PromptConfig, VladvaConfig, read_json

BEHIND_SUMMARY = "caption behind the summary token"
PROMPT_BEHIND = "prompt behind the content"
ALL_SOFT = "the whole template soft"


def _behind_summary(prompt: PromptConfig) -> PromptConfig:
    """No second turn: the long caption follows the summary token directly."""
    return replace(prompt, second_turn=None)


def _prompt_behind(prompt: PromptConfig) -> PromptConfig:
    """The same prompts behind the image and the caption, as in LLaVA's chat."""
    return replace(
        prompt,
        image_template="USER: {visual}\n{prompt} ASSISTANT:",
        text_template="USER: {caption}\n{prompt} ASSISTANT:",
    )


def _all_soft(prompt: PromptConfig) -> PromptConfig:
    """Every token of the templates is a soft slot, not the hand-written prompt's alone."""
    return replace(prompt, soft_slots="template")


LAYOUTS: dict[str, Callable[[PromptConfig], PromptConfig]] = {
    BEHIND_SUMMARY: _behind_summary,
    PROMPT_BEHIND: _prompt_behind,
    ALL_SOFT: _all_soft,
}


def write_base(base: Path, layout: str, directory: Path) -> None:
    """Copy a base into a directory, replacing what is there, and state a layout's templates.

    Args:
        base: an LVLM's directory with a `vladva_base.json`.
        layout: of `LAYOUTS`.
        directory: the copy's place.

    Raises:
        ValueError: the base already has that layout, so that a row of the table would repeat another one.
    """
    config = VladvaConfig.from_dict(read_json(base / BASE_FILE))
    prompt = LAYOUTS[layout](config.prompt)
    if prompt == config.prompt:
        raise ValueError(f"{base / BASE_FILE} already has the layout {layout!r}: expected another one")
    with whole.folder(directory) as scratch:
        shutil.copytree(base, scratch, dirs_exist_ok=True)
        text = json.dumps(config.replace(prompt=prompt).to_dict(), indent=2, sort_keys=True) + "\n"
        (scratch / BASE_FILE).write_text(text)
