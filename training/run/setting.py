"""What determines a run besides its state, and whether a checkpoint may be continued with it."""

import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from vladva_clip.storage.config import ImageConfig, PromptConfig
from vladva_clip.storage.encoding_config import EncodingConfig
from vladva_training.config import Recipe, flat

FREE = {"name", "resume", "output_dir", "optim.on_non_finite"}
FREE |= {f"data.{key}" for key in ("num_workers", "worker_timeout", "max_bad_share")}
FREE |= {f"run.{key}" for key in ("checkpoint_every", "evaluate_every", "keep_last", "log_every", "sigterm_exit_code")}
"""Keys that may differ on resume: they do not affect the result."""
MEASURING = {"data.evaluation", "data.evaluation_count", "run.best_metric"}
"""Keys that may differ on resume, but then the search for the best checkpoint starts over."""
ROUNDING = {"batch.micro_size", "batch.visual_cache", "loss.ntp_chunk", "world_size"}
ROUNDING |= {"model.compile", "model.gradient_checkpointing"}
"""Keys that may differ on resume; the result is then the same up to rounding."""
DRAWING = {"batch.micro_size", "world_size", "model.compile"}
"""Those of `ROUNDING` that affect which dropout masks are drawn."""
BASE, LENGTHS = "fingerprint of the base", "records in data.train"
TEMPLATES, ENCODING, IMAGE = "templates", "encoding", "image geometry"
LOSS = "the contrastive loss is"  # checkpoints of the mean of both directions have no LOSS


@dataclass(frozen=True)
class Setting:
    """Everything besides the state that determines a run; compared on resume.

    Attributes:
        recipe: the recipe with all its settings.
        world_size: number of processes.
        source_lengths: number of records in each source.
        base: fingerprint of the LVLM's weights, None if unknown.
        prompt, encoding, image: templates, how rows become features, geometry of images; None if unknown.
    """

    recipe: Recipe
    world_size: int
    source_lengths: tuple[int, ...]
    base: str | None = None
    prompt: PromptConfig | None = None
    encoding: EncodingConfig | None = None
    image: ImageConfig | None = None

    def values(self) -> dict[str, Any]:
        """Return all values as they come back from JSON."""
        values = {**flat(self.recipe), "world_size": self.world_size, LENGTHS: self.source_lengths}
        values |= {LOSS: "the sum of both directions"}
        values |= {BASE: self.base} if self.base else {}
        of_model = {TEMPLATES: self.prompt, ENCODING: self.encoding, IMAGE: self.image}
        values |= {name: asdict(part) for name, part in of_model.items() if part}
        return json.loads(json.dumps(values))


def compare(stored: dict[str, Any], setting: Setting) -> list[str]:
    """Compare a checkpoint's setting with the current one.

    Returns:
        One warning for each key that differs and is allowed to.

    Raises:
        ValueError: keys that must not differ, all of them, with both values.
    """
    now, stored = setting.values(), _with_all_of_its_prompt(stored)
    differing = {key: (stored.get(key), now.get(key)) for key in {**stored, **now} if stored.get(key) != now.get(key)}
    lines = {key: f"{key}: {then!r} in the checkpoint, {here!r} now" for key, (then, here) in differing.items()}
    for key in (BASE, TEMPLATES, ENCODING, IMAGE):
        if not (stored.get(key) and now.get(key)):
            lines.pop(key, None)  # older checkpoints have none
    if LOSS not in stored:
        lines[LOSS] = "it was written when the contrastive loss was the mean of both directions, which is now their sum"
    if BASE in lines:
        lines[BASE] += f" (the weights of {setting.recipe.model.name} have changed: restore the old ones or revision)"
    refused = [line for key, line in lines.items() if key not in FREE | MEASURING | ROUNDING]
    if refused:
        way_out = "Give the old values" if LOSS in stored else "Finish it with the version that began it"
        raise ValueError(
            "resume=true, but the run in output_dir was started with other settings that affect the result: "
            f"{'; '.join(refused)}. {way_out}, or start over in another output_dir"
        )
    notes = {key: "the result is the same only up to rounding" for key in ROUNDING}
    dropout = setting.recipe.model.lora_dropout
    if dropout and setting.recipe.model.train in ("lora", "qlora"):
        notes |= {
            key: f"other dropout masks are drawn (model.lora_dropout {dropout}), so the result differs"
            for key in DRAWING
        }
    notes |= {key: "the search for the best checkpoint starts over" for key in MEASURING}
    return [f"{lines[key]}; {notes[key]}" for key in lines if key in notes]


def _with_all_of_its_prompt(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a stored setting with the templates' keys that an earlier release did not know yet at what they imply."""
    if not isinstance(stored.get(TEMPLATES), dict):
        return stored
    implied = {key.name: key.default for key in fields(PromptConfig) if key.default is not MISSING}
    return {**stored, TEMPLATES: implied | stored[TEMPLATES]}


def measures_otherwise(stored: dict[str, Any], setting: Setting) -> bool:
    """Whether a checkpoint's figures can't be compared with future ones, because the evaluation has changed."""
    now = setting.values()
    return any(stored.get(key) != now.get(key) for key in MEASURING)
