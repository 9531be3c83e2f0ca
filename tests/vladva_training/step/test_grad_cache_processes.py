"""Two gloo processes against the formula on the global batch: gradients, losses, and when they cross processes."""

from dataclasses import replace

import pytest
import torch

from tests.support.training import formula
from tests.support.training.steps import (
    CLIP,
    LOSSES,
    assert_equal,
    batch_for,
    double_model,
    fused_forward,
    recipe,
    run_process,
)
from vladva_training.config import LossSection

FULL = LossSection(ntp_weight=0.0, hard_negatives=2)  # the head has no gradient of its own


def cases_of(base):
    """name -> recipe: each loss at once and in micro-batches (some lack short or long captions), full, checkpointed."""
    cases = {}
    for micro_size in (None, 1, 2):
        names = ("info_nce", "sigmoid", "known")
        cases |= {f"{name}-{micro_size}": recipe(base, LOSSES[name], micro_size) for name in names}
    cases["hardness-2"] = recipe(base, LOSSES["hardness"], 2)
    for micro_size in (None, 1, 2):
        cases[f"full-{micro_size}"] = recipe(base, LOSSES["info_nce"], micro_size, train="full")
    cases |= {f"{name}-checkpointed": checkpointed(cases[name]) for name in ("info_nce-None", "sigmoid-1", "full-1")}
    cases["full-without-ntp"] = recipe(base, FULL, 1, train="full")
    cases["full-texts-in-one-half"] = replace(
        recipe(base, LOSSES["info_nce"], 2, train="full"), name="texts in one half"
    )
    return cases


def checkpointed(whole):
    return replace(whole, model=replace(whole.model, gradient_checkpointing=True))


@pytest.fixture(scope="module")
def processes(bases, tmp_path_factory):
    """Both processes' results for each case; the processes start once for all tests."""
    directory, base = tmp_path_factory.mktemp("processes"), bases["llava"]
    cases = cases_of(base)
    torch.multiprocessing.spawn(run_process, (2, directory, base, cases), nprocs=2)
    results = [torch.load(directory / f"{rank}.pt") for rank in range(2)]
    return base, {name: (whole, [result[name] for result in results]) for name, whole in cases.items()}


def test_gradients_and_losses_are_those_of_the_formula(processes):
    """The processes have different numbers of labeled tokens: image 2, of the first, has no long caption."""
    base, cases = processes
    models = {train: double_model(base, train=train) for train in ("lora", "full")}
    for whole, found in cases.values():
        model = models[whole.model.train]
        expected, losses = formula.step(fused_forward(model, whole), whole, batch_for(model, whole))
        assert "model.logit_scale" in expected
        assert ("logit_bias" in expected) == (whole.loss.contrastive == "sigmoid")
        for one in found:
            assert_equal(one["gradients"], expected)
            assert one["losses"] == pytest.approx(losses, rel=1e-9)


def test_pictures_are_compared_across_processes(processes):
    """Images 2 and 4, in different processes, are one picture, and image 4's hard negative is image 2's caption.

    By the facts, one hard negative of image 1 and one of image 2 are true, the latter by what is known of image 4.
    """
    for whole, (first, second) in processes[1].values():
        if whole.name == "texts in one half":
            continue
        assert first["counts"][2] == second["counts"][2] == 2
        by_facts = 2 if whole.loss.false_negatives == "known" else 0
        assert (first["own_counts"], second["own_counts"]) == ((1, by_facts), (1, 1))


def test_both_processes_end_with_the_same_bits(processes):
    for _, (first, second) in processes[1].values():
        assert first["losses"] == second["losses"]
        assert first["counts"] == second["counts"]
        assert all(torch.equal(first["gradients"][name], second["gradients"][name]) for name in first["gradients"])


def test_gradients_cross_processes_with_the_last_micro_batch_only(processes):
    _, cases = processes
    for whole, found in cases.values():
        for one in found if whole.model.train != "full" else ():
            micro_batches = 1 if whole.batch.micro_size is None else -(-3 // whole.batch.micro_size)
            without, with_graph = one["passes"].count(False), one["passes"].count(True)
            assert (without, with_graph) == ((0, 1) if micro_batches == 1 else (micro_batches, micro_batches))
            assert set(one["reduced_after"]) == {len(one["passes"])}


def test_what_trains_in_full_tuning_is_spread_over_the_processes(processes):
    base, cases = processes
    own = [p.numel() for p in double_model(base, train="full").parameters() if p.requires_grad and p.ndim]
    for whole, found in cases.values():
        if whole.model.train == "full":
            scales = 1 + (whole.loss.contrastive == "sigmoid")  # are whole in both
            assert sum(one["held"] for one in found) == sum(own) + 2 * scales
            assert all(one["held"] < 0.6 * sum(own) for one in found)


def test_sharded_gradients_are_clipped_by_their_global_norm(processes):
    for whole, found in processes[1].values():
        if whole.model.train != "full":
            continue
        for one in found:
            norm = torch.cat([gradient.flatten() for gradient in one["gradients"].values()]).norm()
            assert one["norm"] == pytest.approx(float(norm), rel=1e-12) and norm > CLIP
            clipped = {name: gradient * (CLIP / (norm + 1e-6)) for name, gradient in one["gradients"].items()}
            assert_equal(one["clipped"], clipped, 1e-12)
