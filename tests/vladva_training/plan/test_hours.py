"""Hours, cost and GPUs that need not be here: the table by hand, its units, and what a plan says about them."""

import re
from functools import cache
from pathlib import Path

import pytest

from vladva_training import cli
from vladva_training.overrides import apply
from vladva_training.plan.dry_run import describe
from vladva_training.plan.gpus import all_gpus, find_gpu
from vladva_training.plan.hours import Assumed
from vladva_training.recipes import (
    RECIPES,
    debug,
    llava15_7b,
    llava15_7b_24gb,
    llava15_7b_80gb,
    qwen2vl_2b_24gb,
    smolvlm_256m_laptop,
)
from vladva_training.step import kernels

pytestmark = pytest.mark.wide


@cache
def plan(
    words: tuple[str, ...] = (), on: str | None = None, utilization=None, price=None, name="llava15_7b_80gb"
) -> str:
    return describe(apply(RECIPES[name](), words), "cpu", Assumed.of_words(on, utilization, price))


def hours(text: str, gpu: str) -> list[float]:
    """The figures of a GPU's row: hours of a million pairs, of the run."""
    return [float(figure.replace(",", "")) for figure in re.findall(r"([\d.,]+) h", row_of(text, gpu))]


def row_of(text: str, gpu: str) -> str:
    (row,) = re.findall(rf"^ *{gpu} .*$", text, re.M)
    return row


def costs(text: str) -> list[float]:
    return [float(figure.replace(",", "")) for figure in re.findall(r" h, cost ([\d,]+)", text)]


def test_the_table_states_a_peak_a_memory_and_a_source_for_each_gpu():
    assert {"rtx4090", "l4", "l40s", "a100", "h100", "h200"} <= set(all_gpus())
    for key, gpu in all_gpus().items():
        assert key == gpu.key == key.lower() and re.search("NVIDIA .*(data sheet|white paper)", gpu.source)
        assert 0.9 * 1024 * gpu.memory_gb < gpu.total_mib <= 1024 * gpu.memory_gb  # the rest is error correction's
        stated = [float(number.replace(",", "")) for number in re.findall(r"[\d,]*\d(?:\.\d+)?", gpu.source)]
        assert any(gpu.bf16_tflops in (number, number / 2) for number in stated), gpu.source


def test_an_hour_is_3600_seconds_at_the_share_of_the_peak():
    assert find_gpu("a100").hours(312e12 * 0.5 * 3600, 0.5) == pytest.approx(1)


def test_a_million_pairs_of_the_7b_as_calculated_by_hand():
    """30 to 33 TFLOP a pair (test_dry_run.py), at 40% of 989.5 TFLOP/s."""
    million, run = hours(plan(), "h100")
    low, high = (1e6 * flops / (0.4 * 989.5e12) / 3600 for flops in (30e12, 33e12))
    assert low < million < high
    assert run == pytest.approx(million * 977 * 1024 / 1e6, abs=0.1)


def test_every_gpu_s_hours_follow_its_peak():
    for gpu in all_gpus().values():
        assert hours(plan(), gpu.key)[0] == pytest.approx(hours(plan(), "a100")[0] * 312 / gpu.bf16_tflops, rel=0.01)


def test_utilization_and_price():
    assert "40% of the peak (assumed for model.train=lora" in plan()
    half = plan(utilization=0.2)
    assert "20% of the peak (given" in half
    assert hours(half, "h100")[1] == pytest.approx(2 * hours(plan(), "h100")[1], abs=0.2)
    priced = plan(on="h100", price=2.5)
    assert costs(priced) == pytest.approx([2.5 * number for number in hours(priced, "h100")], abs=0.7)
    assert "cost" not in plan(on="h100")
    assert "30% of the peak (assumed for model.train=qlora" in plan(name="llava15_7b_24gb")


def test_processes_divide_the_hours_but_not_the_cost(monkeypatch):
    alone = plan(on="h100", price=100)
    monkeypatch.setenv("WORLD_SIZE", "4")
    four = describe(llava15_7b_80gb(), "cpu", Assumed.of_words("h100", None, 100))
    assert "4 GPUs at 40%" in four
    assert hours(four, "h100")[1] == pytest.approx(hours(alone, "h100")[1] / 4, abs=0.1)
    assert costs(four) == pytest.approx(costs(alone), rel=0.01)


