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

    The paper states: global batch 1024, 7 epochs, AdamW with the default betas at 1e-4 with a cosine and without weight
    decay, short captions under 30 tokens, long ones of 30 to 500, both losses in each batch, soft prompts, LoRA with
    rank and alpha 16 on the LLM's linear layers. It states no weights of the losses: 1 and 1.

    Ours: warm-up, clipping, no dropout, the logit scale, false negatives, and the micro-batch, which fits a GPU of
    80 GB and changes no gradient. docs/data.md describes the layout of the sources.
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
        loss=LossSection(contrastive="info_nce", ntp_weight=1.0),
        optim=OptimSection(learning_rate=1e-4, weight_decay=0.0),
        batch=BatchSection(size=1024, micro_size=4),
        run=RunSection(epochs=7),
        output_dir="runs/llava15_7b",
    )


def llava15_13b() -> Recipe:
    """LLaVA-1.5-13B, trained like the 7B, as in the paper. The micro-batch is ours and fits a GPU of 80 GB."""
    recipe = llava15_7b()
    return replace(
        recipe,
        name="llava15_13b",
        model=replace(recipe.model, name="vladva-13b"),
        batch=replace(recipe.batch, micro_size=2),
        output_dir="runs/llava15_13b",
    )


def qwen2vl_2b() -> Recipe:
    """Qwen2-VL-2B, trained like the 7B, as in the paper. The micro-batch is ours; the paper states no resolution."""
    recipe = llava15_7b()
    return replace(
        recipe,
        name="qwen2vl_2b",
        model=replace(recipe.model, name="vladva-2b"),
        batch=replace(recipe.batch, micro_size=16),
        output_dir="runs/qwen2vl_2b",
    )


def llava15_7b_80gb() -> Recipe:
    """LLaVA-1.5-7B on 1M pairs in about a day on one H100 of 80 GB; predicted, not run.

    The paper's recipe on an eighth of its pairs, once instead of seven times. Predicted by --dry-run: 61 GiB; 22 hours
    on an H100, and 28 hours on an A100 with 400,000 pairs (docs/training.md has the commands). Batch and candidates per
    image are the paper's. The learning rate is `short_run_rate`. The micro-batch is the largest that leaves room for
    the longest captions.
    """
    recipe = llava15_7b()
    return replace(
        recipe,
        name="llava15_7b_80gb",
        data=replace(recipe.data, train=(_cc3m(199),)),
        optim=replace(recipe.optim, learning_rate=short_run_rate(1024)),
        batch=replace(recipe.batch, micro_size=6),
        run=replace(recipe.run, steps=977, epochs=1, checkpoint_every=50),
        output_dir="runs/llava15_7b_80gb",
    )


def llava15_7b_24gb() -> Recipe:
    """LLaVA-1.5-7B over a 4-bit base on 150,000 pairs in about a day on one GPU of 24 GB; predicted, not run.

    QLoRA, without gradient checkpointing: over bf16 weights a single image with the longest caption would need it.
    Predicted by --dry-run: 13 GiB; 26 hours on an RTX 4090. With 256 images a step there are 586 steps, where 1024
    would leave 146; each image has 256 candidates instead of the paper's 1024.
    """
    recipe = llava15_7b_80gb()
    return replace(
        recipe,
        name="llava15_7b_24gb",
        model=replace(recipe.model, train="qlora"),
        data=replace(recipe.data, train=(_cc3m(29),), num_workers=4),
        optim=replace(recipe.optim, learning_rate=short_run_rate(256)),
        batch=replace(recipe.batch, size=256, micro_size=1),
        run=replace(recipe.run, steps=586, checkpoint_every=25),
        output_dir="runs/llava15_7b_24gb",
    )


def qwen2vl_2b_24gb() -> Recipe:
    """Qwen2-VL-2B on 1M pairs in about a day on one GPU of 24 GB; predicted, not run.

    In bf16. Predicted by --dry-run: 16 GiB; 23 hours on an RTX 4090. Batches of 512 keep the loader's share of the main
    memory at 20 GiB.
    """
    recipe = llava15_7b_80gb()
    return replace(
        recipe,
        name="qwen2vl_2b_24gb",
        model=replace(recipe.model, name="vladva-2b"),
        data=replace(recipe.data, num_workers=4),
        optim=replace(recipe.optim, learning_rate=short_run_rate(512)),
        batch=replace(recipe.batch, size=512, micro_size=4),
        run=replace(recipe.run, steps=1953),
        output_dir="runs/qwen2vl_2b_24gb",
    )


