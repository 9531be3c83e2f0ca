"""The task mix on which the base of vladva-tiny is pre-trained.

A row is one prefix with several tasks behind it, side by side: all tasks see the prefix and none sees another, so the
visual tokens are computed once for all. A task is a prompt with one or more answers, again side by side. Rows come in
two forms:

- "summary", the rows of the encoder: `USER: Summarize the provided image in one word: <image> ASSISTANT:`, which a
  single word answers, and second turns `</s>USER: {prompt} ASSISTANT: {answer}</s>` behind an empty first answer;
- "chat", LLaVA-1.5's own: `USER: <image>\\n{prompt} ASSISTANT: {answer}</s>`.
"""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from vladva_clip.encoder.backbones.llava import LlavaBackbone
from vladva_clip.scenes import PLACE_PHRASES, Fact, Scene, long_caption, short_captions, short_sayings
from vladva_training.tiny.questions import comparison, questions, readable_questions
from vladva_training.tiny.words import FACT_WORDS, words_of

IMAGE_SUMMARY, TEXT_SUMMARY = LlavaBackbone.image_prompt, LlavaBackbone.text_prompt
DESCRIBE_LONG = "Describe the image in detail."
DESCRIBE_SHORT = "Describe the image in one sentence."
COMPARE = "Compare the places of the objects."
REPHRASE = "Say the same in other words."
ELABORATE = "Describe the scene in detail."
SHORTEN = "Describe the scene in one sentence."
PROMPTS = (IMAGE_SUMMARY, TEXT_SUMMARY, DESCRIBE_LONG, DESCRIBE_SHORT, COMPARE, REPHRASE, ELABORATE, SHORTEN)

FORMS = ("summary", "chat")
CHAT_SHARE = 0.25
LONG_SHARE = {"image": 0.9, "text": 0.2}
COMPARED_SHARE = 0.7
NUM_SHORT = {"image": 4, "text": 3}
NUM_QUESTIONS = {"image": 1, "text": 2}
NUM_FROM_SUMMARY = 2
"""Captions from the summary token alone; for images, also the comparison of all pairs."""
CLAIM_SHARE = 0.5
LONG_PREFIX_SHARE = 0.15


@dataclass(frozen=True)
class Task:
    """A prompt and its answers, each right by itself.

    Attributes:
        name: of `batches.TASK_NAMES`.
        prompt: without the turn's frame.
        answers: texts without the space in front.
        shares: for the one-word task, how often each answer is the right one; () otherwise.
        from_summary: it sees of its prefix the summary token's last state alone, which has to hold what answers tell.
    """

    name: str
    prompt: str
    answers: tuple[str, ...]
    shares: tuple[float, ...] = ()
    from_summary: bool = False


@dataclass(frozen=True)
class Row:
    """A prefix (a caption, or None for the scene's image) in one of `FORMS`, and the tasks behind it.

    `claims` is what the prefix tells of the scene; None for everything, as an image and a long caption do.
    """

    scene: Scene
    caption: str | None
    tasks: tuple[Task, ...]
    form: str = "summary"
    claims: frozenset[Fact] | None = None


def image_row(scene: Scene, rng: random.Random) -> Row:
    """The scene's image with its one-word summary, its captions and a few questions."""
    form = "chat" if rng.random() < CHAT_SHARE else "summary"
    captions = short_captions(scene)
    tasks = [summary_task(IMAGE_SUMMARY, captions)] if form == "summary" else []
    if rng.random() < LONG_SHARE["image"]:
        tasks.append(Task("image_long", DESCRIBE_LONG, (long_caption(scene),)))
    tasks.append(Task("image_short", DESCRIBE_SHORT, _some(rng, captions, NUM_SHORT["image"])))
    if len(scene.objects) > 1 and rng.random() < COMPARED_SHARE:
        tasks.append(Task("image_pairs", COMPARE, (comparison(scene, rng),)))
    if form == "summary":
        tasks += _from_image_summary(captions, scene, rng)
    return Row(scene, None, (*tasks, *question_tasks(questions(scene), "image", rng)), form)


