"""Names and texts of strangers on one line of a terminal."""

import pytest

from vladva_clip.commands import output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines", "two\\nlines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("cat\u202egpj.exe", "cat\\u202egpj.exe"),
        ("\u2067שלום\u2069", "\\u2067שלום\\u2069"),
        ("שלום 👩\u200d🔬 é", "שלום 👩\u200d🔬 é"),
    ],
)
def test_what_drives_a_terminal_is_escaped(text, shown):
    assert output.plain(text) == shown


def test_an_error_keeps_its_lines_and_nothing_else_that_drives_a_terminal(capsys):
    output.error("a\x1b[2J.png is wrong:\n  b\rc")
    assert capsys.readouterr().err == "vladva: a\\x1b[2J.png is wrong:\n  b\\rc\n"
