"""A normal run prints our own lines and no others: every line of stdout and stderr is in a list, under `-W default`.

Calls run together in a real process, which starts as a user's would.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.support import fresh
from tests.support.edits import edit_json
from tests.support.models import embedders, tiny_blip2

START = 'import os\nos.environ.pop("TOKENIZERS_PARALLELISM", None)  # hides what tokenizers says of forks\n'
NOTICE = (
    r"\S+: training-free mode, the bare \S+ with hand-written prompts; its embeddings are weak without an .* recipe"
)

USE = """
import sys
import torch, vladva_clip
from PIL import Image
picture = Image.new("RGB", (300, 200), "red")
def use(name, refused=False, **options):
    vladva_clip.create_model(name, **options)
    model, preprocess = vladva_clip.create_model(name, **options)
    tokenizer = vladva_clip.get_tokenizer(name, **options)
    images, tokens = preprocess(picture)[None], tokenizer(["a red circle", "many words " * 20000])
    model.encode_image(images), model.encode_text(tokens), model(images, tokens)
    vladva_clip.build_zero_shot_classifier(model, tokenizer, ["dog", "cat"], ["a {}"], cache=False)
    if not refused:
        model.generate(images, max_new_tokens=3)
    model.save_pretrained("saved"), tokenizer.save_pretrained("tokenizer")
    vladva_clip.create_model("local-dir:saved", precision="bf16")
    vladva_clip.VladvaCLIP.from_pretrained("saved")
"""


def alien(text: str, *ours: str) -> list[str]:
    """The lines that match none of our patterns; what a bar overwrote counts as lines of its own."""
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    return [line for line in lines if not any(re.fullmatch(one, line.removesuffix("\x1b[A").rstrip()) for one in ours)]


def check(code: str, place: Path, out: list[str] = (), err: list[str] = ()) -> list[str]:
    """Run the code; returns the lines of stdout, all of them ours."""
    done = fresh.check(START + code, place, PYTHONWARNINGS="default", XDG_CACHE_HOME=str(place / "cache"))
    assert not alien(done.stdout, *out), done.stdout
    assert not alien(done.stderr, *err), done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def fitting(bases, tmp_path_factory) -> dict[str, Path]:
    """The tiny bases with a start of text inside their small vocabulary, as every published base has it."""
    root = tmp_path_factory.mktemp("fitting")
    for family, base in bases.items():
        shutil.copytree(base, root / family)
        _with_bos(root / family)
    _with_bos(embedders.write_qwen(root / "headless", headless=True))
    embedders.write_profile(root / "own.json", headless=True)
    return {path.name: path for path in root.iterdir()}


def _with_bos(base: Path) -> None:
    if "vision_start" in (base / "config.json").read_text():
        edit_json(base / "config.json", bos_token_id=0)


@pytest.mark.wide
def test_the_api(fitting, tmp_path):
    """The packaged model, bare bases, an embedder without a head, and float16, whose warning names the user's line."""
    code = "use('vladva-tiny')\nimport open_clip\nopen_clip.create_model_and_transforms('vladva-tiny')\n"
    code += "vladva_clip.tokenize('a dog', model='vladva-tiny')\n"
    code += f"use('local-dir:{fitting['llava']}')\n"
    code += f"use('local-dir:{fitting['headless']}', refused=True, profile='{fitting['own.json']}')\n"
    (tmp_path / "mine.py").write_text(
        f"import vladva_clip\nvladva_clip.create_model('local-dir:{fitting['qwen2_vl']}', precision='fp16')\n"
    )
    code += "import runpy\nrunpy.run_path('mine.py')\n"
    half = [r".*mine\.py:2: UserWarning: .*overflows in float16 .*; use bf16 or fp32", r"  vladva_clip.create_model.*"]
    check(USE + code, tmp_path, err=[NOTICE, *half])


OTHERS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl")


@pytest.mark.wide
def test_the_api_over_other_families(fitting, tmp_path):
    code = "".join(f"use('local-dir:{fitting[family]}')\n" for family in OTHERS)
    check(USE + code, tmp_path, err=[NOTICE])


def calls(program: str, *commands: str) -> str:
    """Code that runs a program's commands one after another through its entry point."""
    lines = [f"from {program}.cli import main"]
    return "\n".join([*lines, *(f"assert main({command.split()!r}) == 0" for command in commands)]) + "\n"


