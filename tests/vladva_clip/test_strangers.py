"""Strangers' directories by the thousand, through every way in: each loads rightly or is refused with ValueError.

Each case has a process of its own, one second of CPU time and 200 MB beyond an honest load; it runs nothing, asks
nobody and opens nothing outside its directory. See tests/support/strangers, which also runs a single case by name.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DANGEROUS = (  # hand-made attacks that get a test of their own
    "timm with a pickle as vision_config",
    "timm with a pickle as text_config",
    "timm with a pickle as backbone_config",
    "timm from the Hub as vision_config",
    "timm backbone as vision_config",
    "a named backbone as vision_config",
    "code as vision_config",
    "many experts as text_config",
    "no model type as vision_config",
    "both depths huge",
    "config text.num_hidden_layers = 20000",
    "config text.num_hidden_layers = 1000000000",
    "config attn_implementation = 'org/kernel'",
    "config _attn_implementation = 'org/kernel'",
    "config transformers_weights = '../../outside'",
    "a pattern that matches nothing",
    "a rank that no layer has",
    "adapter_config init_lora_weights = 'pissa_niter_4000'",
    "adapter_config init_lora_weights = 'olora'",
    "adapter_config init_lora_weights = 'orthogonal'",
    "adapter_config init_lora_weights = False",
    r"adapter_config target_modules = '(([a-z_.0-9]+)+)+\\.(q_proj|v_proj)!'",
    "weights: a large unknown tensor",
    "weights: all 1e+38",
    "weights: a pickle",
    "a pickle in place of weights",
    "a pickle NOTICE.txt beside",
    "soft_prompt: all 1e+38",
    "tokenizer.json: the end {'special': False}",
    "tokenizer.json: pre_tokenizer split by (a+)+$",
    "tokenizer.json: a million tokens",
    "tokenizer.json: words beyond the embedding",
    "index: thousands of shards",
    "base/config.json is a pipe",
    "base/tokenizer.json is a pipe",
    "base/model.safetensors is a pipe",
    "base/tokenizer_config.json is a link to zeros",
    "base/config.json is a link to its like outside",
    "base/model.safetensors is a link to its like outside",
    "base/generation_config.json is a link to a secret",
    "SentencePiece alone: is large",
    "an adapter over itself, which is a base too",
    "adapter/adapter_config.json is a pipe",
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the measure of memory is Linux's")


def run(directory: Path, *plans: str, seconds: float = 1800) -> dict:
    command = [sys.executable, "-m", "tests.support.strangers", str(directory), *plans]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def check(report: dict, at_least: int, harmless: float = 0.05) -> None:
    told = [f"{one['name']} ({one['entry']}, {one['done']}): {one['problems']}" for one in report["failures"]]
    assert not told, f"{len(told)} of {sum(report['outcomes'].values())} fail:\n" + "\n".join(told[:40])
    assert set(report["outcomes"]) <= {"right", "ValueError", "late", "foreign"}
    assert report["outcomes"].get("late", 0) < 0.01 * at_least  # what only a caption or an image brings to light
    assert sum(report["outcomes"].values()) >= at_least
    assert report["outcomes"]["ValueError"] > 0.3 * at_least  # the damage is real
    assert report["outcomes"]["right"] > harmless * at_least  # and some of it changes nothing
    assert all(honest["seconds"] < 0.5 for honest in report["honest"].values())


@pytest.fixture(scope="module")
def fast(tmp_path_factory) -> dict:
    """A twentieth of the slow cases, and every dangerous one."""
    return run(tmp_path_factory.mktemp("strangers"), "attacks:0:26", "cases:0:60", "types:0:298", *DANGEROUS)


@pytest.fixture(scope="module")
def slow(tmp_path_factory) -> tuple[dict, dict]:
    """The reports of all cases, and of all model types and classes; in two processes at once."""
    plans = (("attacks:0:1", "cases:0:1200"), ("types:0:1", "classes:0:1"))
    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(lambda asked: run(tmp_path_factory.mktemp("strangers"), *asked), plans))


@pytest.mark.wide
def test_hundreds(fast):
    check(fast, 250)


@pytest.mark.wide
@pytest.mark.parametrize("name", DANGEROUS)
def test_dangerous(fast, name):
    assert not fast["results"][name]["problems"]


@pytest.mark.slow
def test_thousands(slow):
    check(slow[0], 5000)


@pytest.mark.slow
def test_every_model_type_in_every_place_and_every_class(slow):
    """Without a message before a refusal, too."""
    check(slow[1], 7000, harmless=0)


@pytest.mark.slow
def test_a_case_is_the_same_for_the_same_number(fast, slow):
    numbers = [f"case {number}" for number in range(60)]
    assert [fast["results"][name] for name in numbers] == [slow[0]["results"][name] for name in numbers]
