"""Which fields are a caption, a list of captions, missing, or something that must not be trained on."""

import pytest

from vladva_clip.records.fields import row_captions, row_record, texts
from vladva_clip.records.json_rows import json_object
from vladva_clip.records.records import BadRecord, printable


def captions(value):
    return row_captions({"caption": value}, "row 1")


def refusal(call, *arguments):
    with pytest.raises(BadRecord) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize("word", ["None", "nan", "NONE", "Null", "<NA>", "N/A", "NaT", "\\N", " nan ", b"nan", "#REF!"])
def test_a_word_for_a_missing_value_is_not_a_caption(word):
    assert captions(word) == () and captions(["a dog", word]) == ("a dog",)


@pytest.mark.parametrize(
    "text", ["Nan bread on a plate", "None of these dogs bark", "a null sign", "[sic] a dog", '["a"] sign', "No. 5"]
)
def test_captions_that_only_resemble_missing_values_are_captions(text):
    assert captions(text) == (text,)


def test_a_json_list_in_a_cell_is_a_list_of_captions():
    assert captions('["a", "b"]') == captions(' ["a", null, "nan", "b"]\n') == ("a", "b")
    assert captions([b'["a"]', "b"]) == ("a", "b") and captions("[]") == ()
    assert texts({"hard_negatives": '["x", "y"]'}, ("hard_negatives",), "row 1") == ("x", "y")


@pytest.mark.parametrize(
    "value",
    [
        *(
            "['a', 'b']",
            "['a' 'b']",
            "[None, 'a']",
            "('a', 'b')",
            "{'en': 'a'}",
            "b'a dog'",
            '{"en": "a"}',
            "[nan, nan]",
        ),
        *("()", "set()", '["a", "b"', "['a', 'b"),
        *("7", " -3.5e2 ", "inf", "1_000", "[1, 2]", '[["a"]]', 5, True, ["a", ["b"]]),
    ],
)
def test_a_printed_object_is_refused_with_its_value(value):
    error = refusal(captions, value)
    assert error.reason == "wrong type" and "caption holds" in error.detail


def test_a_hostile_caption_is_parsed_fast():
    for text in (f"['a'{' ' * 200_000}x]", f"[nan{' ' * 200_000}x", f"{'[' * 200_000}x]", "9" * 200_000 + "x"):
        assert captions(text) == (text,)


@pytest.mark.parametrize("data", ["a dog".encode("utf-16-le"), "a dog".encode("utf-16"), "caf\xe9".encode("latin-1")])
def test_text_in_another_encoding_is_refused(data):
    error = refusal(captions, data)
    assert error.reason == "not utf-8" and "save it as UTF-8" in error.detail


def test_a_word_for_a_missing_value_is_not_a_path(tmp_path):
    (tmp_path / "nan").write_bytes(b"a file of that name")
    error = refusal(row_record, {"image": "nan", "image_bytes": "None", "caption": "a"}, "row 1", tmp_path)
    assert error.reason == "missing image" and "nan" not in error.detail


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"caption": "a", "caption": "b"}', "duplicate key 'caption'"),
        (b'{"x": {"y": 1, "y": 2}}', "duplicate key 'y'"),
        (b'{"a":' * 100_000, "nested"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b"[1]", "found list"),
    ],
)
def test_json_that_is_ambiguous_or_beyond_python_is_a_bad_record(data, said):
    error = refusal(json_object, data, "line 1")
    assert error.reason == "not json" and said in error.detail


def test_text_beyond_utf8_is_escaped():
    error = BadRecord("missing image", "caf\udce9", "half a sign: \ud83d")
    assert (error.key, error.detail) == ("caf\\udce9", "half a sign: \\ud83d")
    assert str(error).encode() and printable("ä😀") == "ä😀"
