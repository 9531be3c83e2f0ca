"""The benchmark of `vladva embed` on a few files: the figures come out. No times."""

import json

import pytest

from vladva_benchmarks.speed import bulk


def test_a_folder_has_as_many_pictures_as_asked(tmp_path):
    for count in (3, 1002):
        place = bulk.pictures(tmp_path, count)
        names = [path for path in place.rglob("*.jpg")]
        assert len(names) == count
        assert len({path.stat().st_ino for path in names}) == min(count, bulk.DIFFERENT)


@pytest.mark.wide
def test_figures(tmp_path, capsys):
    bulk.main(["--counts", "2", "5", "--workers", "0", "--json", str(tmp_path / "figures.json")])
    report = json.loads((tmp_path / "figures.json").read_text())
    assert [row["files"] for row in report["folders"]] == [2, 5] and report["features_per_second"] > 0
    for row in report["folders"]:
        assert 0 < row["busy"] <= 1 and 200 < row["peak_mib"] < 8000
        assert row["files_per_second"] == pytest.approx(row["files"] / row["seconds"])
    assert "| 5 |" in capsys.readouterr().out


def test_what_the_command_says_when_it_fails(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="status 2.*no pictures|status 2.*nothing"):
        bulk.embed(tmp_path / "empty", [])
