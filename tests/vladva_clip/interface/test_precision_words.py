"""One set of words for a precision, with one error, wherever one is given."""

import pytest
import torch

import vladva_clip
from vladva_clip import cli
from vladva_clip.export.run import export_model
from vladva_clip.interface import precision_words
from vladva_training.captioning.captioners import open_chat
from vladva_training.captioning.settings import CaptionSettings
from vladva_training.config import BatchSection, ModelSection

TINY = "vladva-tiny"
PLACES = {  # every keyword and key that takes a precision
    "create_model": lambda word: vladva_clip.create_model(TINY, precision=word),
    "create_model_and_transforms": lambda word: vladva_clip.create_model_and_transforms(TINY, precision=word),
    "from_pretrained": lambda word: vladva_clip.VladvaCLIP.from_pretrained(TINY, precision=word),
    "export_model": lambda word: export_model(TINY, "never-written", word),
    "captioner": lambda word: open_chat("nowhere/nothing", "", "cpu", word),
    "caption": lambda word: CaptionSettings("list", 1, precision=word),
    "recipe": lambda word: ModelSection(precision=word),
    "autocast": lambda word: BatchSection(autocast=word),
}
COMMANDS = {
    "export": (cli.main, ["export", TINY, "never-written"]),
    "caption": ("vladva_training.captioning.command", ["scenes:test:1", "--output", "never-written"]),
    "run": ("vladva_benchmarks.suites.command", ["scenes", "--model", TINY, "--data-root", "never-read"]),
    "zero_shot": ("vladva_benchmarks.speed.zero_shot", []),
    "throughput": ("vladva_benchmarks.speed.throughput", []),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *(("float32", "fp32"), ("torch.bfloat16", "bf16"), ("FP32", "fp32"), (" bf16 ", "bf16"), ("32-true", "fp32")),
        *(("int8", ""), ("", ""), (16, ""), (["bf16"], ""), (True, ""), ("fp32,bf16", "")),
    ],
)
def test_another_spelling_is_refused_alike_everywhere(place, given, meant):
    with pytest.raises(ValueError, match="expected one of") as caught:
        PLACES[place](given)
    assert repr(str(given)) in str(caught.value) and "fp32" in str(caught.value)
    assert not meant or str(caught.value).endswith(f" {meant}")


@pytest.mark.parametrize("given", ["half", "float16", "torch.float16", "fp-16"])
def test_the_word_that_is_meant_is_named(given):
    with pytest.raises(ValueError, match=r"; .*\bfp16\b"):
        precision_words.parse("precision", given)


def command(name):
    function, arguments = COMMANDS[name]
    if callable(function):
        return function, arguments
    module = pytest.importorskip(function)
    return module.main, arguments


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_refuse_it_before_anything_else_and_answer_the_old_option(name, capsys):
    main, arguments = command(name)
    for words, said in [
        (["--precision", "float16"], "--precision is 'float16', expected one of fp32"),
        (["--precision", "float16"], "write fp16"),
        (["--dtype", "bfloat16"], "--precision bf16"),
        (["--dtype=int4"], "--precision fp32|amp"),
    ]:
        assert status(main, [*arguments, *words]) == 2 and said in capsys.readouterr().err


def status(main, words) -> int:
    """A program's exit status; argparse ends it by SystemExit."""
    try:
        return main(words)
    except SystemExit as ended:
        return ended.code


def test_a_torch_dtype_stands_for_its_word():
    assert [precision_words.parse("precision", t) for t in (torch.float32, torch.bfloat16, torch.half)] == [
        *("fp32", "bf16", "fp16")
    ]
    assert ModelSection(precision=torch.float16).precision == "fp16"  # a record holds text
    assert vladva_clip.create_model(TINY, precision=torch.bfloat16)[0].visual.backbone.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="'torch.float64', expected one of fp32"):
        precision_words.parse("precision", torch.float64)


@pytest.mark.parametrize(
    "call",
    [
        lambda **given: vladva_clip.create_model(TINY, **given),
        lambda **given: vladva_clip.VladvaCLIP.from_pretrained(TINY, **given),
        lambda **given: export_model(TINY, "never-written", **given),
    ],
)
def test_the_keywords_of_others_are_answered(call):
    with pytest.raises(TypeError, match='torch_dtype .*precision="fp16"'):
        call(torch_dtype=torch.float16)
    with pytest.raises(TypeError, match='^dtype .*precision="bf16"'):
        call(dtype="bfloat16")


def test_every_word_is_open_clips_or_means_what_its_name_says():
    for word, dtype in precision_words.DTYPES.items():
        stated = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
        assert word.startswith("amp") or stated[word.removeprefix("pure_")] == dtype


def test_a_recipe_of_an_earlier_version_is_read_in_todays_words():
    stored = {"batch.autocast": "bfloat16", "model.precision": "fp32", "batch.size": 4}
    assert precision_words.in_words(stored) == {**stored, "batch.autocast": "bf16"}
    assert precision_words.in_words({"batch.autocast": None}) == {"batch.autocast": None}