def test_without_steps_or_data_only_a_million_pairs_has_hours():
    assert len(hours(plan(name="llava15_7b"), "h100")) == 1 and "this run" not in plan(name="llava15_7b")


@pytest.mark.parametrize(
    ("words", "gpu", "verdict"),
    [
        ((), "h100", "On h100: fits: "),
        ((), "rtx4090", "On rtx4090: may not fit"),
        (("model.precision=fp32",), "rtx4090", "On rtx4090: can't fit"),
        (("model.train=full",), "h100", "On h100: can't fit"),
        (
            ("batch.micro_size=8",),
            "h100",
            "On h100: may not fit",
        ),  # 74.8 GiB of 79.6, without what the GPU needs itself
    ],
)
def test_a_gpu_that_is_not_here_is_compared_by_its_memory(words, gpu, verdict):
    text = plan(words, gpu)
    assert f"\n{verdict}" in text and "Here:" not in text
    assert row_of(text, gpu).endswith(verdict.partition(": ")[2].rstrip(": "))


ONE_GPU = [(llava15_7b_80gb, "h100"), (llava15_7b_80gb, "a100"), (llava15_7b_24gb, "rtx4090"), (llava15_7b_24gb, "l4")]
ONE_GPU += [(qwen2vl_2b_24gb, "rtx4090"), (qwen2vl_2b_24gb, "l4")]


@pytest.mark.parametrize(("recipe", "gpu"), ONE_GPU)
def test_the_recipes_for_one_gpu_fit_it(recipe, gpu):
    assert row_of(plan(name=recipe.__name__), gpu).endswith("   fits")


@pytest.mark.parametrize(
    ("recipe", "gpu", "words"),
    [
        (llava15_7b_80gb, "h100", ()),
        (llava15_7b_80gb, "a100", ("run.steps=391",)),
        (llava15_7b_24gb, "rtx4090", ()),
        (qwen2vl_2b_24gb, "rtx4090", ()),
    ],
)
def test_they_take_about_a_day_and_say_so(recipe, gpu, words):
    """Their docstrings' figures are those of the plan."""
    text, told = plan(words, name=recipe.__name__), " ".join(recipe.__doc__.split())
    (run,) = hours(text, gpu)[1:]
    assert 20 < run < 30
    assert any(abs(int(stated) - run) < 1 for stated in re.findall(r"(\d+) hours", told))
    (memory,) = re.findall(r"process, predicted: ([\d.]+) GiB", text)
    assert any(abs(int(stated) - float(memory)) < 1 for stated in re.findall(r"(\d+) GiB", told))


def test_a_night_on_a_laptop():
    """The docstring's and the guide's figures; a share of the peak is not assumed for so small a model."""
    told = " ".join(smolvlm_256m_laptop.__doc__.split())
    text = plan(on="rtx4060", name="smolvlm_256m_laptop", utilization=0.1)
    assert "On rtx4060: fits: 3.1 GiB predicted" in text and hours(text, "rtx4060")[1] == 3.9
    assert "3 GiB; 4 hours on an RTX 4060" in told and "10%" in told
    assert "Hours: not predicted, as 261 million" in plan(on="rtx4060", name="smolvlm_256m_laptop")


def test_small_models_and_other_precisions_have_no_hours():
    assert "Hours: not predicted, as 7 million parameters" in describe(debug(), "cpu")
    assert "Hours, predicted" in describe(debug(), "cpu", Assumed(utilization=0.01))
    assert "batch.autocast is fp32" in plan(("batch.autocast=fp32",))


def test_four_bits_without_cuda_are_planned_for_another_machine():
    text = plan(name="llava15_7b_24gb")
    assert "Here: can't run: model.train=qlora needs a CUDA device; --on plans for one" in text
    assert "On rtx4090: fits" in plan(on="rtx4090", name="llava15_7b_24gb")


