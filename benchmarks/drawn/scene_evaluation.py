"""Measures any encoder on scenes it has never seen, with the encoding and the tasks of the suites.

    figures = evaluate_worlds(models.in_hand(model, preprocess, tokenizer), [World("heldout")])["heldout"]

VladvaCLIP and an open_clip CLIP go through the same code. Every figure is a fraction in [0, 1].
"""

from collections.abc import Callable, Iterator, Sequence

from vladva_benchmarks.drawn.scene_tasks import World, scene_tasks
from vladva_benchmarks.suites.encoding import embed_tasks
from vladva_benchmarks.suites.models import Encoder
from vladva_benchmarks.suites.tasks import Lookup, Task
from vladva_clip.bulk.feature_cache import NoCache
from vladva_training.run.evaluation import evaluating

BATCH_SIZE = 100

Figures = dict[str, dict[str, float]]


def evaluate_worlds(
    encoder: Encoder, worlds: Sequence[World], count: int = 1000, foil_count: int = 500
) -> dict[str, Figures]:
    """Return all figures of an encoder on some worlds.

    What two worlds share is embedded once: "unseen" has the captions of "varied".

    Args:
        encoder: in any mode, which it keeps.
        worlds: splits in a style.
        count, foil_count: as for `scene_tasks`.

    Returns:
        World's name -> group -> name -> fraction. The groups are `retrieval`, `foils`, `itt`, `tot`, `zero_shot`,
        `zero_shot_single` and `size`; for the kinds that the seven foils leave open, `evaluation_foils`,
        `evaluation_itt` and `evaluation_tot`; and `winoground` and `evaluation_winoground`, or in other styles than
        the classic one `winoground_colors`, `winoground_places` and `winoground_axis`.

    Raises:
        ValueError: as `scene_tasks`.
    """
    asked = {world.name: scene_tasks(world.split, count, foil_count, world.style) for world in worlds}
    images, texts = embed(encoder, [task for tasks in asked.values() for task in tasks])
    return {name: figures(tasks, lambda task: task.score(images, texts)) for name, tasks in asked.items()}


def embed(encoder: Encoder, tasks: Sequence[Task]) -> tuple[Lookup, Lookup]:
    """Embed drawn pictures and texts in eval mode, each once, and keep nothing on disk.

    Args:
        encoder: in any mode, which it keeps.
        tasks: none of which is a `Classification`, whose classes would have features of their own.

    Returns:
        The features of the tasks' pictures, and of their texts.
    """
    with evaluating(encoder.model):
        images, by_name = embed_tasks(encoder, NoCache(), tasks, BATCH_SIZE, num_workers=0)
    return images, by_name[tasks[0].name]


def figures(tasks: Sequence[Task], score: Callable[[Task], dict[str, float]]) -> Figures:
    """Score the tasks and sort the scores into the groups that `evaluate_worlds` returns."""
    found: Figures = {}
    for task in tasks:
        scores = score(task)
        for group, name, metric in _places(task):
            found.setdefault(group, {})[name] = scores[metric]
    return found


def _places(task: Task) -> Iterator[tuple[str, str, str]]:
    """The group, the name in it, and the metric of each figure; a task of one kind has the kind for a name."""
    group, _, kind = task.name.partition("/")
    for metric in task.metrics:
        yield group.replace("triples", metric), kind or metric, metric
