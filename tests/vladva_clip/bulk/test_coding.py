"""Quantized outputs: the codes of sentence-transformers, and indexes that search reads as they are."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from safetensors.numpy import load_file

from vladva_clip import cli
from vladva_clip.bulk import embedding, request
from vladva_clip.bulk.filling import fill
from vladva_clip.bulk.job import opened
from vladva_clip.index import search, store
from vladva_clip.index.embed import probes

pytestmark = pytest.mark.usefixtures("small_parts")
TEXTS = ["a red circle", "a green star"]


def embed(output: Path, tiny, quantized: str | None) -> embedding.Done:
    asked = request.Request(["pictures"], TEXTS, os.getcwd())
    with embedding.working_folder(output, asked, int) as folder:
        collections = request.collections(folder)
        made_by = {"directory": os.getcwd(), **probes(tiny.model, tiny.preprocess, tiny.tokenizer)}
        job = opened(folder, [len(one) for one in collections], made_by)
        fill(job, collections, tiny, job.missing(), int)
        return embedding.finish(output, job, collections, tiny, quantized=quantized)


@pytest.fixture
def features(folder, tiny) -> np.ndarray:
    embed(Path("whole.npz"), tiny, None)
    return store.load(Path("whole.npz")).features


def quantized(features: np.ndarray, precision: str) -> np.ndarray:
    from sentence_transformers import quantize_embeddings

    ranges = np.stack([features.min(0), features.max(0)]) if precision == "int8" else None
    return quantize_embeddings(features, precision=precision, ranges=ranges)


@pytest.mark.wide
@pytest.mark.parametrize(("precision", "theirs"), [("int8", "int8"), ("binary", "ubinary")])
class TestFiles:
    def test_the_codes_are_those_of_sentence_transformers(self, folder, tiny, features, precision, theirs):
        expected = quantized(features, theirs)
        for suffix in ("npz", "safetensors", "parquet"):
            embed(Path(f"a.{suffix}"), tiny, precision)
        assert (np.load("a.npz")["features"] == expected).all()
        assert (load_file("a.safetensors")["features"] == expected).all()
        table = pyarrow.parquet.read_table("a.parquet")
        rows = [row for row in table["features"].to_pylist() if row is not None]
        assert rows == expected.tolist() and table["features"].null_count == 1
        assert json.loads(table.schema.metadata[b"made_by"])["quantized"] == precision

    def test_search_ranks_by_what_the_codes_stand_for(self, folder, tiny, features, precision, theirs):
        embed(Path("a.npz"), tiny, precision)
        index = store.load(Path("a.npz"))
        query = features[3]
        decoded = np.where(features > 0, 1.0, -1.0) if precision == "binary" else features
        decoded = decoded / np.linalg.norm(decoded, axis=1, keepdims=True)
        bound = 1e-6 if precision == "binary" else 0.01
        assert np.abs(search.cosines(index.features, query) - decoded @ query).max() < bound
        assert search.ranked(index, query, 1, None)[0].name == index.names[3]

    def test_saved_again_it_is_the_same(self, folder, tiny, precision, theirs):
        embed(Path("a.npz"), tiny, precision)
        store.save(store.load(Path("a.npz")), Path("b.npz"))
        a, b = np.load("a.npz"), np.load("b.npz")
        assert sorted(a.files) == sorted(b.files) and all((a[name] == b[name]).all() for name in a.files)

    def test_it_is_not_extended(self, folder, tiny, precision, theirs, capsys):
        embed(Path("a.npz"), tiny, precision)
        before = Path("a.npz").read_bytes()
        assert cli.main(["embed", "pictures", "--out", "a.npz", "--extend"]) == 2
        assert "a quantized index can't be extended" in capsys.readouterr().err
        assert Path("a.npz").read_bytes() == before

    def test_arrays_of_another_coding_are_refused(self, folder, tiny, precision, theirs):
        embed(Path("a.npz"), tiny, precision)
        arrays = dict(np.load("a.npz"))
        for change in (
            {"features": arrays["features"][:, 1:]},
            {"features": arrays["features"].astype(np.int16)},
            {"made_by": np.array(json.dumps(json.loads(str(arrays["made_by"])) | {"quantized": "int4"}))},
            {"made_by": np.array(json.dumps(json.loads(str(arrays["made_by"])) | {"quantized": None}))},
            {"ranges": np.full((2, 256), np.nan, np.float32)},
        ):
            np.savez("b.npz", **(arrays | change))
            with pytest.raises(ValueError, match=r"b\.npz can't be read as an index"):
                store.load(Path("b.npz"))


@pytest.mark.parametrize("precision", [None, "int8", "binary"])
def test_nothing_that_can_be_read_is_an_empty_index(folder, precision):
    more = ["--quantize", precision] if precision else []
    assert cli.main(["embed", "pictures/7.png", "--out", "a.npz", "--model", "vladva-tiny", *more]) == 1
    assert not Path("a.npz.parts").exists() and len(np.load("a.npz")["kinds"]) == 0
    assert json.loads(Path("a.npz.failures.jsonl").read_text())["name"] == "pictures/7.png"


def test_a_reason_with_bytes_that_are_no_text_is_written(folder):
    """The reason names the file, and its name is not UTF-8."""
    place = Path(os.fsdecode(b"pictures/\xff.jpg"))
    with place.open("wb") as file:
        file.truncate((1 << 30) + 1)
    assert cli.main(["embed", "pictures", "--out", "a.parquet", "--model", "vladva-tiny", "--workers", "0"]) == 1
    rows = pyarrow.parquet.read_table("a.parquet").to_pylist()
    (row,) = [row for row in rows if row["name_bytes"] is not None]
    assert "too large" in row["error"] and len([row for row in rows if row["features"]]) == 9


class TestCommands:
    @pytest.mark.parametrize("more", [[], ["--quantize", "int8"], ["--quantize", "binary"]])
    def test_a_cut_and_quantized_index_is_searched(self, folder, capsys, more):
        assert cli.main(["embed", "pictures", "--out", "a.npz", "--truncate-dim", "64", *more]) == 1  # a broken picture
        index = store.load(Path("a.npz"))
        assert index.features.shape == (9, 64) and index.made_by["truncate_dim"] == 64
        capsys.readouterr()
        assert cli.main(["search", "a.npz", "pictures/2.png", "--image", "--no-sheet", "--top", "1"]) == 0
        assert "pictures/2.png" in capsys.readouterr().out

    def test_a_cut_index_is_extended_at_its_width(self, folder):
        cli.main(["embed", "pictures/2.png", "--out", "a.npz", "--truncate-dim", "64"])
        assert cli.main(["embed", "pictures/2.png", "pictures/4.png", "--out", "a.npz", "--extend"]) == 0
        assert store.load(Path("a.npz")).features.shape == (2, 64)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--truncate-dim", "257"], "truncate_dim is 257, expected a whole number from 1 to 256"),
            (["--quantize", "int4"], "'int4' is not one of 'int8', 'binary'"),
            (["--replicas", "2"], "--replicas is for --engine ray"),
        ],
    )
    def test_wrong_words(self, folder, capsys, words, said):
        assert cli.main(["embed", "pictures", "--out", "a.npz", *words]) == 2
        assert said in capsys.readouterr().err
        assert not Path("a.npz").exists() and not Path("a.npz.parts").exists()
