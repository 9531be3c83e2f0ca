"""Literal strings -> ids: templates, the second turn, and captions as they stand in them.

Pieces are tokenized in the text around them, so that a row's ids are those of the whole rendered string.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vladva_clip.storage.prompt_config import CaptionPlace, PromptConfig, VisualSpan

HOLES = {"image": "{visual}", "text": "{caption}"}
_SOME_CAPTION = "a"  # stands in for any caption where only its neighbors' ids are needed

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Template:
    """A template as ids: `bos`, then `prefix` and `suffix` around the hole. `soft` marks which of the two are soft."""

    bos: Ids
    prefix: Ids
    suffix: Ids
    soft: tuple[bool, ...]

    @property
    def ids(self) -> Ids:
        """The ids around the hole, without BOS; the last one is the summary token, if any stands behind the hole."""
        return self.prefix + self.suffix

    @property
    def soft_ids(self) -> Ids:
        """The ids that initialize a soft prompt, in slot order."""
        return tuple(token for token, is_soft in zip(self.ids, self.soft, strict=True) if is_soft)

    @property
    def before(self) -> Ids:
        """All ids in front of the hole."""
        return self.bos + self.prefix

    @property
    def soft_before(self) -> tuple[bool, ...]:
        """Which of `before` are soft slots."""
        return (False,) * len(self.bos) + self.soft[: len(self.prefix)]

    @property
    def soft_after(self) -> tuple[bool, ...]:
        """Which of `suffix` are soft slots."""
        return self.soft[len(self.prefix) :]


def tokenize(tokenizer, config: PromptConfig, side: str, visual: VisualSpan, starts_with_bos: bool) -> Template:
    """Tokenize a template.

    Args:
        tokenizer: the base's transformers tokenizer.
        config: the templates.
        side: "image" or "text".
        visual: the model's visual span.
        starts_with_bos: whether the family's rows begin with BOS. The tokenizer's own choice is ignored: it depends
            on settings that some published files lack.

    Raises:
        ValueError: nothing follows the hole, so there is no summary token (a caption's last token is one where
            `PromptConfig.ends_with_caption`); or the tokenizer merges two pieces, so that no token ends where one of
            them does.
    """
    place = config.text_place if side == "text" else None
    content = _SOME_CAPTION if place else visual.text
    before, after = config.rendered(side).split(HOLES[side])
    ids = _ids(tokenizer, before + content + after)
    if place:  # a space in front of a caption is in the caption's first token
        start = _count(tokenizer, ids, place.before)
        stop = _count(tokenizer, ids, before + content + place.behind)
    else:  # no piece merges with the special tokens of the visual span, whichever side it stands on
        start, stop = _find(ids, _ids(tokenizer, visual.text))
    if stop == len(ids) and not (place and config.ends_with_caption):
        raise ValueError(
            f"the {side} template {before + HOLES[side]!r} ends with its hole; expected text behind it, whose last "
            "token is the summary token"
        )
    soft = _soft(tokenizer, config, side, ids, content)
    bos = (tokenizer.bos_token_id,) if starts_with_bos else ()
    return Template(bos, ids[:start], ids[stop:], soft[:start] + soft[stop:])


def tokenize_second_turn(tokenizer, config: PromptConfig, visual: VisualSpan) -> Ids:
    """Return the ids from behind the summary token up to the long caption; none without a second turn.

    Raises:
        ValueError: the tokenizer merges the summary token with what follows it.
    """
    image = config.rendered("image").replace("{visual}", visual.text)
    ids = _ids(tokenizer, image + config.question)
    return ids[_count(tokenizer, ids, image) :]


def caption_ids(tokenizer, place: CaptionPlace | None, captions: Sequence[str]) -> list[list[int]]:
    """Tokenize captions; words that look like special tokens are plain text.

    Args:
        tokenizer: the base's transformers tokenizer.
        place: where the captions stand, such as `PromptConfig.caption_place`; None tokenizes captions by themselves.
        captions: the texts; an empty one has no ids unless the place keeps them.

    Raises:
        ValueError: the tokenizer merges a caption's beginning with what stands in front of it.
    """
    if not captions:
        return []
    place = place or CaptionPlace("")
    start = _stand_in(tokenizer, place)
    texts = [start + _written(place, caption) for caption in captions]
    alone = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}  # long ones are cut later
    *rows, first = tokenizer([*texts, start], **alone).input_ids
    for caption, row in zip(captions, rows, strict=True):
        if row[: len(first)] != first:
            raise ValueError(
                f"the tokenizer merges the beginning of the caption {caption!r:.80} with {start!r}, which stands in "
                "front of it in the template: change the caption, or the template"
            )
    return [row[len(first) :] for row in rows]


def _written(place: CaptionPlace, caption: str) -> str:
    return place.front + caption + place.behind if caption or place.keeps_empty else ""


def _stand_in(tokenizer, place: CaptionPlace) -> str:
    """Return the last character in front of a caption's ids, which decides how they begin."""
    if not place.before.endswith(tuple(tokenizer.get_added_vocab())):
        return place.before[-1:]
    # a special token merges with nothing, but the last character of its name might. In its place stands what doesn't
    # merge either: a letter in front of white space that is part of the ids, a line break in front of anything else
    return "a" if place.front and place.keeps_empty else "\n"


def special_ids(tokenizer, text: str) -> Ids:
    """Return the ids of a text of special tokens; none for an empty one."""
    return _ids(tokenizer, text) if text else ()


def _soft(tokenizer, config: PromptConfig, side: str, ids: Ids, content: str) -> tuple[bool, ...]:
    """Mark the ids of a rendered template that are soft slots; the content's own marks are not used."""
    if config.soft_slots == "template":
        return (True,) * len(ids)
    head = getattr(config, f"{side}_template").replace(HOLES[side], content).partition("{prompt}")[0]
    start = _count(tokenizer, ids, head.removesuffix(" "))  # a space in front of the prompt is in its first token
    stop = _count(tokenizer, ids, head + getattr(config, f"{side}_prompt"))
    return tuple(start <= place < stop for place in range(len(ids)))


def _ids(tokenizer, text: str) -> Ids:
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


def _count(tokenizer, ids: Ids, beginning: str) -> int:
    """Return how many of a text's ids its beginning has."""
    found = _ids(tokenizer, beginning) if beginning else ()
    if ids[: len(found)] != found:
        raise ValueError(
            f"the tokenizer merges the end of {beginning!r:.200} with what follows it in the template; separate them "
            "by a space, a line break or a special token"
        )
    return len(found)


def _find(ids: Ids, span: Ids) -> tuple[int, int]:
    for start in range(len(ids) - len(span) + 1):
        if ids[start : start + len(span)] == span:
            return start, start + len(span)
    raise ValueError(
        f"the tokenizer splits the visual span {[*span]}, expected it whole; does this tokenizer belong to the base?"
    )
