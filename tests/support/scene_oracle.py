"""An encoder of drawn scenes that knows the truth, or all but one kind of fact."""

import re
from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import normalize

from tests.support.scene_truth import MENTION, is_true
from vladva_benchmarks.drawn.pictures import DrawnPicture
from vladva_benchmarks.suites.tasks import Lookup, Task
from vladva_clip.scenes import Scene, facts, named_pairs, short_sayings
from vladva_clip.scenes.vocabulary import NUMBERS

Knowledge = Callable[[str, Scene], bool]
Oracle = tuple[Lookup, Lookup]


def knows_all(text: str, one: Scene) -> bool:
    """Whether a text is true of a scene, for a caption, a foil, a class or the name of an object with its size."""
    count = re.search(rf"({'|'.join(NUMBERS.values())}) (?:object|shape)", text)
    if count:
        return NUMBERS[len(one.objects)] == count.group(1) and one.background.kind in text
    if len(named_pairs(text)) != 1 or re.search("top|bottom|left|right|center", text):
        return is_true(text, one)
    ((size, *pair),) = MENTION.findall(text)
    return any(found.pair == tuple(pair) and size in ("", found.size) for found in one.objects)


def knows_sayings(known: Sequence[Scene]) -> Knowledge:
    """Knowledge of the scenes' own short captions too, in whatever words: by what they claim."""
    claims = {saying.text: saying.claims for one in known for saying in short_sayings(one)}

    def knows(text: str, one: Scene) -> bool:
        return claims[text] <= facts(one) if text in claims else knows_all(text, one)

    return knows


def oracle(tasks: Sequence[Task], knows: Knowledge = knows_all) -> Oracle:
    """Return lookups in which an image is its own direction, and a text is the images of the tasks that it fits."""
    known = list(dict.fromkeys(picture.scene for task in tasks for picture in task.pictures))
    numbers = {one: number for number, one in enumerate(known)}

    def images(pictures: Sequence[DrawnPicture]) -> torch.Tensor:
        return torch.eye(len(known))[[numbers[picture.scene] for picture in pictures]]

    def texts(wanted: Sequence[str]) -> torch.Tensor:
        return normalize(torch.tensor([[knows(text, one) for one in known] for text in wanted]).float(), dim=-1)

    return images, texts