TABLE = [r"\|.*\|", r"`vladva-tiny`, tag .*"]
SUITE = [r"scenes: scenes/.*", r"  (images|classes|texts): \d+ items", r"scenes/\w+: (\w+[@\d]* [\d.]+(, )?)+"]
SUITE += [r"scenes/\w+: .* is there already", r"results: 16 files in results"]
SPEED = [r"vladva-tiny on .*", r"(texts|images)/s: [\d.]+, plain [\d.]+: [\d.]+ times as fast \(median\)"]
WORLDS = r" +test +heldout +test varied +test unseen"
FIGURES = [WORLDS, r"[\w ]+ [\w@ ]+( +(-?[\d.]+|nan|-)){4}", r"figures: \w+\.json"]
WAYS = [r"(ours|open_clip|padded|single|naive): [\d.]+ s"]


@pytest.mark.slow
def test_benchmarks_that_take_longer(tmp_path):
    few = "--count 8 --foil-count 4 --caption-count 4"
    commands = [f"scene-figures {few} --output figures.json", "vectors --scenes 8"]
    commands += ["training-step --shape tiny --device cpu --repeats 1 --memory-repeats 1 --json step.json"]
    out = [*FIGURES, *TABLE, r"ours alone, batch 8: [\d.]+ s, \d+% of the matrix-product peak"]
    check(calls("vladva_benchmarks", *commands), tmp_path, out)


REPORT = [r"report.md: report of 1 model\(s\), 0 of the paper's tables, 0 plots"]
DEBUG = [r"debug: +\d+%\|.*", r"\d+ records, 0 bad; the adapter is in \S+/adapter"]
CAPTIONED = [r"out: 2 of 2 records, 2 short captions written, \d long captions written", r"1 of 1 shards .*"]
CAPTIONING = [r" *\d+%\|.*image/s\]", r"\d problems \(.*\), listed in out/problems.jsonl"]


DEBUGGING = "debug run.steps=1 data.evaluation=none data.num_workers=64 output_dir"  # there are few CPUs for 64


@pytest.mark.wide
def test_the_commands(tmp_path):
    suite = "run scenes --model vladva-tiny --data-root data --scene-pictures 8 --num-workers 64"
    code = calls("vladva_benchmarks", suite, suite, "report results --out report.md")
    code += calls("vladva_training", f"{DEBUGGING}=run")
    lines = check(code, tmp_path, [*SUITE, *REPORT], [NOTICE, *DEBUG])
    assert lines.count("results: 16 files in results") == 2
    assert len(list((tmp_path / "results").glob("*.json"))) == 16


@pytest.mark.wide
def test_more_commands(fitting, tmp_path):
    """Speed, training of all weights, and captioning, whose chat model's files ask for sampling."""
    speed = ["throughput --batch-size 2 --batches 1 --repeats 1"]
    speed += ["zero-shot --classes 2 --templates 2 --json figures.json"]
    code = calls("vladva_benchmarks", *speed) + calls("vladva_training", f"{DEBUGGING}=full model.train=full")
    code += captioning(fitting, tmp_path)
    out = [*SPEED, *TABLE, r"figures: figures.json", *CAPTIONED]
    lines = check(code, tmp_path, out, [*WAYS, NOTICE, *DEBUG, *CAPTIONING])
    assert "figures: figures.json" in lines


def captioning(fitting: dict[str, Path], place: Path) -> str:
    """Write models and two pictures; return the code that captions them."""
    tiny_blip2.write_blip2(place / "blip2")
    edit_json(fitting["qwen2_vl"] / "generation_config.json", do_sample=True, temperature=0.01, top_k=1, top_p=0.001)
    for number in (1, 2):
        Image.new("RGB", (40 + number, 50), "red").save(place / f"{number}.png")
    rows = [json.dumps({"image": f"{number}.png", "captions": []}) for number in (1, 2)]
    (place / "pairs.jsonl").write_text("\n".join(rows) + "\n")
    command = f"caption jsonl:pairs.jsonl --output out --short-model blip2 --long-model {fitting['qwen2_vl']}"
    command += f" --tokenizer {fitting['llava']} --short-new-tokens 5 --long-new-tokens 4"
    return calls("vladva_training", command).replace("== 0", "in (0, 1)")  # random weights write no long caption


ANY = [r".*"]  # where reports are long, stdout is not listed; libraries' lines go to stderr


@pytest.mark.slow
def test_the_tiny_bases_own_commands(tmp_path):
    commands = ["pretrain-tiny-vision --output-dir vision --steps 1"]
    commands += ["pretrain-tiny --vision vision/vision.safetensors --output-dir base --steps 1 --image-rows 8"]
    commands += ["evaluate-tiny --base base/base --scenes 4"]
    check(calls("vladva_training", *commands), tmp_path, ANY, [NOTICE])


@pytest.mark.slow
def test_the_users_command(tmp_path):
    commands = ["models", "quickstart", "export vladva-tiny exported", "card vladva-tiny --output card.md"]
    check(calls("vladva_clip", *commands), tmp_path, ANY)
