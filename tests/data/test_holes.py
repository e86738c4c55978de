import pytest
from hypothesis import given
from hypothesis import strategies as st

from plateau.data.holes import parse_holes

TEXT = st.text(st.sampled_from("ab _[]?(,\n\t\u00a0é"), max_size=30)


@given(TEXT)
def test_pieces_are_the_text_to_the_last_byte(text):
    holed = parse_holes(text)
    marks = [[piece.mark] for piece in holed.pieces if piece.is_hole]
    assert holed.filled(marks) == text


@given(TEXT, TEXT)
def test_a_hole_between_texts_is_found(before, after):
    holed = parse_holes(f"{before} [?] {after}")
    number = len(before.split())
    assert holed.pieces[number].mark == "[?]"
    rest = [piece.mark for n, piece in enumerate(holed.pieces) if n != number]
    words = [[mark] for mark in [*rest[:number], "W", *rest[number:]] if mark]
    assert holed.filled(words) == f"{before} W {after}"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("___", "NEW WORD"),
        ("_______", "NEW WORD"),
        ("[?]", "NEW WORD"),
        ("[Inaudible].", "NEW WORD."),
        ("(___),", "(NEW WORD),"),
        ("__", None),
        ("[inaudible", None),
        ("snake_case", None),
    ],
)
def test_marks(word, expected):
    holed = parse_holes(f" so  {word}\n")
    assert [piece.is_hole for piece in holed.pieces] == [False, expected is not None]
    words = [["NEW", "WORD"]] if expected else []
    assert holed.filled(words) == f" so  {expected or word}\n"


def test_other_marks():
    holed = parse_holes("a ___ XXX xxx", marks=("XXX",))
    assert [piece.is_hole for piece in holed.pieces] == [False, False, True, True]


def test_words_can_be_made_holes():
    holed = parse_holes("one  two, [?]").with_holes([1])
    assert holed.filled([["2"], ["3", "4"]]) == "one  2 3 4"
