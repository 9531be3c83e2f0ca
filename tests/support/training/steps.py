"""Steps on tiny bases in float64: models to train, batches with gaps, and gradients to compare."""

import os
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

import vladva_clip
from vladva_clip import VladvaCLIP
from vladva_training.config import BatchSection, DataSection, LossSection, ModelSection, Recipe
from vladva_training.processes.sharding import gathered, own_part, shard
from vladva_training.step.batches import Batch
from vladva_training.step.fused import FusedForward
from vladva_training.step.grad_cache import GlobalStep
from vladva_training.step.optim import clip_gradients, trainable
from vladva_training.step.trainable import set_trainable

DATA = DataSection(train=("scenes:train:8",))
CLIP = 1.0  # the norm to which a sharded step's gradients are clipped
EVERYTHING = {"hard_negatives": 2, "text_text_weight": 0.5, "ntp_chunk": 7}
# every loss, with and without what can be added to it
LOSSES = {
    "plain": LossSection(),
    "info_nce": LossSection(**EVERYTHING),
    "sigmoid": LossSection(contrastive="sigmoid", **EVERYTHING),
    "hardness": LossSection(contrastive="hardness", false_negatives="near", **EVERYTHING),
    "known": LossSection(false_negatives="known", **EVERYTHING),
}

# The facts of `batch_of`'s pictures: 2 and 4, one picture, know half of theirs each.
FACTS = ((1, 2, 3), (1, 2), (4,), (1, 4, 5), (6,), ())
# The claims of the short, second and false captions. True of other pictures: short 0 and 2, second 0 and 3. True of
# their own: false caption 0 of image 1, false caption 0 of image 2 by image 4's facts.
CLAIMS = (
    ((1, 2), (1,)),
    ((), (2,), (2, 1)),
    ((4, 6), (9,), (6, 4), (9, 4)),
    ((5,), (4,)),
    ((6, 9), (), (4, 8)),
    ((), (3, 5), (), (4,)),
)


def section(base: Path, **settings) -> ModelSection:
    return ModelSection(**{"name": f"local-dir:{base}", "precision": "fp32", "lora_rank": 4, **settings})


def recipe(base: Path, loss: LossSection, micro_size: int | None = None, train: str = "lora", **batch) -> Recipe:
    batch = {"size": 6, "micro_size": micro_size, "autocast": "fp32", **batch}
    return Recipe("test", section(base, train=train), DATA, loss=loss, batch=BatchSection(**batch))


def moved(model: VladvaCLIP, seed: int = 0, what: tuple[str, ...] = ("lora_", "soft_prompt")) -> VladvaCLIP:
    """Move what trains away from where it starts (LoRA's B from zero), so that no gradient is zero by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in what):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.logit_scale.fill_(2.0)
    return model


def small_model(base: Path, **settings) -> VladvaCLIP:
    """A model to train, in float32, on images of 56 pixels; Qwen3-VL's patches need 64."""
    settings = section(base, **settings)
    side = 64 if base.name == "qwen3_vl" else 56
    torch.manual_seed(0)  # LoRA's A is drawn
    model, _ = vladva_clip.create_model(settings.name, precision="fp32", merge_lora=False, force_image_size=side)
    set_trainable(model, settings)
    return model.train()


def double_model(base: Path, **settings) -> VladvaCLIP:
    """A model to train, in float64 throughout, on the images of `small_model`."""
    return in_double(moved(small_model(base, **settings)))


def in_double(model: VladvaCLIP) -> VladvaCLIP:
    """Make a model compute in float64 throughout, transformers' own forward included; in place."""
    model = model.double()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__.endswith("RMSNorm"):  # transformers' own computes in float32, whatever it gets
                setattr(module, name, _double_norm(child))
    return model


def _double_norm(norm: nn.Module) -> nn.RMSNorm:
    replacement = nn.RMSNorm(len(norm.weight), eps=norm.variance_epsilon).double()
    replacement.weight = norm.weight
    return replacement


def fused_forward(model: VladvaCLIP, whole: Recipe) -> FusedForward:
    """The forward, its own parameter in float64 with a model in float64."""
    fused = FusedForward(model, whole.loss, whole.batch)
    fused.logit_bias.data = fused.logit_bias.data.to(model.logit_scale.dtype)
    return fused


def images_of(model: VladvaCLIP, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *model.visual.image_size, generator=generator)


def batch_of(model: VladvaCLIP, size: int = 6, seed: int = 0) -> Batch:
    """Random captions with every gap: images without a short, a second short or a long caption, or without negatives.

    Images 0 and 3 have the same short caption, 2 and 5 near-identical ones. Images 2 and 4 are one picture, and image
    4's hard negative is image 2's short caption. What is known, with the `known` loss only, is in `FACTS` and `CLAIMS`.
    """
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> torch.Tensor:
        length = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(60, 250, (length,), generator=generator)

    eos = torch.tensor([model.text.prompts.eot_token_id])
    short = [ids(2, 9) for _ in range(size)]
    short[3] = short[0]
    texts = [f"caption {row}" for row in range(size)]
    texts[3], texts[5] = texts[0], "The caption, 2."
    pictures = [100 + row for row in range(size)]
    if size > 4:
        pictures[4] = pictures[2]
    return Batch(
        keys=tuple(f"image{row}" for row in range(size)),
        images=images_of(model, size, seed),
        short=tuple(None if row == 1 else short[row] for row in range(size)),
        other_short=tuple(None if row in (1, 4) else ids(2, 9) for row in range(size)),
        long=tuple(None if row == 2 else torch.cat([ids(5, 20), eos]) for row in range(size)),
        hard_negatives=tuple(tuple(short[2] if row == 4 else ids(2, 9) for _ in range(row % 3)) for row in range(size)),
        short_texts=tuple(None if row == 1 else texts[row] for row in range(size)),
        pictures=tuple(pictures),
        facts=tuple(torch.tensor(FACTS[row % 6], dtype=torch.int64) for row in range(size)),
        claims=tuple(CLAIMS[row % 6] for row in range(size)),
    )


