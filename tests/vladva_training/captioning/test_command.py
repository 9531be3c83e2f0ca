"""`vladva-train caption` from end to end, with tiny random BLIP-2 and LLaVA models."""

import json
import os
import shutil
import signal
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import vladva_training.data.specs as specs
from tests.support.models.tiny_blip2 import write_blip2
from tests.support.pictures import strange
from vladva_clip.records.records import Record
from vladva_clip.storage import whole
from vladva_training.captioning.captioners import open_blip2, open_chat
from vladva_training.captioning.command import main as caption_main
from vladva_training.data.specs import open_source

SHORT, OTHER_SHORT = "a red circle", "a dog left of a cat"
LONG = "a small red circle on the left of a large blue square and a green dog above the cat"
ROWS = [(SHORT,), (LONG,), (SHORT, LONG), (), (OTHER_SHORT, SHORT), (), (LONG,)]
SHORT_MAX, SHORT_TOKENS, LONG_TOKENS = 8, 4, 60


@pytest.fixture(scope="module")
def models(tmp_path_factory, bases) -> dict[str, Path]:
    return {"short": write_blip2(tmp_path_factory.mktemp("blip2")), "long": bases["llava"]}


@pytest.fixture
def pairs(tmp_path) -> Path:
    """Seven pictures, some without a short caption, some without a long one, some without any."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for number in range(len(ROWS)):
        Image.effect_mandelbrot((48 + 8 * number, 40), (-2, -1.5 + 0.3 * number, 1, 1.5), 60).save(
            folder / f"{number}.png"
        )
    rows = [{"image_path": f"{number}.png", "captions": captions or [""]} for number, captions in enumerate(ROWS)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def caption(models, pairs):
    """Runs the command on the seven pictures, two to a shard."""

    def run(output: Path, *further: str, source: str = f"jsonl:{pairs / 'pairs.jsonl'}") -> int:
        arguments = [source, "--output", str(output), "--device", "cpu", "--num-workers", "0"]
        arguments += ["--short-model", str(models["short"]), "--long-model", str(models["long"])]
        arguments += ["--short-new-tokens", str(SHORT_TOKENS), "--long-new-tokens", str(LONG_TOKENS)]
        arguments += ["--tokenizer", str(models["long"]), "--short-max-tokens", str(SHORT_MAX)]
        return caption_main([*arguments, "--batch-size", "2", "--samples-per-shard", "2", *further])

    return run


def samples(output: Path) -> list[dict]:
    """What stands in the tars, by their own order."""
    found = []
    for path in sorted(output.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [json.load(tar.extractfile(name)) for name in tar.getnames() if name.endswith(".json")]
    return found


def files(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir()}


def problems(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "problems.jsonl").read_text().splitlines()]


def test_both_kinds_are_filled_where_they_are_missing(caption, models, tmp_path, capsys):
    assert caption(tmp_path / "out") == 0
    found = samples(tmp_path / "out")
    short, long = str(models["short"]), str(models["long"])
    authors = [[None, long], [None, short], [None, None], [short, long], [None, None, long], [short, long]]
    assert [sample["caption_authors"] for sample in found] == [*authors, [None, short]]
    for sample, own in zip(found, ROWS, strict=True):
        assert tuple(sample["captions"][: len(own)]) == own
    assert "7 of 7 records, 4 short captions written, 4 long captions written" in capsys.readouterr().out
    assert sorted(files(tmp_path / "out")) == sorted(
        ["manifest.json", *(f"0000{shard}{end}" for shard in range(4) for end in (".tar", "_stats.json"))]
    )


def test_each_image_gets_its_own_caption(caption, models, pairs, tmp_path):
    assert caption(tmp_path / "out", "--image-format", "png") == 0
    images = [Image.open(pairs / f"{number}.png").convert("RGB") for number in range(len(ROWS))]
    blip2 = open_blip2(str(models["short"]), "", "cpu", "fp32", max_new_tokens=SHORT_TOKENS)
    llava = open_chat(str(models["long"]), "Describe this image in detail.", "cpu", "fp32", max_new_tokens=LONG_TOKENS)
    expected = {str(models["short"]): blip2.caption(images), str(models["long"]): llava.caption(images)}
    assert len(set(expected[str(models["long"])])) > 1  # else the test would prove nothing
    for number, sample in enumerate(samples(tmp_path / "out")):
        for text, author in zip(sample["captions"], sample["caption_authors"], strict=True):
            assert author is None or text == expected[author][number]


def test_an_eps_under_a_pictures_name_is_a_problem_and_starts_nothing(caption, pairs, tmp_path):
    (pairs / "1.png").write_bytes(strange.EPS)
    with strange.ghostscript(tmp_path) as mark:
        assert caption(tmp_path / "out") == 1  # finished, with problems
        assert not mark.exists()
    (problem,) = problems(tmp_path / "out")
    assert problem["reason"] == "image format" and len(samples(tmp_path / "out")) == len(ROWS) - 1


@pytest.mark.parametrize(("kind", "lacking"), [("short", [1, 3, 5, 6]), ("long", [0, 3, 4, 5])])
def test_only_the_kind_asked_for_is_filled(caption, models, tmp_path, kind, lacking):
    nowhere = {"short": "--long-model", "long": "--short-model"}[kind]
    assert caption(tmp_path / "out", "--fill", kind, nowhere, "/nowhere") == 0
    written = [set(sample["caption_authors"]) - {None} for sample in samples(tmp_path / "out")]
    assert written == [{str(models[kind])} if number in lacking else set() for number in range(len(ROWS))]


def test_the_output_is_a_source_with_the_same_images(caption, pairs, tmp_path):
    assert caption(tmp_path / "out", "--image-format", "png") == 0
    before, after = open_source(f"jsonl:{pairs / 'pairs.jsonl'}"), open_source(f"wds:{tmp_path / 'out'}")
    assert len(after) == len(before)
    for number, sample in enumerate(samples(tmp_path / "out")):
        assert after[number].image.tobytes() == before[number].image.tobytes()
        assert list(after[number].captions) == sample["captions"]
        assert sample["source_key"] == before[number].key


class Uncaptioned:
    """Two pictures without any caption."""

    name = "pictures"

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return Record(f"picture {index}", Image.new("RGB", (60, 40), (90 * index, 0, 0)), ())


def test_images_without_any_caption_get_both(caption, tmp_path, monkeypatch):
    monkeypatch.setattr(specs, "open_source", lambda spec: Uncaptioned())
    assert caption(tmp_path / "out") == 0
    assert [len(sample["captions"]) for sample in samples(tmp_path / "out")] == [2, 2]


class Interrupted:
    """A source that is interrupted at its fourth record, the second of the second shard."""

    def __init__(self, source, status):
        self.source, self.name, self.status = source, source.name, status

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        if index == 3 and self.status == 130:
            raise KeyboardInterrupt
        if index == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.source[index]


@pytest.mark.parametrize("status", [130, 143])
def test_an_interrupted_run_resumes_to_the_same_files(caption, tmp_path, capsys, status):
    assert caption(tmp_path / "whole") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(specs, "open_source", lambda spec: Interrupted(open_source(spec), status))
        assert caption(tmp_path / "out") == status
    assert "interrupted" in capsys.readouterr().err
    assert sorted(files(tmp_path / "out")) == ["00000.tar", "00000_stats.json", "manifest.json"]
    first = (tmp_path / "out" / "00000.tar").stat()
    left = tmp_path / "out" / f".00001.tar.writing-{whole._HOST}-0"
    left.mkdir()
    (left / whole.NEW).write_bytes(b"what a killed run leaves")
    (tmp_path / "out" / "00001.tar.lock").touch()
    assert caption(tmp_path / "out") == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert (tmp_path / "out" / "00000.tar").stat().st_mtime_ns == first.st_mtime_ns  # kept, not written again


def test_a_finished_run_needs_no_model_and_a_damaged_shard_is_written_again(caption, models, tmp_path):
    short = shutil.copytree(models["short"], tmp_path / "short")
    assert caption(tmp_path / "out", "--short-model", str(short)) == 0
    before = files(tmp_path / "out")
    hidden = short.rename(tmp_path / "hidden")
    assert caption(tmp_path / "out", "--short-model", str(short)) == 0
    hidden.rename(short)
    (tmp_path / "out" / "00001.tar").write_bytes(b"cut short")
    (tmp_path / "out" / "00002.tar").unlink()
    assert caption(tmp_path / "out", "--short-model", str(short)) == 0
    assert files(tmp_path / "out") == before


def test_parts_and_workers_write_the_same_files(caption, tmp_path):
    assert caption(tmp_path / "whole") == 0
    assert caption(tmp_path / "out", "--part", "1/2") == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["00001.tar", "00003.tar"]
    assert caption(tmp_path / "out", "--part", "0/2", "--num-workers", "2") == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_bad_records_are_listed_and_the_rest_is_done(caption, pairs, tmp_path, capsys):
    (pairs / "2.png").write_bytes(b"no image")
    (pairs / "3.png").unlink()
    assert caption(tmp_path / "out") == 1
    assert [problem["index"] for problem in problems(tmp_path / "out")] == [2, 3]
    assert all(problem["reason"] and problem["key"] for problem in problems(tmp_path / "out"))
    assert len(samples(tmp_path / "out")) == 5
    assert not (tmp_path / "out" / "00001.tar").exists()  # an empty tar is no shard to a reader
    assert "2 problems" in capsys.readouterr().err
    assert caption(tmp_path / "out") == 1  # finished, and still not flawless


def test_a_caption_of_another_length_is_listed_and_not_kept(caption, models, tmp_path):
    assert caption(tmp_path / "out", "--fill", "long", "--long-new-tokens", "3") == 1
    assert [problem["index"] for problem in problems(tmp_path / "out")] == [0, 3, 4, 5]
    assert {problem["reason"] for problem in problems(tmp_path / "out")} == {"caption of another length written"}
    assert [tuple(sample["captions"]) for sample in samples(tmp_path / "out")] == [row for row in ROWS if row]


def test_a_resume_with_other_settings_says_what_differs(caption, tmp_path, capsys):
    assert caption(tmp_path / "out", "--part", "0/4") == 0
    before = files(tmp_path / "out")
    assert caption(tmp_path / "out", "--batch-size", "3", "--long-prompt", "Say much.") == 2
    error = capsys.readouterr().err
    assert "batch_size was 2, is 3" in error and "long_prompt was" in error and "--output" in error
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (["--short-model", "LLAVA"], "is a llava model, expected a blip-2 one"),
        (["--long-model", "BLIP2"], "no chat template"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--tokenizer", "/nowhere"], "/nowhere"),
        (["--device", "abacus"], "'abacus' is not available"),
    ],
)
def test_what_can_not_work_is_refused(caption, models, tmp_path, capsys, further, said):
    places = {"LLAVA": str(models["long"]), "BLIP2": str(models["short"])}
    assert caption(tmp_path / "out", *(places.get(word, word) for word in further)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["jsonl:/nowhere/pairs.jsonl", "jsonl:EMPTY", "tape:/dev/null"])
def test_a_missing_or_empty_source_is_refused(caption, tmp_path, capsys, source):
    (tmp_path / "empty.jsonl").touch()
    assert caption(tmp_path / "out", source=source.replace("EMPTY", str(tmp_path / "empty.jsonl"))) == 2
    assert capsys.readouterr().err.startswith("vladva-train caption: ")
    assert not (tmp_path / "out").exists()


def test_a_directory_with_other_files_is_not_written_to(caption, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photograph.jpg").touch()
    assert caption(tmp_path / "out") == 2
    assert "photograph.jpg" in capsys.readouterr().err
    assert sorted(files(tmp_path / "out")) == ["photograph.jpg"]


def test_half_precision_runs(caption, tmp_path):
    assert caption(tmp_path / "out", "--precision", "bf16", "--part", "1/4") in (0, 1)
    manifest = tmp_path / "out" / "manifest.json"
    written = json.loads(manifest.read_text())
    assert written.pop("precision") == "bf16"
    manifest.write_text(json.dumps({**written, "dtype": "bfloat16"}))  # as earlier versions wrote it
    assert caption(tmp_path / "out", "--precision", "pure_bf16", "--part", "1/4") in (0, 1)


def test_a_trained_model_names_the_objects_through_transformers_own_processor():
    from vladva_clip.scenes import named_pairs, scenes
    from vladva_training.tiny.evaluate import SHIPPED_BASE
    from vladva_training.tiny.tasks import DESCRIBE_LONG

    tiny = open_chat(str(SHIPPED_BASE), DESCRIBE_LONG, "cpu", "fp32", max_new_tokens=110)
    source = open_source("scenes:test:4")
    texts = tiny.caption([source[index].image for index in range(4)])
    right = [named_pairs(text) == scene.pairs for text, scene in zip(texts, scenes("test", 0, 4), strict=True)]
    assert sum(right) >= 3
