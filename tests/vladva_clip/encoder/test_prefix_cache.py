"""All captions begin with the template's beginning: `encode_text` runs it once, where that changes nothing."""

import shutil

import pytest
import torch

import vladva_clip
from tests.support import adapters, samples
from tests.support.models import layouts
from vladva_clip.encoder import towers

CAPTIONS = [f"{caption} number {number}" for caption in samples.CAPTIONS for number in range(8)]


LATER_FAMILIES = ("llava_next", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "llava_onevision")
LATER = [pytest.param(family, marks=pytest.mark.wide) for family in LATER_FAMILIES]


@pytest.fixture(params=["llava", "qwen2_vl", *LATER])
def model(request, bases):
    """In double precision, with soft prompts and a LoRA that moved."""
    return adapters.with_lora(adapters.load(bases[request.param], merge_lora=False)).double()


@pytest.fixture
def tokens(model):
    return vladva_clip.get_tokenizer(model.config.base.id)(CAPTIONS)


@pytest.fixture
def run(model, monkeypatch):
    """The rows and tokens of each call of the trunk."""
    trunk, calls = model.text.backbone.trunk, []

    def counting(embeddings, *arguments, **options):
        calls.append(tuple(embeddings.shape[:2]))
        return trunk(embeddings, *arguments, **options)

    monkeypatch.setattr(type(model.text.backbone), "trunk", lambda _, *some, **more: counting(*some, **more))
    return calls


def whole_rows(model, tokens, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(towers, "MIN_BEGINNING", 1 << 20)
        return model.encode_text(tokens)


@torch.no_grad()
def test_features_are_those_of_whole_rows(model, tokens, run, monkeypatch):
    expected = whole_rows(model, tokens, monkeypatch)
    whole = sum(rows * width for rows, width in run)
    run.clear()
    for bound in (1, 100, 1 << 20):
        monkeypatch.setattr(model.text, "micro_batch_tokens", bound)
        torch.testing.assert_close(model.encode_text(tokens), expected, rtol=0, atol=1e-10)
    beginning = len(model.text.prompts.text.before)
    assert run[0] == (1, beginning) and run.count((1, beginning)) == 3  # once a call, whatever the micro-batches
    assert sum(rows * width for rows, width in run) < 3 * 0.7 * whole


def test_frozen_models_share_it_without_no_grad_too(model, tokens, run):
    assert not model.encode_text(tokens).requires_grad
    assert len(run) > 1 and run[0] == (1, len(model.text.prompts.text.before))


def _few(model, tokens):
    return tokens[: towers.MIN_ROWS - 1]


def _training(model, tokens):
    model.train()
    return tokens


def _trainable(model, tokens):
    model.text.soft_prompt.requires_grad_(True)
    return tokens


def _hooked(model, tokens):
    model.text.backbone.trunk_module.layers[0].register_forward_hook(lambda *_: None)
    return tokens


def _patched(model, tokens):
    layer = model.text.backbone.trunk_module.layers[0]
    layer.forward = lambda *arguments, **options: type(layer).forward(layer, *arguments, **options)
    return tokens


@pytest.mark.parametrize("change", [_few, _training, _trainable, _hooked, _patched])
def test_rows_stay_whole_where_sharing_could_matter(model, tokens, run, change):
    features = model.encode_text(change(model, tokens))
    assert features.requires_grad == (change is _trainable)
    assert all(width > len(model.text.prompts.text.before) for _, width in run)


@torch.no_grad()
def test_a_short_beginning_is_not_worth_it(bases, tmp_path, monkeypatch):
    """As in the first format, where a text row begins with BOS and a role word."""
    base = layouts.state(shutil.copytree(bases["llava"], tmp_path / "base"), layouts.FIRST_FORMAT["llava"])
    model = adapters.load(base)
    tokens = vladva_clip.get_tokenizer(f"local-dir:{base}")(CAPTIONS)
    assert torch.equal(model.encode_text(tokens), whole_rows(model, tokens, monkeypatch))
