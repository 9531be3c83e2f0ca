"""Classifiers on disk: found again, told apart, never half-written."""

import logging
import os

import pytest
import torch

import vladva_clip
from tests.support import damage, fresh
from tests.support.adapters import with_lora
from vladva_clip.zero_shot import builder, classifier_cache
from vladva_clip.zero_shot.builder import build_zero_shot_classifier

NAMES, TEMPLATES = ["red circle", "dog", "cat"], ["a {}", "the {} on the left"]


@pytest.fixture
def model(source):
    """A model of the test's own, which it may change."""
    return vladva_clip.create_model(source, precision="fp32")[0]


@pytest.fixture(scope="module")
def tokenizer(source):
    return vladva_clip.get_tokenizer(source)


@pytest.fixture
def build(model, tokenizer, tmp_path):
    def with_changes(model=model, tokenizer=tokenizer, names=NAMES, templates=TEMPLATES, **options):
        return build_zero_shot_classifier(model, tokenizer, names, templates, cache_dir=tmp_path, **options)

    return with_changes


def count(directory) -> int:
    return len(list(directory.iterdir()))


def forbid(monkeypatch):
    def encode_in_groups(*_):
        raise AssertionError("it was built")

    monkeypatch.setattr(builder, "encode_in_groups", encode_in_groups)


def test_a_second_build_runs_the_model_for_a_few_texts_only(build, model, monkeypatch, tmp_path):
    names = [f"dog {number}" for number in range(100)]
    first = build(names=names)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    forbid(monkeypatch)
    rows, trunk = [], type(model.text.backbone).trunk
    monkeypatch.setattr(type(model.text.backbone), "trunk", lambda *given: rows.append(len(given[1])) or trunk(*given))
    assert torch.equal(build(names=names), first) and 10 < sum(rows) <= 17  # with the row of their beginning


def test_what_is_returned_is_the_callers_own(build, monkeypatch):
    first = build()
    forbid(monkeypatch)
    second = build()
    assert torch.equal(first, second)
    second.zero_()
    assert torch.equal(build(), first)


def test_texts_count_not_how_they_were_rendered(build, monkeypatch):
    first = build()
    forbid(monkeypatch)
    assert torch.equal(build(templates=[lambda name: f"a {name}", "the {} on the left"]), first)


@pytest.mark.slow
def test_an_equal_model_finds_it_in_another_process(build, source, tmp_path):
    expected = build()
    code = (
        "import torch, vladva_clip; from vladva_clip.zero_shot.builder import build_zero_shot_classifier as build;"
        f"model, _ = vladva_clip.create_model({source!r}, precision='fp32');"
        "from vladva_clip.zero_shot import builder; builder.encode_in_groups = None;"
        f"tokenizer = vladva_clip.get_tokenizer({source!r});"
        f"found = build(model, tokenizer, {NAMES}, {TEMPLATES}, cache_dir={str(tmp_path)!r});"
        "print(found.double().sum().item())"
    )
    assert float(fresh.check(code).stdout) == expected.double().sum().item()


@pytest.mark.parametrize("changes", [{"names": NAMES[::-1]}, {"names": NAMES[:2]}, {"templates": TEMPLATES[:1]}])
def test_other_texts_are_another_classifier(build, changes, tmp_path):
    first = build()
    assert not torch.equal(build(**changes), first) and count(tmp_path) == 2


def test_texts_are_told_apart_from_their_division_into_classes(build, tmp_path):
    build(names=["a", "b"], templates=["{}", "{} c"])
    assert build(names=["a", "a c", "b", "b c"], templates=["{}"]).shape[1] == 4 and count(tmp_path) == 2


def change_weight(model):
    model.visual.backbone.trunk_module.layers[-1].mlp.down_proj.weight.data[0, 0] += (
        1  # autograd's counter sees nothing
    )


def permute_weight(model):
    weight = model.visual.backbone.trunk_module.layers[0].self_attn.q_proj.weight
    weight.data.copy_(weight.data.flip(0))


def change_norm(model):
    model.visual.backbone.trunk_module.norm.weight.data *= 1.5


def change_embedding(model):
    model.visual.backbone.lvlm.get_input_embeddings().weight.data *= 1.5


def change_prompt(model):
    model.text.soft_prompt.weight.data[0, 0] += 1


@pytest.mark.parametrize("change", [change_weight, permute_weight, change_norm, change_embedding, change_prompt])
def test_weights_changed_in_place_are_another_classifier(build, model, change, tmp_path):
    first = build()
    change(model)
    assert not torch.equal(build(), first) and count(tmp_path) == 2


