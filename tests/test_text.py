import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.text import (
    decode,
    is_reserved,
    name_of,
    normalise,
    odd_characters,
    read_lines,
    read_text,
    without_odd_characters,
)


@given(st.text())
def test_normalising_twice_changes_nothing(text: str):
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.strip()
    assert "  " not in once


def test_tone_marks_stay():
    decomposed = unicodedata.normalize("NFD", "mwána  \t wa\n")
    assert normalise(decomposed) == "mwána wa"


@pytest.mark.parametrize(
    ("name", "reserved"),
    [("<unk>", True), ("<s>", True), ("#0", True), ("#12", True), ("#", False), ("[unk]", False)],
)
def test_reserved_names(name, reserved):
    assert is_reserved(name) is reserved


def test_odd_characters_are_found_and_taken_out():
    text = "a\u00a0b\u3000c\u200bd\ufeffe\x07f\tg h"
    assert odd_characters(text) == ["\u00a0", "\u3000", "\u200b", "\ufeff", "\x07"]
    assert without_odd_characters(text) == "a b cde f\tg h"
    assert name_of("\u00a0") == "U+00A0 NO-BREAK SPACE"
    assert name_of("\x07") == "U+0007 control character"


@given(st.text())
def test_what_is_taken_out_is_not_found_again(text: str):
    assert odd_characters(without_odd_characters(text)) == []
    # Letters, marks and digits of any script stay.
    assert [c for c in text if c.isalnum()] == [
        c for c in without_odd_characters(text) if c.isalnum()
    ]


def test_text_is_read_with_or_without_a_byte_order_mark(tmp_path):
    for content in (b"\xef\xbb\xbfone\r\ntw\xc3\xb6\r\n", "one\ntwö\n".encode()):
        (tmp_path / "x").write_bytes(content)
        assert read_lines(tmp_path / "x") == ["one", "twö"]
    (tmp_path / "x").write_text("a\u2028b\x0bc\n")
    assert read_lines(tmp_path / "x") == ["a\u2028b\x0bc"]
    (tmp_path / "x").write_bytes(b"")
    assert read_text(tmp_path / "x") == ""
    assert read_lines(tmp_path / "x") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("words".encode("utf-16"), "x: UTF-16, not UTF-8"),
        (b"a\nb\xe4\n", "x: not UTF-8: line 2 has byte 0xe4"),
        (b"a\n\0\n", "x: not a text file: line 2 has a NUL"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)):
        read_text(tmp_path / "x")
    with pytest.raises(UserError, match="no such file"):
        read_text(tmp_path / "y")
    with pytest.raises(UserError, match="Is a directory"):
        read_text(tmp_path)


@given(st.binary())
def test_bytes_are_text_or_a_value_error(content: bytes):
    try:
        text = decode(content)
    except ValueError:
        return
    assert text.encode("utf-8") == content.removeprefix(b"\xef\xbb\xbf")