def text_row(scene: Scene, rng: random.Random) -> Row:
    """A caption with its one-word summary, other wordings, sometimes the long caption, and a few questions."""
    said, *others = _some(rng, short_sayings(scene), 1 + NUM_SHORT["text"])
    others = tuple(other.text for other in others)
    if rng.random() < LONG_PREFIX_SHARE:
        caption = long_caption(scene)
        return Row(scene, caption, (summary_task(TEXT_SUMMARY, [caption]), Task("text_short", SHORTEN, others)))
    tasks = [summary_task(TEXT_SUMMARY, [said.text]), Task("text_text", REPHRASE, others)]
    told = tuple(
        other.text for other in short_sayings(scene) if other.claims <= said.claims
    )  # the caption itself among them
    tasks += [Task("text_summary", REPHRASE, _some(rng, told, NUM_FROM_SUMMARY), from_summary=True)]
    if rng.random() < LONG_SHARE["text"]:
        tasks.append(Task("text_long", ELABORATE, (long_caption(scene),)))
    tasks += question_tasks(readable_questions(scene, said), "text", rng)
    return Row(scene, said.text, tuple(tasks), claims=said.claims)


def caption_row(scene: Scene, rng: random.Random) -> Row:
    """A caption and nothing behind it: its summary token is asked for bindings alone, which takes few tokens."""
    if rng.random() < LONG_PREFIX_SHARE:
        return Row(scene, long_caption(scene), ())
    said = rng.choice(short_sayings(scene))
    return Row(scene, said.text, (), claims=said.claims)


def _from_image_summary(captions: list[str], scene: Scene, rng: random.Random) -> list[Task]:
    """Captions and the comparison of all pairs, from the image's summary token alone."""
    asked = [(DESCRIBE_SHORT, _some(rng, captions, NUM_FROM_SUMMARY))]
    if len(scene.objects) > 1:
        asked.append((COMPARE, (comparison(scene, rng),)))
    return [Task("image_summary", prompt, answers, from_summary=True) for prompt, answers in asked]


def summary_task(prompt: str, captions: Iterable[str]) -> Task:
    """The one-word prompt: every word that tells a fact is a right answer, as often as the captions say it.

    Places, relations and sizes are among them: what the summary token need not know, it will not hold.
    """
    said = [word for caption in captions for word in words_of(caption.replace("one of", "of"))]  # "one of them"
    counted = Counter(word for word in said if word in FACT_WORDS)
    return Task("one_word", prompt, tuple(counted), tuple(count / counted.total() for count in counted.values()))


def question_tasks(kinds: dict, modality: str, rng: random.Random) -> tuple[Task, ...]:
    """Different questions of `questions.questions`, and claims to judge."""
    claims = kinds.get("claim", [])
    others = [question for kind, asked in kinds.items() if kind != "claim" for question in asked]
    asked = _some(rng, others, NUM_QUESTIONS[modality]) + _some(rng, claims, int(rng.random() < CLAIM_SHARE))
    return tuple(Task("question", question.prompt, (question.answer,)) for question in asked)


def all_texts() -> list[str]:
    """Every prompt and answer word of the tasks, to train the tokenizer on."""
    asked = ["What color is the circle?", "What shape is red?", "Where is the red circle to the blue square?"]
    asked += ["What is above the red circle?", "Is this true: a red circle is left of a blue square?"]
    asked += ["from red circle to blue square left above, from blue square to red circle right below"]
    frames = [f"USER: {prompt} ASSISTANT:" for prompt in (*PROMPTS, *asked)]
    return [*frames, " yes", " no", *(f" {phrase}" for phrase in PLACE_PHRASES.values()), *sorted(FACT_WORDS)]


def _some(rng: random.Random, items: list, count: int) -> tuple:
    return tuple(rng.sample(items, min(count, len(items))))