def test_a_merged_adapter_is_another_classifier(build, model, source, tmp_path):
    build()
    with_lora(model)
    model.save_pretrained(tmp_path / "adapter")
    merged, _ = vladva_clip.create_model(f"local-dir:{tmp_path / 'adapter'}", precision="fp32")
    build(model=merged)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_the_image_side_does_not_count(build, model, monkeypatch):
    first = build()
    model.visual.soft_prompt.weight.data += 1
    forbid(monkeypatch)
    assert torch.equal(build(), first)


def test_modes_and_checkpointing_do_not_count(build, model, monkeypatch):
    first = build()
    model.train().set_grad_checkpointing()
    model.generate(torch.zeros(1, 3, *model.visual.image_size), max_new_tokens=1)
    forbid(monkeypatch)
    assert torch.equal(build(), first)


def test_dtypes_are_told_apart(build, model, tmp_path):
    build()
    build(model=model.bfloat16())
    assert count(tmp_path) == 2


def test_tokenizers_are_told_apart(build, source, tmp_path):
    build()
    build(tokenizer=vladva_clip.get_tokenizer(source, context_length=3))
    build(tokenizer=vladva_clip.get_tokenizer(source, clean="lower"))
    assert count(tmp_path) == 3


def test_what_has_no_name_is_built_each_time(build, model, tokenizer, tmp_path):
    build(tokenizer=lambda texts: tokenizer(texts))
    with_lora(model)
    build()
    assert count(tmp_path) == 0


def test_off_by_an_argument(build, tmp_path):
    build(cache=False)
    assert count(tmp_path) == 0


def test_the_directory_is_the_users_to_choose(model, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setenv("VLADVA_CLIP_CACHE", str(tmp_path / "ours"))
    build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES)
    assert count(tmp_path / "ours") == 1
    monkeypatch.delenv("VLADVA_CLIP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert classifier_cache.default_directory() == tmp_path / "vladva_clip" / "classifiers"


@pytest.mark.parametrize("harm", damage.TENSORS.values(), ids=damage.TENSORS)
def test_a_damaged_file_is_said_and_replaced(build, caplog, harm, tmp_path):
    first = build()
    (path,) = tmp_path.iterdir()
    harm(path)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(build(), first)
    assert (f"{path} is not a readable" in caplog.text) == (harm is not damage.link_to_nothing)
    caplog.clear()
    assert torch.equal(build(), first) and not caplog.text and path.is_file() and not path.is_symlink()


def test_a_folder_in_its_place_is_said(build, caplog, tmp_path):
    first = build()
    (path,) = tmp_path.iterdir()
    damage.folder(path)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(build(), first)
    assert f"{path} is not a readable" in caplog.text and f"stored in {path.parent}" in caplog.text


def test_a_file_of_another_key_is_no_classifier(build, model, caplog, tmp_path):
    first = build()
    (path,) = tmp_path.iterdir()
    change_norm(model)
    expected = build(cache=False)
    build()
    (other,) = set(tmp_path.iterdir()) - {path}
    path.rename(other)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(build(), expected) and not torch.equal(expected, first)
    assert "sha256 differs" in caplog.text


def test_a_directory_that_cannot_be_written_costs_no_classifier(build, caplog, tmp_path, model, tokenizer):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with caplog.at_level(logging.WARNING):
        found = build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES, cache_dir=in_the_way)
    assert torch.equal(found, build()) and f"stored in {in_the_way}" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_half_written_stays_behind(build, monkeypatch, error, tmp_path):
    def replace(*_):
        raise error

    monkeypatch.setattr(classifier_cache.os, "replace", replace)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            build()
    else:
        assert build().shape[1] == len(NAMES)
    assert count(tmp_path) == 0


@pytest.mark.parametrize("variables", [{"VLADVA_CLIP_CACHE": "~nobody-of-this-name/kept"}, {}])
def test_without_a_home_directory_nothing_is_kept_and_nothing_is_lost(model, tokenizer, monkeypatch, caplog, variables):
    """A container's user may have no name, and so no home."""
    for name in ("HOME", "XDG_CACHE_HOME", "VLADVA_CLIP_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "getuid", lambda: (1 << 31) - 7)
    built = build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES)
    assert "not stored" in caplog.text and "VLADVA_CLIP_CACHE" in caplog.text
    assert torch.equal(built, build_zero_shot_classifier(model, tokenizer, NAMES, TEMPLATES, cache=False))
