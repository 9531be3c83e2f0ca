"""The recipes: typed functions that return a Recipe. A variant calls another one and changes fields."""

from collections.abc import Callable
from dataclasses import replace

from vladva_clip.storage.config import nearest
from vladva_training.config import (
    BatchSection,
    DataSection,
    LossSection,
    ModelSection,
    OptimSection,
    Recipe,
    RunSection,
)


def llava15_7b() -> Recipe:
    """LLaVA-1.5-7B on the paper's 8.1 million pairs (arXiv 2412.04378, section 4): its main model.

    The paper's settings: global batch 1024, 7 epochs, AdamW at 1e-4 with a cosine, short captions under 30 tokens, long
    ones of 30 to 500, LoRA with rank and alpha 16. The micro-batch fits a GPU of 80 GB. docs/data.md describes the
    layout of the sources.
    """
    return Recipe(
        name="llava15_7b",
        model=ModelSection(name="vladva-7b", lora_rank=16, lora_alpha=16),
        data=DataSection(
            train=("wds:data/openimages", "wds:data/cc3m", "wds:data/sharegpt4v"),
            short_max_tokens=30,
            long_max_tokens=500,
            num_workers=8,
        ),
        optim=OptimSection(learning_rate=1e-4),
        batch=BatchSection(size=1024, micro_size=4),
        run=RunSection(epochs=7),
        output_dir="runs/llava15_7b",
    )


def llava15_13b() -> Recipe:
    """LLaVA-1.5-13B, trained like the 7B."""
    recipe = llava15_7b()
    return replace(
        recipe,
        name="llava15_13b",
        model=replace(recipe.model, name="vladva-13b"),
        batch=replace(recipe.batch, micro_size=2),
        output_dir="runs/llava15_13b",
    )


def qwen2vl_2b() -> Recipe:
    """Qwen2-VL-2B, trained like the 7B."""
    recipe = llava15_7b()
    return replace(
        recipe,
        name="qwen2vl_2b",
        model=replace(recipe.model, name="vladva-2b"),
        batch=replace(recipe.batch, micro_size=16),
        output_dir="runs/qwen2vl_2b",
    )


def tiny() -> Recipe:
    """The packaged vladva-tiny on the embedded scenes: how its shipped adapter is trained, on a CPU.

    It starts with pairs of scenes that differ only in which of two objects is where, then uses all scenes. With whole
    families from the start, colors are learned first and places are not learned in the same number of steps.

    The adapter was trained when the contrastive losses were the mean of both directions; now they are their sum. Twice
    the weight of next-token prediction and twice the clipping norm make the whole loss twice what it was. AdamW does
    not notice a factor but for its epsilon, so the optimum is the same, and the steps are up to rounding.
    """
    return Recipe(
        name="tiny",
        model=ModelSection(name="vladva-tiny", pretrained="base", precision="fp32", attention="eager"),
        data=DataSection(
            train=("scenes:train:8000:0:pairs:swaps", "scenes:train:400000"),
            in_turn=True,
            evaluation="scenes:test:200",
            evaluation_count=200,
            num_workers=1,
        ),
        loss=LossSection(text_text_weight=1.0, hard_negatives=2, ntp_weight=2.0),
        optim=OptimSection(learning_rate=1.5e-3, beta2=0.99, warmup_share=0.025, max_grad_norm=2.0),
        batch=BatchSection(size=32),
        run=RunSection(steps=1700, checkpoint_every=100, evaluate_every=200),
        output_dir="runs/tiny",
    )


def debug() -> Recipe:
    """Half a minute on two cores: watch vladva-tiny learn which object has which color.

    It starts from the base, which is at chance between two scenes that differ in nothing else, and uses GradCache.
    """
    recipe = tiny()
    return replace(
        recipe,
        name="debug",
        data=replace(
            recipe.data,
            train=("scenes:train:4000:0:pairs:colors",),
            in_turn=False,
            evaluation="scenes:test:48:0:pairs:colors",
            evaluation_count=48,
            num_workers=0,
        ),
        loss=replace(recipe.loss, hard_negatives=0, text_text_weight=0.0),
        optim=replace(recipe.optim, learning_rate=4e-3),
        batch=replace(recipe.batch, size=8, micro_size=4),
        run=replace(recipe.run, steps=80, checkpoint_every=20, evaluate_every=40, log_every=1),
        output_dir="runs/debug",
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    function.__name__: function for function in (llava15_7b, llava15_13b, qwen2vl_2b, tiny, debug)
}


def get(name: str) -> Recipe:
    """Return the recipe with this name.

    Raises:
        ValueError: no such recipe; names the nearest.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; {nearest(name.replace('-', '_'), RECIPES)}")
    return RECIPES[name]()
