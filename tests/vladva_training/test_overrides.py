"""key=value words: typed by the recipe's annotations; errors name the nearest key or the reason."""

import re
import shlex
from pathlib import Path

import pytest

from vladva_training import overrides
from vladva_training.config import Recipe, flat
from vladva_training.overrides import OTHER_NAMES, REFUSED, apply, as_text, key_types, split_commas
from vladva_training.recipes import RECIPES, debug, llava15_7b

GUIDE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("optim.learning_rate=1e-3", "optim.learning_rate", 1e-3),
        ("optim.weight_decay=1", "optim.weight_decay", 1.0),
        ("batch.size=64", "batch.size", 64),
        ("batch.micro_size=none", "batch.micro_size", None),
        ("run.steps=7", "run.steps", 7),
        ("model.pretrained=/data/a=b", "model.pretrained", "/data/a=b"),
        ("model.pretrained=None", "model.pretrained", None),
        ("model.soft_prompt=False", "model.soft_prompt", False),
        ("resume=true", "resume", True),
        ("seed=3", "seed", 3),
        ("output_dir=elsewhere", "output_dir", "elsewhere"),
        ("data.train=wds:/d/{00,01}.tar, jsonl:b.jsonl", "data.train", ("wds:/d/{00,01}.tar", "jsonl:b.jsonl")),
        ("--batch.micro-size=2", "batch.micro_size", 2),
    ],
)
def test_a_word_changes_its_key_and_no_other(word, key, value):
    before, after = flat(debug()), flat(apply(debug(), [word]))
    assert after == before | {key: value} != before


def test_the_home_directory_may_be_written_as_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert apply(debug(), ["output_dir=~/x"]).output_dir == "/home/me/x"
    assert apply(debug(), ["output_dir=a~/x"]).output_dir == "a~/x"


def test_a_float_key_holds_a_float():
    assert type(apply(debug(), ["optim.weight_decay=1"]).optim.weight_decay) is float


def test_every_key_can_be_set_to_the_text_of_its_own_value():
    recipe = llava15_7b()
    words = [f"{key}={as_text(flat(recipe)[key])}" for key in key_types(recipe)]
    assert apply(recipe, words) == recipe
    assert set(key_types(recipe)) == set(flat(recipe)) - {"name"}


def test_keys_that_are_only_valid_together_come_in_any_order():
    recipe = apply(debug(), ["data.weights=1,3", "data.train=scenes:train:8,scenes:train:16"])
    assert recipe.data.weights == (1.0, 3.0)
    recipe = apply(debug(), ["data.short_max_tokens=600", "data.long_max_tokens=700"])
    assert recipe.data.short_max_tokens == 600


def test_no_words_change_nothing():
    assert apply(debug(), []) == debug()


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("learning_rate", "did you mean optim.learning_rate?"),
        ("optim.learningrate", "did you mean optim.learning_rate?"),
        ("learning_rat", "did you mean optim.learning_rate?"),
        ("optim.size", "did you mean batch.size?"),
        ("batch.micro", "batch.micro_size"),
        ("lr", "did you mean optim.learning_rate?"),
        ("name", "did you mean model.name?"),
        ("ouput_dir", "did you mean output_dir?"),
        ("Resume", "did you mean resume?"),
        ("run.zzz", "run has epochs, steps"),
        ("zzz", "--dry-run` lists every key"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, hint):
    with pytest.raises(ValueError) as raised:
        apply(debug(), [f"{key}=1"])
    assert str(raised.value).startswith(f"unknown key {key!r}; ") and hint in str(raised.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("batch.size=big", "batch.size is 'big', expected a whole number"),
        ("batch.size=1.5", "batch.size is '1.5', expected a whole number"),
        ("batch.micro_size=x", "batch.micro_size is 'x', expected a whole number or none"),
        ("optim.learning_rate=fast", "optim.learning_rate is 'fast', expected a number"),
        ("optim.learning_rate=nan", "optim.learning_rate is 'nan', expected a number"),
        ("resume=yes", "resume is 'yes', expected true or false"),
        ("data.weights=1,x", "data.weights is 'x', expected numbers separated by commas"),
        ("model.pretrained=", "model.pretrained is empty, expected text or none"),
    ],
)
def test_a_value_of_another_type_says_key_value_and_type(word, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        apply(debug(), [word])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim.learning_rate=0", "optim.learning_rate is 0.0, expected above 0"),
        ("batch.size=1", "batch.size is 1, expected at least 2"),
        ("data.train=", "data.train is ()"),
        ("output_dir=", "output_dir is ''"),
    ],
)
def test_a_value_that_the_recipe_refuses(word, message):
    with pytest.raises(ValueError) as raised:
        apply(debug(), [word])
    assert str(raised.value).startswith(message)


