"""Measures any encoder on scenes it has never seen, with the encoding and the tasks of the suites.

    figures = evaluate_scenes(models.in_hand(model, preprocess, tokenizer), "heldout")

VladvaCLIP and an open_clip CLIP go through the same code. Every figure is a fraction in [0, 1].
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from vladva_benchmarks.drawn.scene_tasks import scene_tasks
from vladva_benchmarks.suites.encoding import embed_tasks
from vladva_benchmarks.suites.feature_cache import NoCache
from vladva_benchmarks.suites.models import Encoder
from vladva_benchmarks.suites.tasks import Lookup, Task
from vladva_training.run.evaluation import evaluating

BATCH_SIZE = 100

Figures = dict[str, dict[str, float]]


def evaluate_scenes(encoder: Encoder, split: str, count: int = 1000, foil_count: int = 500) -> Figures:
    """Return all figures of an encoder on one split.

    Args:
        encoder: in any mode, which it keeps.
        split, count, foil_count: as for `scene_tasks`.

    Returns:
        `retrieval`, `foils`, `itt`, `tot`, `winoground`, `zero_shot`; for the kinds that no training draws,
        `evaluation_foils`, `evaluation_itt`, `evaluation_tot`, `evaluation_winoground`: name -> fraction.

    Raises:
        ValueError: as `scene_tasks`.
    """
    tasks = scene_tasks(split, count, foil_count)
    images, texts = embed(encoder, tasks)
    return figures(tasks, lambda task: task.score(images, texts[task.name]))


def embed(encoder: Encoder, tasks: Sequence[Task]) -> tuple[Lookup, Mapping[str, Lookup]]:
    """Embed drawn pictures and texts in eval mode, each once, and keep nothing on disk.

    Returns:
        The pictures' features, and task name -> features of its texts.
    """
    with evaluating(encoder.model):
        return embed_tasks(encoder, NoCache(), tasks, BATCH_SIZE, num_workers=0)


def figures(tasks: Sequence[Task], score: Callable[[Task], dict[str, float]]) -> Figures:
    """Score the tasks and sort the scores into the groups that `evaluate_scenes` returns."""
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