def rows_of(batch: Batch, *rows: int) -> Batch:
    """Some images of a batch."""
    whole = [getattr(batch, name) for name in Batch.__dataclass_fields__]
    return Batch(*(w[list(rows)] if isinstance(w, torch.Tensor) else tuple(w[row] for row in rows) for w in whole))


def without_short(batch: Batch) -> Batch:
    nothing = (None,) * len(batch)
    return replace(batch, short=nothing, other_short=nothing, short_texts=nothing)


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    """The whole gradients of all that trains, by name; none may be missing. They are taken out of the module."""
    found = {name.removeprefix("module."): p.grad for name, p in module.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in found.values())
    found = {name: gathered(gradient) for name, gradient in found.items()}
    module.zero_grad(set_to_none=True)
    return found


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], relative: float = 1e-9) -> None:
    """Each gradient equals the expected one, relative to that one's largest element."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        error = (found[name] - tensor).abs().max()
        assert error <= relative * tensor.abs().max(), f"{name}: {error} of {tensor.abs().max()}"


def one_step(fused: nn.Module, whole: Recipe, batch: Batch) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Return the gradients and losses of one step."""
    result = GlobalStep(fused, whole)(batch)
    return gradients(fused), result.losses


def run_process(rank: int, world_size: int, directory: Path, base: Path, cases: dict[str, Recipe]) -> None:
    """One of several gloo processes: each case's gradients on this process's slice of the batch, into a file."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    store = dist.FileStore(str(directory / "store"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    try:
        settings = {whole.model for whole in cases.values() if whole.model.train != "full"}
        models = {each: _model_of(base, each) for each in settings}
        results = {}
        for name, whole in cases.items():
            full = whole.model.train == "full"
            model = _model_of(base, whole.model) if full else models[whole.model]  # sharding changes a model for good
            results[name] = (_sharded_step if full else _distributed_step)(rank, world_size, model, whole)
        torch.save(results, directory / f"{rank}.pt")
        dist.barrier()  # one that leaves while the other still talks to it makes that one abort
    finally:
        dist.destroy_process_group()


def _model_of(base: Path, settings: ModelSection) -> VladvaCLIP:
    return double_model(base, train=settings.train, gradient_checkpointing=settings.gradient_checkpointing)


def _distributed_step(rank: int, world_size: int, model: VladvaCLIP, whole: Recipe) -> dict:
    whole_batch = batch_for(model, whole)
    share = len(whole_batch) // world_size
    calls: list[int] = []
    passes: list[bool] = []
    module = DistributedDataParallel(fused_forward(model, whole))
    module.register_comm_hook(None, lambda state, bucket: calls.append(len(passes)) or allreduce_hook(state, bucket))
    module.module.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    batch = rows_of(whole_batch, *range(rank * share, (rank + 1) * share))
    result = GlobalStep(module, whole)(batch)
    return {
        "gradients": gradients(module),
        "losses": result.losses,
        "counts": (result.pairs, result.tokens, result.same_picture),
        "own_counts": (result.same_picture_elsewhere, result.true_negatives),
        "passes": passes,
        "reduced_after": calls,
    }


def _sharded_step(rank: int, world_size: int, model: VladvaCLIP, whole: Recipe) -> dict:
    whole_batch = batch_for(model, whole)
    share = len(whole_batch) // world_size
    passes: list[bool] = []
    module = shard(fused_forward(model, whole), model.visual.backbone.trunk_module.layers, torch.device("cpu"))
    module.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    result = GlobalStep(module, whole)(rows_of(whole_batch, *range(rank * share, (rank + 1) * share)))
    plain = {name: gathered(parameter.grad).clone() for name, parameter in trainable(module).items()}
    norm = clip_gradients(module, CLIP)
    return {
        "gradients": plain,
        "losses": result.losses,
        "counts": (result.pairs, result.tokens, result.same_picture),
        "own_counts": (result.same_picture_elsewhere, result.true_negatives),
        "passes": passes,
        "norm": norm.item(),
        "clipped": gradients(module),
        "held": sum(own_part(parameter).numel() for parameter in trainable(module).values()),
    }


def batch_for(model: VladvaCLIP, whole: Recipe) -> Batch:
    """A recipe's batch. With the name "texts in one half", images 3 to 5 have no text row."""
    batch = batch_of(model)
    if whole.name != "texts in one half":
        return batch
    kept = {name: (*getattr(batch, name)[:3], None, None, None) for name in ("short", "other_short", "short_texts")}
    return replace(batch, **kept, hard_negatives=(*batch.hard_negatives[:3], (), (), ()))


def trainable_names(model: torch.nn.Module) -> list[str]:
    """Return the names of all parameters that require gradients."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]
