"""Copies, pickles and averages of a model run their own weights; a copy and a forked process have their own lock."""

import copy
import io
import multiprocessing
import os
import threading

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import vladva_clip


@pytest.fixture(scope="module")
def loaded(source):
    return vladva_clip.create_model(source, precision="fp32")[0]


@pytest.fixture
def model(loaded):
    """A model of the test's own, which has run."""
    own = copy.deepcopy(loaded)
    own.encode_image(images_for(own))
    return own


@pytest.fixture(scope="module")
def tokens(source):
    return vladva_clip.get_tokenizer(source)(["a red circle", "b"])


def images_for(model) -> torch.Tensor:
    return torch.ones(2, 3, *model.visual.image_size)


def emptied(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module


def restored(model: nn.Module) -> nn.Module:
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


def averaged(model: nn.Module) -> nn.Module:
    return AveragedModel(model)


PARTS = {
    "whole": lambda model: [model],
    "towers": lambda model: [model.visual, model.text],
    "trunk": lambda model: [model.visual.backbone.trunk_module],
}


@pytest.mark.parametrize("stance", ["force_eager", pytest.param("default", marks=pytest.mark.slow)])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("copied", [copy.deepcopy, restored, averaged])
def test_a_copy_of_a_compiled_model_runs_its_own_weights(model, tokens, parts, copied, stance):
    """Without compiling it takes no time, and the compiled function is in its place all the same."""
    images = images_for(model)
    for part in parts(model):
        part.compile(backend="eager")
    with torch.compiler.set_stance(stance):
        before = model(images, tokens)
        twin = emptied(copied(model))
        assert [features.abs().sum() for features in twin(images, tokens)[:2]] == [0, 0]
        assert all(torch.equal(now, then) for now, then in zip(model(images, tokens), before, strict=True))


@pytest.mark.slow
def test_a_copy_of_torchs_wrapper_runs_its_own_weights(model, tokens):
    wrapped = torch.compile(model, backend="eager")
    before = wrapped(images_for(model), tokens)[0]
    twin = emptied(copy.deepcopy(wrapped))
    assert twin(images_for(model), tokens)[0].abs().sum() == 0
    assert torch.equal(wrapped(images_for(model), tokens)[0], before)


@pytest.mark.parametrize("name", ["visual", "text"])
def test_a_tower_that_has_run_is_copied_and_saved_alone(model, tokens, name):
    given = images_for(model) if name == "visual" else tokens
    tower = getattr(model, name)
    before = tower(given)
    for twin in (copy.deepcopy(tower), restored(tower)):
        assert twin.backbone is not tower.backbone and torch.equal(twin(given), before)
        emptied(twin.backbone)
        assert not torch.equal(twin(given), before) and torch.equal(tower(given), before)


def test_both_towers_of_a_copy_share_one_backbone_and_one_lock(model):
    for twin in (copy.deepcopy(model), restored(model)):
        assert twin.text.backbone is twin.visual.backbone
        assert twin.visual.backbone.lock is not model.visual.backbone.lock
    assert copy.copy(model).visual.backbone.lock is model.visual.backbone.lock  # over the same weights


def test_weights_that_are_assigned_reach_both_towers(model, tokens):
    zeros = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    features = torch.func.functional_call(model, zeros, (images_for(model), tokens))[:2]
    assert [side.abs().sum() for side in features] == [0, 0]
    model.load_state_dict(zeros, assign=True)
    assert model.encode_text(tokens).abs().sum() == 0 and model.encode_image(images_for(model)).abs().sum() == 0


class held_by_a_thread:  # noqa: N801
    """Another thread holds the model in eval mode, as long as a big batch would take."""

    def __init__(self, model) -> None:
        self.busy, self.done = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._hold, args=(model,))

    def _hold(self, model) -> None:
        with model.evaluating():
            self.busy.set()
            self.done.wait()

    def __enter__(self) -> None:
        self.thread.start()
        self.busy.wait()

    def __exit__(self, *_) -> None:
        self.done.set()
        self.thread.join()


def forked(child) -> int | None:
    """The exit status of a forked process, None if it hangs."""
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(20)
    code = process.exitcode
    process.kill()
    process.join()
    return code


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_while_a_thread_encodes_can_encode(model, tokens):
    model.train()
    modes = [module.training for module in model.modules()]

    def child():
        assert [module.training for module in model.modules()] == modes
        model.encode_text(tokens)
        threads = [threading.Thread(target=model.generate, args=(images_for(model),), daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        os._exit(any(thread.is_alive() for thread in threads))

    with held_by_a_thread(model):
        assert not model.training
        assert forked(child) == 0
    assert [module.training for module in model.modules()] == modes


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_by_the_thread_that_holds_the_model_goes_on(model, tokens):
    model.train()
    with model.evaluating():
        pid = os.fork()
        if pid == 0:  # leaves the block as its parent does
            mode = model.training
    if pid == 0:
        thread = threading.Thread(target=model.encode_text, args=(tokens,), daemon=True)
        thread.start()
        thread.join(10)
        os._exit(0 if not mode and model.training and not thread.is_alive() else 1)
    assert os.waitpid(pid, 0)[1] == 0 and model.training


@pytest.mark.parametrize("copied", [copy.deepcopy, restored, averaged])
def test_a_copy_leaves_compiled_methods_with_the_original(model, tokens, copied):
    model.encode_text = torch.compile(model.encode_text, backend="eager")
    model.visual.forward = torch.compile(model.visual.forward, backend="eager")
    with torch.compiler.set_stance("force_eager"):
        before = model(images_for(model), tokens)[:2]
        twin = emptied(copied(model))
        assert [features.abs().sum() for features in twin(images_for(model), tokens)[:2]] == [0, 0]
        assert all(torch.equal(now, then) for now, then in zip(model(images_for(model), tokens), before, strict=False))
    assert "encode_text" in vars(model) and "forward" in vars(model.visual)
