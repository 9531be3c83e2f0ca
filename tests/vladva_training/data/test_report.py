import json
from collections import Counter
from pathlib import Path

import pytest

from vladva_training.data.dataset import BadEntry, Notes
from vladva_training.data.report import DataReport, summary_of


def bad(key, reason="corrupt image", source="s"):
    return Notes((BadEntry(source, key, reason, "found"),))


def listed(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_counts_by_reason(tmp_path):
    report = DataReport(tmp_path / "bad.jsonl", max_bad_share=0.5)
    report.add([Notes(), bad("a"), bad("b", "empty caption"), Notes(unused=Counter({"caption too long": 2}))])
    report.add([Notes(), bad("a")])
    assert (report.records, report.bad) == (9, {"corrupt image": 2, "empty caption": 1})
    assert report.bad_share == 3 / 9
    expected = "9 records, 3 bad (corrupt image 2, empty caption 1), 2 captions not used (caption too long 2)"
    assert summary_of([report.counts]) == expected
    other = DataReport(max_bad_share=0.5)
    other.add([Notes(), bad("z")])
    both = summary_of([report.counts, other.counts])
    assert both.startswith("12 records, 4 bad (corrupt image 3, empty caption 1), 2 captions not used")


def test_rows_of_one_picture_are_counted_within_a_batch_and_are_not_bad():
    report = DataReport(max_bad_share=0.0, patience=1)
    report.add([Notes(picture=number) for number in (5, 7, 5, 0, 0, -3, 5, 7)])
    report.add([Notes(picture=number) for number in (5, 8, -3)])
    assert (report.same_picture, report.bad_share) == (5, 0)
    report.add_from_global_batch(same_picture=2, true_negatives=0)
    assert not report.unused
    report.add_from_global_batch(same_picture=0, true_negatives=3)
    both = summary_of([report.counts, report.counts])
    assert both == (
        "22 records, 0 bad, 6 captions not used (hard negative equals a caption 6), "
        "14 rows shared their picture with another row of their batch"
    )


def test_each_is_listed_once_and_a_resumed_run_appends(tmp_path):
    path = tmp_path / "run" / "bad.jsonl"
    report = DataReport(path)
    assert not path.exists()
    report.add([bad("a"), bad("a"), bad("a", "not utf-8"), bad("ä", source="t")])
    assert listed(path)[0] == {"source": "s", "key": "a", "reason": "corrupt image", "detail": "found"}
    DataReport(path).add([bad("a"), bad("c")])
    assert [(e["key"], e["reason"]) for e in listed(path)] == [
        ("a", "corrupt image"),
        ("a", "not utf-8"),
        ("ä", "corrupt image"),
        ("c", "corrupt image"),
    ]


def test_a_line_cut_by_a_crash_spoils_no_other_line(tmp_path):
    path = tmp_path / "bad.jsonl"
    DataReport(path).add([bad("a"), bad("b")])
    path.write_bytes(path.read_bytes()[:-20])
    DataReport(path).add([bad("a"), bad("b")])
    lines = path.read_text().splitlines()
    assert len(lines) == 3 and json.loads(lines[2])["key"] == "b"


def test_too_many_stop_the_run_with_the_list(tmp_path):
    report = DataReport(tmp_path / "bad.jsonl", max_bad_share=0.1, patience=20)
    report.add([bad("a"), bad("b"), *[Notes()] * 10])  # 2 of 14, but too few to judge
    with pytest.raises(ValueError, match=r"4 of 26 records are bad, more than the share 0.1.*bad.jsonl") as caught:
        report.add([bad("c"), bad("d", "empty caption"), *[Notes()] * 8])
    assert "s d: empty caption found" in str(caught.value) and "corrupt image 3" in str(caught.value)
    assert len(listed(report.path)) == 4


def test_a_row_that_was_given_up_stops_the_run_at_once():
    with pytest.raises(ValueError, match="100 records in a row of s are bad"):
        DataReport(max_bad_share=1.0).add([Notes(bad("a").bad * 100, given_up=True)])


def test_exactly_the_allowed_share_is_allowed():
    report = DataReport(max_bad_share=0.5, patience=2)
    report.add([bad("a")])
    assert report.bad_share == 0.5
    with pytest.raises(ValueError, match="more than the share 0"):
        DataReport(max_bad_share=0.0, patience=1).add([bad("a")])


def test_a_list_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(OSError, match="bad records cannot be listed.*run/bad.jsonl"):
        DataReport(tmp_path / "run" / "bad.jsonl").add([bad("a")])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk():
    with pytest.raises(OSError, match="No space left on device.*/dev/full"):
        DataReport("/dev/full").add([bad("a")])