def smolvlm_256m_laptop() -> Recipe:
    """SmolVLM-256M on 100,000 pairs in a night on one GPU of 8 GB; predicted, not run.

    Predicted by --dry-run: 3 GiB; 4 hours on an RTX 4060 of which a step reaches 10%, as small layers keep no GPU busy.
    With 256 images a step there are 391 steps. docs/training.md says what a CPU can do.
    """
    recipe = llava15_7b_80gb()
    return replace(
        recipe,
        name="smolvlm_256m_laptop",
        model=replace(recipe.model, name="smolvlm-256m"),
        data=replace(recipe.data, train=(_cc3m(19),), num_workers=2),
        optim=replace(recipe.optim, learning_rate=short_run_rate(256)),
        batch=replace(recipe.batch, size=256, micro_size=4),
        run=replace(recipe.run, steps=391, checkpoint_every=25),
        output_dir="runs/smolvlm_256m_laptop",
    )


def short_run_rate(batch_size: int) -> float:
    """Return the learning rate of the runs of a day: 2e-4 at batch 1024, and with the square root of the batch.

    Ours, untried. AdamW moves a weight by at most about its rate in a step, and the paper's 1e-4 is for 55,000 steps.
    For a run of 700 steps E5-V takes 4e-4 (batch 768, a LLaVA over 4 bits; `run.sh` of github.com/kongds/E5-V); 2e-4 is
    the geometric mean. The square root is the rule of arXiv 2205.10287 for Adam.
    """
    return round(2e-4 * (batch_size / 1024) ** 0.5, 6)


def _cc3m(last: int) -> str:
    """Shards of CC3M from the first to this one, about 5,045 pairs in each, with long captions (docs/data.md)."""
    return f"wds:data/cc3m-long/cc3m-train-{{0000..{last:04}}}.tar"


def tiny() -> Recipe:
    """vladva-tiny on the embedded scenes of many looks, and a fifth of them of one, on a CPU: the packaged adapter.

    Whole families from the first step on, without hard negatives, which words alone give away. The base reads bindings
    (which object is where) from the summary tokens of pictures and captions by one head; on a base without it, the
    adapter learns which objects are there, but not which is where.
    """
    return Recipe(
        name="tiny",
        model=ModelSection(name="vladva-tiny", pretrained="base", precision="fp32", attention="eager"),
        data=DataSection(
            train=("scenes:train:400000:varied", "scenes:train:100000"),
            evaluation="scenes:validation:400:varied",
            evaluation_count=400,
            num_workers=0,
        ),
        loss=LossSection(text_text_weight=0.5, ntp_weight=0.2, false_negatives="known"),
        optim=OptimSection(learning_rate=2e-3, beta2=0.99, warmup_share=0.01, max_grad_norm=2.0),
        batch=BatchSection(size=32),
        run=RunSection(steps=600, checkpoint_every=100, evaluate_every=200),
        output_dir="runs/tiny",
    )


def debug() -> Recipe:
    """Half a minute on two cores: watch vladva-tiny learn to tell scenes apart that differ in one fact each.

    It starts from the base, which knows most of it, and uses GradCache.
    """
    recipe = tiny()
    return replace(
        recipe,
        name="debug",
        data=replace(
            recipe.data,
            train=("scenes:train:4000:0:varied:told",),
            evaluation="scenes:validation:96:0:varied:told",
            evaluation_count=96,
            num_workers=0,
        ),
        loss=replace(recipe.loss, text_text_weight=0.0),
        optim=replace(recipe.optim, warmup_share=0.025),
        batch=replace(recipe.batch, size=16, micro_size=8),
        run=replace(recipe.run, steps=80, checkpoint_every=20, evaluate_every=40, log_every=1),
        output_dir="runs/debug",
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    function.__name__: function
    for function in (
        *(llava15_7b, llava15_13b, qwen2vl_2b),
        *(llava15_7b_80gb, llava15_7b_24gb, qwen2vl_2b_24gb, smolvlm_256m_laptop),
        *(tiny, debug),
    )
}


def get(name: str) -> Recipe:
    """Return the recipe with this name.

    Raises:
        ValueError: no such recipe; names the nearest.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; {nearest(name.replace('-', '_'), RECIPES)}")
    return RECIPES[name]()