@pytest.mark.parametrize("words", ["RTX 4090", "rtx-4090", "rtx_4090", "RTX4090"])
def test_names_of_gpus_are_taken_as_people_write_them(words):
    assert find_gpu(words).key == "rtx4090"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on", "h10"], "--on is 'h10', did you mean h100"),
        (["--on", "tpu-v5"], "rtx4090, l4, l40s, a100, h100, h200"),
        (["--utilization", "0"], "--utilization is 0, "),
        (["--utilization", "40"], "--utilization is 40, "),
        (["--utilization", "nan"], "--utilization is nan, "),
        (["--on", "h100", "--price", "-1"], "--price is -1, "),
        (["--on", "h100", "--price", "inf"], "--price is inf, "),
        (["--price", "2"], "say which GPU with --on"),
    ],
)
def test_impossible_assumptions_are_one_line_and_status_2(words, message, capsys):
    assert cli.main(["debug", "--dry-run", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1


@pytest.mark.parametrize("words", [["--on", "h100"], ["--price", "2"], ["--utilization", "0.3"]])
def test_options_of_a_plan_are_refused_in_a_run(words, capsys):
    assert cli.main(["debug", *words]) == 2
    assert f"{words[0]} is for a plan: add --dry-run" in capsys.readouterr().err


def test_a_plan_for_another_machine_needs_neither_its_data_nor_its_packages(capsys):
    words = ["llava15_7b_24gb", "data.train=wds:/nowhere/{0..9}.tar", "--dry-run"]
    assert cli.main([*words, "--on", "rtx4090"]) == 0
    planned = capsys.readouterr().out
    assert "On rtx4090: fits" in planned and "docker run" in planned
    assert "here " not in planned.lower() and "available" not in planned  # this machine's figures say nothing there
    assert cli.main(words) == 2
    assert "/nowhere/0.tar" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["model.attention=flash_attention_2", "model.compile=true"])
def test_a_plan_for_another_machine_needs_no_kernels_here(words, monkeypatch, capsys):
    monkeypatch.setattr(kernels, "_is_installed", lambda module: False)
    monkeypatch.setattr(kernels, "_check_compiler", lambda place: pytest.fail("compiles here"))
    assert cli.main(["llava15_7b_80gb", words, "--dry-run", "--on", "h100"]) == 0
    assert "On h100: fits" in capsys.readouterr().out
    assert cli.main(["llava15_7b_80gb", "model.attention=flash", "--dry-run", "--on", "h100"]) == 2  # nowhere


def test_the_guide_s_figures_are_those_of_the_commands_beside_them():
    guide = (Path(__file__).parents[3] / "docs/training.md").read_text()
    lines = [line for line in guide.splitlines() if "--dry-run --on" in line and "GiB |" in line]
    rows = [line.strip("| ").split(" | ") for line in lines]
    assert len(rows) == 4
    for _, name, pairs, memory, taken, command in rows:
        _, recipe, *words, _, _, gpu = command.strip("`").split()
        text = plan(tuple(words), name=recipe)
        assert name == f"`{recipe}`" and f"this run: {pairs} pairs" in text
        (predicted,) = re.findall(r"process, predicted: ([\d.]+) GiB", text)
        assert f"{float(predicted):.1f} GiB" == memory and hours(text, gpu)[1] == float(taken)
    words = "model.train=lora model.gradient_checkpointing=true batch.micro_size=4"
    text = plan(tuple(words.split()), on="rtx4090", name="llava15_7b_24gb")
    assert f"llava15_7b_24gb {words} --dry-run" in guide and "26.7 hours and 17.2 GiB" in guide
    assert "fits: 17.2 GiB predicted" in text and hours(text, "rtx4090")[1] == 26.7


def test_the_readme_s_figures_are_the_guide_s_rounded():
    readme, guide = ((Path(__file__).parents[3] / name).read_text() for name in ("README.md", "docs/training.md"))
    rows = [
        line.strip("| ").split(" | ") for line in guide.splitlines() if "--dry-run --on" in line and "GiB |" in line
    ]
    for _, name, _, memory, taken, _ in rows:
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| {name}")]
        assert f"| {float(memory.removesuffix(' GiB')):.0f} GiB |" in line
        assert f"{float(taken):.0f}" in re.findall(r"\d+", line.split("GiB |")[1])


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_plan_on_the_command_line(name, capsys, tmp_path, monkeypatch):
    """Without a network, the bases' files, the data, or a GPU; in a folder in which no run has been."""
    monkeypatch.chdir(tmp_path)
    assert cli.main([name, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "What trains" in out and "Memory per process, predicted" in out and "Hours" in out and not err
    assert "visual.soft_prompt.weight" in out and "logit_scale" in out and "TFLOP per process" in out


def test_the_paper_s_7b_has_no_built_in_price():
    assert "cost" not in describe(llava15_7b(), "cpu")
