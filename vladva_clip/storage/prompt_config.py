"""The literal strings of a model's rows: templates, hand-written prompts, the second turn."""

import re
import typing
from dataclasses import dataclass, fields

MAX_SOFT_TOKENS = 1 << 10
MAX_TEMPLATE = 1 << 13  # characters
SOFT_SLOTS = ("prompt", "template")
CAPTION_IDS = ("in_place", "alone", "joined")
CLEANING = ("open_clip", "none")
_HOLE = re.compile(r"\{\w*\}")
_VERSION_1 = ("image_template", "text_template", "num_image_soft_tokens", "num_text_soft_tokens")
_SINCE_3 = ("visual_span", "clean", "tokens_template")


@dataclass(frozen=True)
class VisualSpan:
    """How a model writes an image into its tokens: `opening`, N times `slot`, `closing` (all special tokens)."""

    slot: str
    opening: str = ""
    closing: str = ""

    @property
    def text(self) -> str:
        """An image in a rendered prompt, before the slot is repeated."""
        return f"{self.opening}{self.slot}{self.closing}"


@dataclass(frozen=True)
class CaptionPlace:
    """Where captions stand in a rendered string: a caption's ids are those of `front`, caption and `behind` in it.

    Attributes:
        before: the text in front of these ids.
        front: white space in front of a caption that a tokenizer may write into the caption's first token.
        behind: line breaks behind a caption that a tokenizer may write into its last token.
        keeps_empty: whether an empty caption still has the ids of `front` and `behind`.
    """

    before: str
    front: str = ""
    behind: str = ""
    keeps_empty: bool = False


@dataclass(frozen=True)
class PromptConfig:
    """What stands around an image and a caption, and which of it is soft.

    Attributes:
        image_template: with the hole {visual} and, where `image_prompt` stands, the hole {prompt}.
        text_template: with the hole {caption} and, where `text_prompt` stands, the hole {prompt}.
        image_prompt, text_prompt: the hand-written prompts (VladVA, arXiv 2412.04378, section 3.2.3).
        soft_slots: "prompt" for the hand-written prompts' tokens (section 3.3), "template" for every token but BOS.
        second_turn: what follows the summary token (section 3.2.3), up to the hole {caption} for the long caption,
            which the base's end token closes. None puts the long caption right behind the summary token.
        caption_ids: "in_place" for the ids that a caption has in the whole rendered string, with the space in front of
            it and the line breaks behind it; "joined" if all white space in front of it belongs to them too, since a
            caption may begin with a line break, and a text template may end with its hole; "alone" for those that it
            has by itself, as in format version 1.
        visual_span: how an image is written; None for the family's way.
        clean: "open_clip" for captions without stray white space, HTML and broken Unicode, as open_clip cleans them;
            "none" for captions as they are.
        tokens_template: the text template in which a tokenizer writes captions' ids; None for `text_template`. A model
            that reads queries shares its tokenizer with the one that reads documents, and rewrites the ids.
        num_image_soft_tokens, num_text_soft_tokens: number of soft slots; None until a tokenizer has counted them.
    """

    image_template: str
    text_template: str
    image_prompt: str = ""
    text_prompt: str = ""
    soft_slots: str = "template"
    second_turn: str | None = None
    caption_ids: str = "alone"
    visual_span: VisualSpan | None = None
    clean: str = "open_clip"
    tokens_template: str | None = None
    num_image_soft_tokens: int | None = None
    num_text_soft_tokens: int | None = None

    def __post_init__(self) -> None:
        for side, hole in (("image", "{visual}"), ("text", "{caption}")):
            template, prompt = getattr(self, f"{side}_template"), getattr(self, f"{side}_prompt")
            _check_template(f"{side}_template", template, hole, ("{prompt}",))
            _check_prompt(side, template, prompt, self.soft_slots)
            _check_count(f"num_{side}_soft_tokens", getattr(self, f"num_{side}_soft_tokens"))
        if self.second_turn is not None:
            _check_template("second_turn", self.second_turn, "{caption}")
            if not self.second_turn.endswith("{caption}"):
                raise ValueError(f"second_turn is {self.second_turn!r:.200}, expected {{caption}} at its end")
        if self.tokens_template is not None:
            _check_template("tokens_template", self.tokens_template, "{caption}")
        for name, known in (("soft_slots", SOFT_SLOTS), ("caption_ids", CAPTION_IDS), ("clean", CLEANING)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r:.80}, expected one of {', '.join(known)}")

    def rendered(self, side: str) -> str:
        """Return the template of a side, "image" or "text", with its prompt written into it."""
        return getattr(self, f"{side}_template").replace("{prompt}", getattr(self, f"{side}_prompt"))

    @property
    def caption_place(self) -> CaptionPlace | None:
        """Where a tokenizer sees short captions stand; None if captions are tokenized alone."""
        return self._place(self.tokens_template or self.rendered("text"))

    @property
    def text_place(self) -> CaptionPlace | None:
        """Where short captions stand in the text template; None if captions are tokenized alone."""
        return self._place(self.rendered("text"))

    @property
    def ends_with_caption(self) -> bool:
        """Whether a text row may end with its caption, whose last token is then the summary token."""
        return self.caption_ids == "joined"

    def _place(self, template: str) -> CaptionPlace | None:
        before, _, after = template.partition("{caption}")
        if self.caption_ids == "alone":
            return None
        behind = after[: len(after) - len(after.lstrip("\r\n"))]
        if self.caption_ids == "in_place":
            return _behind_a_space(before, behind)
        end = len(before.rstrip())
        return CaptionPlace(before[:end], before[end:], behind, keeps_empty=True)

    @property
    def long_caption_place(self) -> CaptionPlace | None:
        """Where long captions stand; None if captions are tokenized alone."""
        if self.caption_ids == "alone":
            return None
        if self.second_turn is not None:
            return _behind_a_space(self.second_turn.partition("{caption}")[0])
        image = self.rendered("image")
        return _behind_a_space(image if image[-1:].isspace() else f"{image} ")

    @property
    def question(self) -> str:
        """The second turn up to the long caption and the space that is in the caption's first token; may be empty."""
        if self.second_turn is None:
            return ""
        place = self.long_caption_place
        return place.before if place else self.second_turn.removesuffix("{caption}")


