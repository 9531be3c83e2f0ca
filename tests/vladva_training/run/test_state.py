"""A checkpoint's content comes back bit for bit, and its directory is whole or not there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support import crash
from tests.support.training import runs
from vladva_clip.storage.config import ImageConfig, PromptConfig
from vladva_clip.storage.encoding_config import EncodingConfig
from vladva_training.config import OptimSection
from vladva_training.processes.errors import RunError
from vladva_training.run import setting as settings
from vladva_training.run import state as states
from vladva_training.run.checkpoints import CheckpointStore
from vladva_training.run.setting import LOSS, TEMPLATES, Setting, compare, measures_otherwise
from vladva_training.run.state import Best, RunState, Trainer
from vladva_training.run.versions import compare_versions, versions
from vladva_training.step.optim import EMA, build_optimizer, build_schedule

TOTAL_STEPS = 10


@pytest.fixture
def setting(tmp_path) -> Setting:
    return Setting(runs.small_recipe(tmp_path / "base", tmp_path / "run"), 1, (20,))


def make_trainer() -> Trainer:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    module[0].weight.requires_grad_(False)
    section = OptimSection(learning_rate=0.1, weight_decay=0.1, warmup_share=0.5, ema_decay=0.9)
    optimizer = build_optimizer(module, section)
    return Trainer(module, optimizer, build_schedule(optimizer, section, TOTAL_STEPS), EMA(module, 0.9))


def take_step(trainer: Trainer) -> None:
    states.seed_step(0, trainer.state.step, 0)
    trainer.optimizer.zero_grad()
    trainer.module(torch.randn(6, 5)).square().sum().backward()
    trainer.optimizer.step()
    trainer.ema.update()
    trainer.advance_schedule()
    trainer.state.step += 1


def saved(trainer: Trainer, directory: Path, setting: Setting) -> Path:
    directory.mkdir(parents=True)
    states.write_files(directory, trainer, setting)
    return directory


@pytest.mark.parametrize("stop", [0, 1, 7])
def test_restored_trainer_goes_on_bit_for_bit(tmp_path, setting, stop):
    """At step 0 the optimizer has no moments yet."""
    whole, stopped, resumed = make_trainer(), make_trainer(), make_trainer()
    for _ in range(stop):
        take_step(stopped)
    stopped.state = replace(stopped.state, best=Best("ntp_loss", 0.1, 1), seconds=0.1 + 0.2)
    directory = saved(stopped, tmp_path / "step", setting)
    states.restore(resumed, directory, states.read_record(directory))
    assert resumed.state == stopped.state
    for trainer in (whole, resumed):
        while trainer.state.step < TOTAL_STEPS:
            take_step(trainer)
    expected, found = whole.tensors(), resumed.tensors()
    assert expected.keys() == found.keys() and len(expected) == 3 + 3 * 3 + 4
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_frozen_parameters_are_not_stored():
    assert not [name for name in make_trainer().tensors() if "0.weight" in name]


def test_a_step_draws_the_same_wherever_it_was_resumed():
    def drawn(*key: int) -> torch.Tensor:
        states.seed_step(*key)
        return torch.randn(4)

    assert torch.equal(drawn(0, 3, 1), drawn(0, 3, 1))
    assert len({tuple(drawn(*key).tolist()) for key in [(0, 3, 1), (1, 3, 1), (0, 4, 1), (0, 3, 0)]}) == 4


def test_other_parameters_are_named(tmp_path, setting):
    directory = saved(make_trainer(), tmp_path / "step", setting)
    other = make_trainer()
    other.module[0].weight.requires_grad_(True)
    other.module[1].bias.requires_grad_(False)
    with pytest.raises(ValueError, match="1 missing, such as 0.weight; 1 unexpected, such as 1.bias"):
        states.restore(other, directory, states.read_record(directory))


@pytest.mark.parametrize("content, reason", [("{", "can't be read"), ('{"format_version": 9}', "format version 9")])
def test_unreadable_record(tmp_path, setting, content, reason):
    directory = saved(make_trainer(), tmp_path / "step-00000003", setting)
    (directory / states.RECORD).write_text(content)
    with pytest.raises(ValueError, match=reason):
        states.read_record(directory)


def test_equal_settings_differ_in_nothing(setting):
    assert compare(setting.values(), setting) == []


def test_all_refused_keys_are_named_with_both_values(setting):
    other = replace(setting.recipe, seed=1, loss=replace(setting.recipe.loss, ntp_weight=0.5))
    with pytest.raises(ValueError, match="seed: 0 in the checkpoint, 1 now") as error:
        compare(setting.values(), Setting(other, 1, (24,)))
    for part in (
        "loss.ntp_weight: 1.0 in",
        "records in data.train: [20] in the checkpoint, [24] now",
        "another output_dir",
    ):
        assert part in str(error.value)


def test_another_base_is_refused_with_both_fingerprints(setting):
    stored, now = replace(setting, base="old0"), replace(setting, base="new1")
    assert compare(stored.values(), stored) == []
    with pytest.raises(ValueError, match="base: 'old0' in the checkpoint, 'new1' now .*weights"):
        compare(stored.values(), now)


def test_other_templates_are_refused_and_so_is_a_run_with_the_mean_of_both_directions(setting):
    one, two = (PromptConfig("{visual} now:", f"{{caption}}{end}") for end in (" now:", " here:"))
    stored, now = replace(setting, prompt=one), replace(setting, prompt=two)
    assert compare(stored.values(), stored) == []
    with pytest.raises(ValueError, match="templates: .* now:.* here:"):
        compare(stored.values(), now)
    earlier = {key: value for key, value in stored.values().items() if key not in (LOSS, TEMPLATES)}
    for current in (now, stored):  # no value can be given that continues it
        with pytest.raises(
            ValueError, match="mean of both directions, which is now their sum.*the version that began it"
        ):
            compare(earlier, current)


def test_templates_of_an_earlier_release_are_the_same_and_other_ones_are_not(setting):
    """Format 3 of the config has keys that checkpoints of format 2 lack."""
    now = replace(setting, prompt=PromptConfig("{visual} now:", "{caption} now:"))
    earlier = now.values()
    for key in ("visual_span", "clean", "tokens_template"):
        del earlier["templates"][key]
    assert compare(earlier, now) == []
    with pytest.raises(ValueError, match="templates: .*'none'"):
        compare(earlier, replace(now, prompt=replace(now.prompt, clean="none")))


def test_a_profile_that_has_changed_since_is_refused(setting):
    """The recipe holds its name or path only."""
    image = ImageConfig(56, (0.5,) * 3, (0.5,) * 3)
    stored = replace(setting, encoding=EncodingConfig(), image=image)
    assert compare(stored.values(), stored) == [] and compare(setting.values(), stored) == []
    for changes, said in (
        ({"encoding": EncodingConfig(positions="plain")}, "encoding: .*'family'.*'plain'"),
        ({"image": replace(image, size=84)}, "image geometry: .*56.*84"),
    ):
        with pytest.raises(ValueError, match=said):
            compare(stored.values(), replace(stored, **changes))


@pytest.mark.parametrize(("then", "now"), [(None, "new1"), ("old0", None)])
def test_a_base_that_is_not_known_on_both_sides_passes(setting, then, now):
    assert compare(replace(setting, base=then).values(), replace(setting, base=now)) == []


def test_keys_that_may_differ_are_warned_about_where_they_matter(setting):
    recipe = setting.recipe
    other = replace(
        recipe,
        resume=True,
        output_dir="elsewhere",
        batch=replace(recipe.batch, micro_size=4),
        run=replace(recipe.run, keep_last=7, log_every=3, best_metric="ntp_loss"),
        optim=replace(recipe.optim, on_non_finite="skip"),
    )
    notes = compare(setting.values(), Setting(other, 2, (20,)))
    assert sorted(note.split(":")[0] for note in notes) == ["batch.micro_size", "run.best_metric", "world_size"]
    assert measures_otherwise(setting.values(), Setting(other, 2, (20,)))


@pytest.mark.parametrize(
    ("model", "note"),
    [
        ({"lora_dropout": 0.1}, "dropout masks"),
        ({"lora_dropout": 0.0}, "rounding"),
        ({"lora_dropout": 0.1, "train": "full"}, "rounding"),
    ],
)
def test_what_draws_other_dropout_masks_gives_another_result(setting, model, note):
    recipe = replace(setting.recipe, model=replace(setting.recipe.model, **model))
    other = replace(recipe, batch=replace(recipe.batch, micro_size=4, visual_cache="cpu"))
    notes = compare(replace(setting, recipe=recipe).values(), Setting(other, 2, (20,)))
    found = {line.split(":")[0]: line.partition("; ")[2] for line in notes}
    expected = {"batch.micro_size": note, "world_size": note, "batch.visual_cache": "rounding"}
    assert found.keys() == expected.keys() and all(word in found[key] for key, word in expected.items())


def test_other_versions_are_warned_about():
    assert compare_versions(versions()) == []
    [note] = compare_versions({**versions(), "torch": "1.0"})
    assert note.startswith("torch 1.0 in the checkpoint, ")


def test_every_key_of_the_lists_exists(setting):
    assert set(setting.values()) >= settings.FREE | settings.MEASURING | settings.ROUNDING


def write_number(directory: Path, number: int) -> None:
    (directory / "sub").mkdir()
    (directory / "sub" / "number").write_text(str(number))
    (directory / states.RECORD).write_text(json.dumps(number))


def store_with(directory: Path, steps: list[int], keep_last: int = 2) -> CheckpointStore:
    store = CheckpointStore(directory, keep_last)
    for step in steps:
        store.write(step, lambda path, step=step: write_number(path, step))
    return store


def test_newest_and_best_are_kept(tmp_path):
    store = store_with(tmp_path, [5, 10, 15, 20, 25])
    store.prune(best_step=10)
    assert store.steps() == [10, 20, 25]
    store.prune(best_step=None)
    assert store.steps() == [20, 25]


def test_no_best_checkpoint_is_named_any_more_when_there_is_none(tmp_path):
    store = store_with(tmp_path, [5])
    place = store.directory / "best.json"
    store.mark_best({"step": 5})
    assert json.loads(place.read_text()) == {"step": 5}
    store.mark_best(None)
    assert not place.exists()
    store.mark_best(None)


def test_steps_beyond_eight_digits_are_in_order(tmp_path):
    assert store_with(tmp_path, [123_456_789, 99_999_999]).steps() == [99_999_999, 123_456_789]


def test_no_directory_is_half_there_whenever_the_process_ends(tmp_path):
    """Ends before the nth rename or removal, until there is none left to end before."""
    for nth in range(1, 100):
        directory = tmp_path / str(nth)
        store = store_with(directory, [1, 2])

        def write_and_prune(store: CheckpointStore = store) -> None:
            store.write(3, lambda path: write_number(path, 3))
            store.prune(best_step=None)

        cut = crash.cut_short(write_and_prune, directory, nth)
        assert set(store.steps()) in ({1, 2}, {1, 2, 3}, {2, 3})
        assert all((store.path(step) / "sub" / "number").read_text() == str(step) for step in store.steps())
        store.clean()
        assert not list(directory.rglob(".*"))
        if not cut:
            break
    assert nth == 3  # behind the renames of the new one and of the one that goes


def test_failed_write_leaves_nothing_and_names_the_last_good_one(tmp_path):
    store = store_with(tmp_path, [1, 2])

    def fail(directory: Path) -> None:
        write_number(directory, 3)
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left on device.*the last good checkpoint is .*step-00000002"):
        store.write(3, fail)
    assert store.steps() == [1, 2] and not list(tmp_path.rglob(".*"))


def test_state_starts_with_nothing_done():
    assert RunState() == RunState(0, 0, 0, 0, 0.0, -1, None)  # step 0 is evaluated too
