"""No report holds an object's place in memory, whichever source, captioner, suite or error it comes from."""

import json
import pickle
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.samples import picture
from tests.support.training import runs
from vladva_benchmarks.suites import encoding, failures
from vladva_benchmarks.suites.pictures import Picture
from vladva_clip.bulk import decoding
from vladva_clip.interface.addresses import without_addresses
from vladva_clip.records.fields import row_record
from vladva_clip.records.images import decode_image
from vladva_clip.records.records import BadRecord, Record
from vladva_training.captioning.fill import Draft
from vladva_training.data.dataset import ExampleDataset
from vladva_training.data.examples import ExampleMaker
from vladva_training.data.order import Slot
from vladva_training.data.report import DataReport
from vladva_training.processes.errors import RunError
from vladva_training.step.grad_cache import GlobalStep
from vladva_training.train import train

ADDRESS = re.compile("0x[0-9A-Fa-f]{4,}")


class Printed:
    """An object that prints as most do."""


class Mine:
    """A source of one's own, whose pictures and captions are objects."""

    name = "objects in memory"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Record:
        if self.kind == "a picture that fails as it is decoded":
            return Record(str(index), decode_image(Lazy(), str(index)), ("a cat",))
        row = {"image": picture(index), "caption": self._caption()}
        if self.kind == "its own message":
            raise BadRecord("corrupt image", str(Printed()), f"found {Printed()!r}")
        return row_record(row, str(index), Path())

    def _caption(self) -> object:
        return {"an object": Printed(), "a picture": picture(1), "a list": [[Printed(), picture(1)]]}.get(
            self.kind, "cat"
        )


class Lazy(Image.Image):
    def __init__(self) -> None:
        super().__init__()
        self._mode, self._size = "RGB", (8, 8)

    def load(self) -> None:
        raise OSError(f"cannot identify image file {BytesIO()!r}")


KINDS = ("an object", "a picture", "a list", "its own message", "a picture that fails as it is decoded")


@pytest.mark.parametrize("kind", KINDS)
def test_bad_records_hold_no_address(tmp_path, model, tokenizer, preprocess, kind):
    from vladva_training.data.captions import CaptionSplitter

    dataset = ExampleDataset([Mine(kind)], ExampleMaker(CaptionSplitter(tokenizer), preprocess))
    report, path = DataReport(tmp_path / "bad_records.jsonl"), tmp_path / "bad_records.jsonl"
    with pytest.raises(ValueError, match="in a row of objects in memory are bad") as error:
        report.add([dataset[Slot(0, 0, 0, 0)].notes])
    text = path.read_text()
    assert json.loads(text.splitlines()[0])["detail"] and not ADDRESS.search(text + str(error.value)), text


def test_a_bad_record_that_crossed_a_process_border_says_the_same():
    error = BadRecord("corrupt image", "a", f"<Image at {hex(id(0))}>")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "a: corrupt image (<Image>)"


@pytest.mark.parametrize("error", [TypeError(f"found {Printed()!r}"), ValueError(f"found {Printed()!r}\nand more")])
def test_what_ends_a_run_holds_no_address(bases, tmp_path, monkeypatch, capsys, error):
    runs.write_pairs(bases["llava"].parent / "pairs.jsonl")

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(GlobalStep, "__call__", fail)
    recipe = runs.small_recipe(bases["llava"], tmp_path / "run", data={"evaluation": None})
    with pytest.raises(RunError, match="found <.*Printed object>") as caught:
        train(replace(recipe, run=replace(recipe.run, steps=1)))
    details = (tmp_path / "run" / "last_error.txt").read_text()
    assert "Printed object>" in details and not ADDRESS.search(details + str(caught.value) + capsys.readouterr().err)


def test_problems_of_captioning_hold_no_address():
    draft = Draft.of(0, Record("a", picture(0), ()))
    draft.add_problem("image refused", f"blip2: found {Printed()!r}")
    assert draft.problems[0].detail.endswith("Printed object>")


def test_what_a_suite_says_holds_no_address(tmp_path, capsys):
    for error in (ValueError(f"found {Printed()!r}"), OSError(f"found {Printed()!r}")):
        assert failures.describe(error).endswith("Printed object>")
    (tmp_path / "a.png").write_bytes(_png())

    def transform(image: Image.Image) -> torch.Tensor:
        raise TypeError(f"no tensor: {image!r} {Printed()!r}")

    pictures = encoding._Pictures([Picture("a", tmp_path / "a.png")])
    (batch,) = decoding.batches(pictures, [[0]], transform)
    line = batch.rows[0].error
    assert "no tensor: <PIL.Image.Image image mode=RGB size=" in line and not ADDRESS.search(line)


def _png() -> bytes:
    file = BytesIO()
    picture(0).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<PIL.Image.Image image mode=RGB size=8x8 at 0x7F2C01>", "<PIL.Image.Image image mode=RGB size=8x8>"),
        ("<bound method A.f of <A object at 0x7f2c>>", "<bound method A.f of <A object>>"),
        ("[<A object at 0x7f2c>, <A object at 0x00000001F>]", "[<A object>, <A object>]"),
        ("dict {'bytes': <A object at 0x7f", "dict {'bytes': <A object"),
        ("<code object f at 0x7f2c, file 'a.py'>", "<code object f, file 'a.py'>"),
        ("images/at 0xbeef.jpg: FileNotFoundError", "images/at 0xbeef.jpg: FileNotFoundError"),
        ("key 0x7f2c01", "key 0x7f2c01"),
        ("found at 0xbeef/a.png", "found at 0xbeef/a.png"),
    ],
)
def test_only_printed_objects_lose_their_address(text, expected):
    assert without_addresses(text) == expected
