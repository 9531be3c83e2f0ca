"""`vladva-train caption --short-count`: the command with a real (tiny, random) BLIP-2."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vladva_training.data.specs as specs
from tests.support.models.tiny_blip2 import write_blip2
from vladva_training.captioning.command import main as caption_main
from vladva_training.captioning.several import plain
from vladva_training.data.specs import open_source

COUNT, OWN = 3, ["a red circle", "a dog left of a cat"]


@pytest.fixture(scope="module")
def models(tmp_path_factory, bases) -> dict[str, Path]:
    return {"short": write_blip2(tmp_path_factory.mktemp("blip2"), seed=3), "long": bases["llava"]}


@pytest.fixture
def pairs(tmp_path) -> Path:
    """Six pictures with no, one or two captions of their own."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    rows = []
    for number, one in enumerate(pixels):
        Image.fromarray(one).resize((28, 28), Image.Resampling.NEAREST).save(tmp_path / f"{number}.png")
        rows.append({"image_path": f"{number}.png", "captions": OWN[: number % 3]})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "pairs.jsonl"


@pytest.fixture
def caption(models, pairs):
    """Runs the command on the six pictures, two to a shard."""

    def run(output: Path, *further: str, count: int = COUNT) -> int:
        arguments = [f"jsonl:{pairs}", "--output", str(output), "--device", "cpu", "--num-workers", "0"]
        arguments += ["--fill", "short", "--short-model", str(models["short"]), "--long-model", str(models["long"])]
        arguments += ["--short-new-tokens", "9", "--long-new-tokens", "40", "--tokenizer", str(models["long"])]
        arguments += ["--short-max-tokens", "20", "--batch-size", "2", "--samples-per-shard", "2"]
        return caption_main([*arguments, *(["--short-count", str(count)] if count > 1 else []), *further])

    return run


def shards(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob("*.tar")}


def samples(output: Path) -> list[dict]:
    found = []
    for path in sorted(output.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [json.load(tar.extractfile(name)) for name in tar.getnames() if name.endswith(".json")]
    return found


def test_each_image_ends_with_so_many_different_short_captions(caption, models, tmp_path, capsys):
    assert caption(tmp_path / "out") == 0
    for number, sample in enumerate(samples(tmp_path / "out")):
        own = OWN[: number % 3]
        assert sample["captions"][: len(own)] == own
        assert len({plain(text) for text in sample["captions"]}) == len(sample["captions"]) == COUNT
        assert sample["caption_authors"] == [None] * len(own) + [str(models["short"])] * (COUNT - len(own))
    assert "12 short captions written" in capsys.readouterr().out
    assert len(open_source(f"wds:{tmp_path / 'out'}").captions(0)) == COUNT


class Interrupted:
    """A source that is interrupted at its fourth record, the second of the second shard."""

    def __init__(self, source):
        self.source, self.name = source, source.name

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        if index == 3:
            raise KeyboardInterrupt
        return self.source[index]


def test_batches_parts_workers_and_interruptions_change_no_byte(caption, tmp_path):
    assert caption(tmp_path / "whole") == 0
    whole = shards(tmp_path / "whole")
    assert len(whole) == 3
    for size in ("1", "5"):
        assert caption(tmp_path / size, "--batch-size", size) == 0
        assert shards(tmp_path / size) == whole
    assert caption(tmp_path / "parts", "--part", "1/2", "--num-workers", "2") == 0
    assert caption(tmp_path / "parts", "--part", "0/2") == 0
    assert shards(tmp_path / "parts") == whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(specs, "open_source", lambda spec: Interrupted(open_source(spec)))
        assert caption(tmp_path / "resumed") == 130
    assert caption(tmp_path / "resumed") == 0
    assert shards(tmp_path / "resumed") == whole


def test_temperature_and_nucleus_change_the_captions(caption, tmp_path):
    for name, further in {"as it is": (), "cold": ("--temperature", "0.5"), "narrow": ("--top-p", "0.5")}.items():
        assert caption(tmp_path / name, *further) in (0, 1)
    assert len({str(shards(tmp_path / name)) for name in ("as it is", "cold", "narrow")}) == 3


def test_a_manifest_without_these_settings_is_one_of_a_single_caption(caption, tmp_path, capsys):
    assert caption(tmp_path / "out", count=1) == 0
    manifest = tmp_path / "out" / "manifest.json"
    before = manifest.read_bytes()
    assert not {"short_count", "temperature", "top_p"} & set(json.loads(before))
    assert caption(tmp_path / "out", "--short-count", "1", count=1) == 0
    assert caption(tmp_path / "out") == 2
    assert "short_count was 1, is 3" in capsys.readouterr().err and manifest.read_bytes() == before
    assert caption(tmp_path / "several") == 0
    stated = json.loads((tmp_path / "several" / "manifest.json").read_text())
    assert (stated["short_count"], stated["temperature"], stated["top_p"]) == (COUNT, 1.0, 0.9)
    assert caption(tmp_path / "several", "--top-p", "0.8") == 2
    assert "top_p was 0.9, is 0.8" in capsys.readouterr().err


def test_long_captions_are_not_sampled(caption, models, tmp_path):
    def long_ones(name: str) -> list[list[str]]:
        pairs = [zip(one["captions"], one["caption_authors"], strict=True) for one in samples(tmp_path / name)]
        return [[text for text, author in one if author == str(models["long"])] for one in pairs]

    assert caption(tmp_path / "one", "--fill", "both", count=1) in (0, 1)
    assert caption(tmp_path / "several", "--fill", "both") in (0, 1)
    assert any(long_ones("one")) and long_ones("several") == long_ones("one")


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (["--short-count", "0"], "--short-count is 0"),
        (["--fill", "long"], "--fill is long"),
        (["--num-beams", "3"], "--num-beams is 3"),
        (["--top-p", "0"], "--top-p is 0"),
        (["--top-p", "1.5"], "--top-p is 1.5"),
        (["--temperature", "-1"], "--temperature is -1"),
        (["--temperature", "nan"], "--temperature is nan"),
        (["--short-count", "1", "--top-p", "0.8"], "set --short-count above 1"),
    ],
)
def test_settings_of_sampling_that_can_not_work_are_refused(caption, tmp_path, capsys, further, said):
    assert caption(tmp_path / "out", *further) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
