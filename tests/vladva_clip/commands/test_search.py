"""`vladva embed`, `search` and `similarity` beside the encoders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vladva_clip import cli

TEXTS = ["a red circle left of a blue square", "a green star above a yellow triangle"]
TINY = ["--model", "vladva-tiny"]


def image_features(loaded, paths):
    model, preprocess, _ = loaded
    with torch.no_grad():
        images = torch.stack([preprocess(Image.open(path)) for path in paths])
        return model.encode_image(images, normalize=True).double().numpy()


def text_features(loaded, texts):
    model, _, tokenizer = loaded
    with torch.no_grad():
        return model.encode_text(tokenizer(texts), normalize=True).double().numpy()


@pytest.fixture
def index(scenes, capsys) -> str:
    assert cli.main(["embed", str(scenes), *("--text", TEXTS[0], "--text", TEXTS[1]), "--out", "all.npz", *TINY]) == 0
    assert capsys.readouterr().out == "all.npz: 10 rows of 256 dimensions\n"
    return "all.npz"


def found(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


class TestEmbed:
    def test_the_file_is_numpys_and_has_the_encoders_features(self, index, scenes, loaded):
        with np.load(index) as stored:
            features, kinds = stored["features"], stored["kinds"].tolist()
            names = json.loads(bytes(stored["names"]))
        paths = sorted(scenes.iterdir())
        assert features.dtype == np.float32 and kinds == ["image"] * 8 + ["text"] * 2
        assert names == [*map(str, paths), *TEXTS]
        expected = np.concatenate([image_features(loaded, paths), text_features(loaded, TEXTS)])
        assert np.abs(features - expected).max() < 1e-5

    def test_a_broken_picture_costs_only_its_row(self, scenes, capsys):
        broken = sorted(scenes.iterdir())[5]
        broken.write_bytes(b"")
        assert cli.main(["embed", str(scenes), "--out", "x.npz", *TINY, "--json"]) == 1
        out, err = capsys.readouterr()
        said = json.loads(out)
        assert 0 < said.pop("busy") <= 1 and said == {"index": "x.npz", "rows": 7, "dimensions": 256, "failed": 1}
        assert f"1 of 8 items failed:\n  {broken}: " in err

    def test_what_exists_is_kept_unless_asked(self, index, scenes, capsys):
        assert cli.main(["embed", str(scenes), "--out", index, "--model", "no-such-model"]) == 2
        assert "--overwrite" in capsys.readouterr().err
        assert cli.main(["embed", str(scenes), "--out", index, "--overwrite", *TINY]) == 0

    @pytest.mark.parametrize("out", ["scenes", "scenes.txt", "file/x.npz"])
    def test_an_impossible_place_is_said_before_any_work(self, scenes, out, capsys):
        (scenes.parent / "file").write_text("")
        assert cli.main(["embed", str(scenes), "--out", out, "--model", "no-such-model"]) == 2
        assert "no-such-model" not in capsys.readouterr().err

    def test_texts_come_from_a_file(self, scenes, loaded):
        (scenes.parent / "texts.txt").write_bytes("\ufeffa red circle\r\n\r\na green star\r\n".encode())
        assert cli.main(["embed", "--texts", "texts.txt", "--out", "t.npz", *TINY]) == 0
        with np.load("t.npz") as stored:
            names = json.loads(bytes(stored["names"]))
            assert names == ["a red circle", "a green star"]
            assert np.abs(stored["features"] - text_features(loaded, names)).max() < 1e-5


class TestSearch:
    def test_a_text_finds_its_pictures_in_the_exact_order(self, index, scenes, loaded, capsys):
        assert cli.main(["search", index, TEXTS[0], "--json", "--no-sheet"]) == 0
        rows = found(capsys)
        paths = sorted(scenes.iterdir())
        scores = image_features(loaded, paths) @ text_features(loaded, TEXTS[:1])[0]
        order = np.argsort(-scores)
        assert [row["name"] for row in rows] == [str(paths[place]) for place in order]
        assert [row["score"] for row in rows] == pytest.approx(scores[order].tolist(), abs=1e-5)
        assert [row["rank"] for row in rows] == [*range(1, 9)] and {row["kind"] for row in rows} == {"image"}

    def test_a_picture_finds_itself_first_and_a_sheet_is_drawn(self, index, scenes, capsys):
        picture = str(sorted(scenes.iterdir())[2])
        assert cli.main(["search", index, "--image", picture, "--top", "3", "--sheet", "found.png"]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0] == f"  1  +1.0000  {picture}" and said[3:] == ["contact sheet: found.png"]
        with Image.open("found.png") as sheet:
            assert sheet.format == "PNG" and picture in sheet.text["Description"]

    def test_texts_are_found_too(self, index, capsys):
        assert cli.main(["search", index, TEXTS[1], "--kind", "text", "--json"]) == 0
        rows = found(capsys)
        assert rows[0]["name"] == TEXTS[1] and rows[0]["score"] == pytest.approx(1, abs=1e-5) and len(rows) == 2
        assert cli.main(["search", index, TEXTS[1], "--kind", "any", "--no-sheet", "--json"]) == 0
        assert len(found(capsys)) == 10

    def test_a_text_is_never_opened_as_a_path(self, index, scenes, capsys):
        picture = str(sorted(scenes.iterdir())[2])
        assert cli.main(["search", index, picture, "--json", "--no-sheet"]) == 0
        out, err = capsys.readouterr()
        assert "add --image" in err and json.loads(out.splitlines()[0])["score"] < 0.99

    def test_a_query_may_be_longer_than_any_path(self, index, capsys):
        assert cli.main(["search", index, "a red circle " * 400, "--json", "--no-sheet"]) == 0
        assert len(found(capsys)) == 8

    def test_another_model_is_refused(self, index, capsys):
        assert cli.main(["search", index, "a red circle", "--pretrained", "base"]) == 2
        assert "those of vladva-tiny:base" in capsys.readouterr().err

    @pytest.mark.parametrize("place", ["all.npz", "picture.png", "notes.txt"])
    def test_a_sheet_replaces_no_other_file(self, index, scenes, place, capsys):
        sorted(scenes.iterdir())[0].rename("picture.png")
        Path("notes.txt").write_text("mine")
        before = Path(place).read_bytes()
        assert cli.main(["search", index, "a red circle", "--sheet", place, "--model", "no-such-model"]) == 2
        said = capsys.readouterr().err
        assert place in said and "no-such-model" not in said and Path(place).read_bytes() == before

    def test_a_sheet_replaces_an_earlier_sheet(self, index):
        for query in TEXTS:
            assert cli.main(["search", index, query, "--sheet", "found.png"]) == 0
        with Image.open("found.png") as sheet:
            assert sheet.text["Description"].startswith(f"query: {TEXTS[1]}")

    @pytest.mark.parametrize("words", [["a", "--kind", "text"], ["none.png", "--image"], [""]])
    def test_a_query_that_can_find_nothing_is_refused_before_the_model_loads(self, scenes, words, capsys):
        assert cli.main(["embed", str(scenes), "--out", "x.npz", *TINY]) == 0
        capsys.readouterr()
        assert cli.main(["search", "x.npz", *words, "--model", "no-such-model"]) == 2
        assert "no-such-model" not in capsys.readouterr().err

    def test_a_name_is_one_line_whatever_is_in_it(self, scenes, capsys):
        sorted(scenes.iterdir())[0].rename(scenes / "new\nline\x1b[31m.png")
        assert cli.main(["embed", str(scenes), "--out", "x.npz", *TINY]) == 0
        capsys.readouterr()
        assert cli.main(["search", "x.npz", "a red circle", "--no-sheet"]) == 0
        said = capsys.readouterr().out
        assert said.count("\n") == 8 and "\x1b" not in said and "new\\nline\\x1b[31m.png" in said

    def test_pictures_are_found_from_another_folder(self, index, scenes, tmp_path_factory, monkeypatch, capsys):
        path = scenes.absolute().parent / index
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        assert cli.main(["search", str(path), "a red circle"]) == 0
        assert "failed" not in capsys.readouterr().err

    def test_a_vanished_picture_is_reported(self, index, scenes, capsys):
        gone = sorted(scenes.iterdir())[0]
        gone.unlink()
        assert cli.main(["search", index, "a red circle"]) == 1
        assert str(gone) in capsys.readouterr().err

    @pytest.mark.parametrize("content", [b"", b"PK\3\4 not a zip", "a text"])
    def test_a_file_that_is_no_index_is_refused(self, scenes, content, capsys):
        (scenes.parent / "x.npz").write_bytes(content if isinstance(content, bytes) else content.encode())
        assert cli.main(["search", "x.npz", "a"]) == 2
        assert "x.npz" in capsys.readouterr().err


class TestSimilarity:
    def test_pictures_with_texts(self, scenes, loaded, capsys):
        words = [word for text in TEXTS for word in ("--text", text)]
        assert cli.main(["similarity", str(scenes), *words, "--json", *TINY]) == 0
        rows, paths = found(capsys), sorted(scenes.iterdir())
        expected = image_features(loaded, paths) @ text_features(loaded, TEXTS).T
        assert [(row["a"], row["b"]) for row in rows] == [(str(path), text) for path in paths for text in TEXTS]
        assert [row["cosine"] for row in rows] == pytest.approx(expected.ravel().tolist(), abs=1e-5)

    def test_pictures_among_themselves(self, scenes, loaded, capsys):
        paths = sorted(scenes.iterdir())[:3]
        assert cli.main(["similarity", *map(str, paths), *TINY]) == 0
        one, two, three = image_features(loaded, paths)
        said = capsys.readouterr().out.splitlines()
        assert [float(line.split()[0]) for line in said] == pytest.approx(
            [one @ two, one @ three, two @ three], abs=1e-4
        )

    def test_texts_among_themselves(self, loaded, tmp_path, capsys):
        (tmp_path / "t.txt").write_text("\n".join(TEXTS))
        assert cli.main(["similarity", "--texts", str(tmp_path / "t.txt"), "--json", *TINY]) == 0
        one, two = text_features(loaded, TEXTS)
        assert found(capsys) == [{"a": TEXTS[0], "b": TEXTS[1], "cosine": pytest.approx(one @ two, abs=1e-5)}]

    def test_one_picture_alone_is_refused(self, scenes, capsys):
        assert cli.main(["similarity", str(sorted(scenes.iterdir())[0])]) == 2
        assert "--text" in capsys.readouterr().err
