import gzip
import re
import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.text import (
    decode,
    is_reserved,
    missing_words,
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
    text = "a\u00a0b\u3000c\u200bd\ufeffe\x07f\tg h▁i▅j"
    assert odd_characters(text) == ["\u00a0", "\u3000", "\u200b", "\ufeff", "\x07", "▁", "▅"]
    assert without_odd_characters(text) == "a b cde f\tg h_i_j"
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
        (gzip.compress(b"words", mtime=0), "x: compressed by gzip; unpack it: gunzip < FILE > NEW"),
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


@pytest.mark.parametrize(
    "content", ["wörds\n".encode("utf-16"), gzip.compress("wörds\n".encode(), mtime=0)]
)
def test_the_commands_of_messages_help(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_text(tmp_path / "x")
    command = str(error.value).partition("it: ")[2].replace("FILE", "x").replace("NEW", "y")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert read_text(tmp_path / "y") == "wörds\n"


def test_words_that_another_side_lacks():
    said = {"hello": 3, "a": 1, "yes": 6}
    assert missing_words(said, {"hello", "a", "yes", "no"}, "the lexicon", "the text") == ""
    assert missing_words(said, {"HELLO", "yes"}, "the lexicon", "the text") == (
        "the lexicon lacks 2 of the 3 words of the text (40.00% of its length), e.g. hello, which "
        "is HELLO there"
    )
    assert missing_words(dict.fromkeys(said, 1), {"yes"}, "lm", "the text") == (
        "lm lacks 2 of the 3 words of the text, e.g. a"
    )
    with pytest.raises(
        UserError, match="lm has none of the 3 words of the text: lm has YES, the text"
    ):
        missing_words(said, {"YES", "b"}, "lm", "the text")
    with pytest.raises(UserError, match="lm has b, the text yes; write words the same"):
        missing_words(said, {"b", "c"}, "lm", "the text")
    with pytest.raises(UserError, match="lm has no word"):
        missing_words(said, (), "lm", "the text")


@given(st.binary())
def test_bytes_are_text_or_a_value_error(content: bytes):
    try:
        text = decode(content)
    except ValueError:
        return
    assert text.encode("utf-8") == content.removeprefix(b"\xef\xbb\xbf")