def test_a_key_given_twice():
    with pytest.raises(ValueError, match="batch.size.*twice"):
        apply(debug(), ["batch.size=4", "batch.size=4"])


@pytest.mark.parametrize("word", ["batch.size", "=3", "--batch.size"])
def test_a_word_that_is_not_a_setting(word):
    with pytest.raises(ValueError, match="expected key=value"):
        apply(debug(), [word])


@pytest.mark.parametrize(
    ("word", "way_out"),
    [
        ("gradient_accumulation_steps=4", "batch.micro_size"),
        ("optim.accumulate_grad_batches=4", "add no negatives"),
        ("accum_freq=4", "batch.size=K[*]B[*]G"),
        ("drop_last=true", "no sample is dropped"),
        ("data.drop_last=true", "no sample is dropped"),
        ("grad_cache=false", "GradCache"),
        ("per_device_train_batch_size=8", "over all processes"),
        ("local_loss=true", "global batch"),
        ("num_gpus=8", "torchrun"),
        ("device=cuda", "--device"),
    ],
)
def test_misleading_keys_of_other_trainers_are_refused_with_the_alternative(word, way_out):
    with pytest.raises(ValueError, match=f"is refused: .*{way_out}"):
        apply(debug(), [word])


def test_the_tables_of_other_trainers_name_our_keys():
    known = key_types(debug())
    lasts = {key.rpartition(".")[2] for key in known}
    assert set(OTHER_NAMES.values()) <= set(known)
    assert not (set(OTHER_NAMES) | set(REFUSED)) & lasts and not set(OTHER_NAMES) & set(REFUSED)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("{a,b}", ["{a,b}"]),
        ("x{1,{2,3}}y,z", ["x{1,{2,3}}y", "z"]),
        ("a},b", ["a}", "b"]),
        ("a,,b,", ["a", "b"]),
    ],
)
def test_commas_in_braces_belong_to_the_item(text, parts):
    assert split_commas(text) == parts


def test_every_type_of_the_recipe_is_known():
    for key, hint in key_types(debug()).items():
        assert overrides.expected_type(hint), key
    assert isinstance(debug(), Recipe)


def test_the_guide_lists_every_key_with_its_value_in_the_7b():
    table = GUIDE[GUIDE.index("| key |") : GUIDE.index("## The dry run")]
    rows = re.findall(r"^\| `([\w.]+)` \| (?:`([^`]*)`)? *\| \S", table, re.MULTILINE)
    values = flat(llava15_7b())
    assert rows == [(key, as_text(values[key])) for key in key_types(llava15_7b())]


def test_the_guides_commands_are_understood():
    text = GUIDE.replace("\\\n", " ")
    lines = re.findall(r"^(?:vladva-train|torchrun .*-m vladva_training.cli) +(\w+)(.*)$", text, re.MULTILINE)
    assert len(lines) >= 10
    for name, rest in lines:
        words = shlex.split(rest, comments=True)
        assert apply(RECIPES[name](), [word for word in words if word != "--dry-run"])
