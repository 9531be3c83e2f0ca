"""The task mix on which the base of vladva-tiny is pre-trained.

A row is one prefix (an image or a caption) with several branches behind it; each branch is a task, a prompt
and its answer. All branches see the prefix and none sees another, so the visual tokens are computed once for
all tasks. A branch alone with its prefix is exactly LLaVA-1.5's chat:
BOS `USER: <image>\\n{prompt} ASSISTANT:{answer}` EOS.
"""

import random
from dataclasses import dataclass

from vladva_clip.scenes import (
    COLORS,
    PLACE_PHRASES,
    RELATIONS,
    SHAPES,
    Scene,
    long_caption,
    one_word_answers,
    short_captions,
)
from vladva_training.tiny.questions import questions

IMAGE_SUMMARY = "Summarize the provided image in one word:"
TEXT_SUMMARY = "Summarize the provided text in one word:"
DESCRIBE_LONG = "Describe the image in detail."
DESCRIBE_SHORT = "Describe the image in one sentence."
REPHRASE = "Say the same in other words."
ELABORATE = "Describe the scene in detail."
SHORTEN = "Describe the scene in one sentence."

SHORT_TASK_SHARE = 0.25
LONG_TASK_SHARE = 0.5
NUM_QUESTIONS, NUM_CLAIMS = 8, 2
LONG_PREFIX_SHARE = 0.15


@dataclass(frozen=True)
class Task:
    """A prompt and its answer; `answers` are all equally right one-word answers, `answer` among them."""

    name: str
    prompt: str
    answer: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A prefix (a caption, or None for the scene's image) and the tasks behind it."""

    scene: Scene
    caption: str | None
    tasks: tuple[Task, ...]


def image_row(scene: Scene, rng: random.Random) -> Row:
    """The scene's image with its one-word summary, its captions and questions."""
    tasks = [summary_task(IMAGE_SUMMARY, scene, rng)]
    if rng.random() < LONG_TASK_SHARE:
        tasks.append(Task("image_long", DESCRIBE_LONG, long_caption(scene)))
    if rng.random() < SHORT_TASK_SHARE:
        tasks.append(Task("image_short", DESCRIBE_SHORT, rng.choice(short_captions(scene))))
    return Row(scene, None, (*tasks, *question_tasks(scene, rng)))


def text_row(scene: Scene, rng: random.Random) -> Row:
    """A caption with its one-word summary, another wording, sometimes the long caption, and questions."""
    captions = short_captions(scene)
    caption, other = rng.sample(captions, 2)
    tasks = [summary_task(TEXT_SUMMARY, scene, rng)]
    if rng.random() < LONG_PREFIX_SHARE:
        caption = long_caption(scene)
        tasks.append(Task("text_short", SHORTEN, other))
    else:
        tasks.append(Task("text_text", REPHRASE, other))
        tasks += [Task("text_long", ELABORATE, long_caption(scene))] if rng.random() < SHORT_TASK_SHARE else []
    return Row(scene, caption, (*tasks, *question_tasks(scene, rng)))


def summary_task(prompt: str, scene: Scene, rng: random.Random) -> Task:
    """The one-word prompt: any color or shape of the scene is a right answer."""
    answers = tuple(one_word_answers(scene))
    return Task("one_word", prompt, rng.choice(answers), answers)


def question_tasks(scene: Scene, rng: random.Random) -> tuple[Task, ...]:
    """Different questions about the scene's objects and the relation in its captions, and claims to judge."""
    kinds = questions(scene)
    claims = kinds.pop("claim")
    others = [question for kind in kinds.values() for question in kind]
    asked = rng.sample(others, NUM_QUESTIONS) + rng.sample(claims, NUM_CLAIMS)
    return tuple(Task("question", question.prompt, question.answer) for question in asked)


def all_texts() -> list[str]:
    """Every prompt and answer word of the tasks, to train the tokenizer on."""
    prompts = [IMAGE_SUMMARY, TEXT_SUMMARY, DESCRIBE_LONG, DESCRIBE_SHORT, REPHRASE, ELABORATE, SHORTEN]
    asked = [f"What color is the {s}?" for s in SHAPES] + [f"What shape is {c}?" for c in COLORS]
    asked += [f"Where is the {c} {s}?" for c in COLORS for s in SHAPES]
    asked += [f"Is this true: the scene is {relation}?" for relation in RELATIONS]
    answers = ["yes", "no", *PLACE_PHRASES.values(), *COLORS, *SHAPES]
    return [f"USER: \n{text} ASSISTANT:" for text in (*prompts, *asked)] + answers
