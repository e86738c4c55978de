import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from plateau.text import normalise


@given(st.text())
def test_normalising_twice_changes_nothing(text: str):
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.strip()
    assert "  " not in once


def test_tone_marks_stay():
    decomposed = unicodedata.normalize("NFD", "mwána  \t wa\n")
    assert normalise(decomposed) == "mwána wa"