def _behind_a_space(before: str, behind: str = "") -> CaptionPlace:
    front = " " if before.endswith(" ") else ""
    return CaptionPlace(before.removesuffix(" "), front, behind)


def upgraded(data: typing.Any, version: int) -> typing.Any:
    """Return the prompt object of a config of an earlier format version with what it implies stated.

    Raises:
        ValueError: a key that the version doesn't have; a later version's would change what the file means.
    """
    if not isinstance(data, dict):
        return data  # refused as it is
    every = {field.name: field.default for field in fields(PromptConfig)}
    own = _VERSION_1 if version == 1 else [name for name in every if name not in _SINCE_3]
    for key in data:
        if key not in own:
            raise ValueError(
                f"config.prompt has the unknown key {key!r:.80}; format version {version} has {', '.join(own)}: get "
                "the file again"
            )
    implied = [name for name in every if name not in _VERSION_1] if version == 1 else _SINCE_3
    counts = {name: None for name in _VERSION_1[2:]} if version == 1 else {}
    return counts | {name: every[name] for name in implied} | data


def _check_count(name: str, count: typing.Any) -> None:
    """Raise ValueError for anything but None or a possible number of soft slots; a bare caption's template has none."""
    if count is not None and (type(count) is not int or not 0 <= count <= MAX_SOFT_TOKENS):
        raise ValueError(f"{name} is {count!r:.60}, expected a whole number from 0 to {MAX_SOFT_TOKENS}")


def _check_prompt(side: str, template: str, prompt: typing.Any, soft_slots: str) -> None:
    name = f"{side}_prompt"
    if not isinstance(prompt, str):
        raise ValueError(f"{name} is {prompt!r:.80} ({type(prompt).__name__}), expected text")
    _check_text(name, prompt)
    if holes := _HOLE.findall(prompt):
        raise ValueError(f"{name} has the hole {holes[0]}, which nothing fills: {prompt!r:.200}")
    if ("{prompt}" in template) != bool(prompt):
        raise ValueError(
            f"{name} is {prompt!r:.80} and {side}_template {template!r:.200}; expected both a prompt and a hole "
            "{prompt} for it, or neither"
        )
    if soft_slots == "prompt" and not prompt:
        raise ValueError(f"soft_slots is 'prompt', but {name} is empty; expected a prompt, or soft_slots 'template'")


def _check_text(name: str, text: str) -> None:
    if len(text) > MAX_TEMPLATE or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError(f"{name} is {text!r:.80}, expected Unicode text of at most {MAX_TEMPLATE} characters")


def _check_template(name: str, template: typing.Any, hole: str, allowed: tuple[str, ...] = ()) -> None:
    if not isinstance(template, str):
        raise ValueError(f"{name} is {template!r:.80} ({type(template).__name__}), expected text with one hole {hole}")
    _check_text(name, template)
    if template.count(hole) != 1:
        raise ValueError(f"{name} has {template.count(hole)} holes {hole}, expected exactly one: {template!r:.200}")
    others = [found for found in _HOLE.findall(template) if found != hole]
    for found in others:
        if found not in allowed or others.count(found) > 1:
            expected = " and at most one ".join((hole, *allowed))
            raise ValueError(
                f"{name} also has the hole {found}, which nothing fills; expected {expected}: {template!r:.200}"
            )
