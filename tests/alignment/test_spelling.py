import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.alignment.spelling import Speller
from plateau.data.tokens import Tokenizer, TokenOptions, make_lang


@pytest.fixture(scope="module")
def upper(tmp_path_factory) -> Tokenizer:
    """Knows ' A B E H L O R W."""
    folder = tmp_path_factory.mktemp("data") / "lang_char"
    return make_lang(folder, ["HELLO WORE A BEAR'"], TokenOptions("char"))


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("data") / "lang_word"
    return make_lang(folder, ["YES No McBee"], TokenOptions("word"))


@pytest.mark.parametrize(
    ("word", "spelling"),
    [
        ("HELLO", "HELLO"),
        ("Hello,", "HELLO"),
        ("hello", "HELLO"),
        ("«Hello…»", "HELLO"),
        ("re-elbow", "REELBOW"),
        ("bear\u2019", "BEAR'"),  # the model has the plain one
        ("'ello", "'ELLO"),
        ("\ufb02\u00f6", "\ufb02\u00f6"),  # fl, ö: neither is there
        ("hel\u200blo", "HELLO"),
        ("\uff28\uff25", "HE"),  # of full width
        ("–", ""),
        ("'", "'"),
        ("...", ""),
        ("42", "42"),
        ("a&b", "a&b"),
        ("50%", "50%"),
        ("<unk>", "<unk>"),
        ("h\u00e9llo", "h\u00e9llo"),  # another letter than e
    ],
)
def test_words_as_the_letters_of_a_model_have_them(upper, word, spelling):
    speller = Speller(upper)
    assert speller.spelling(word) == spelling
    spelt = upper.tokens.index("<unk>") not in upper.encode(spelling)
    assert speller.encode(word) == upper.encode(spelling)
    assert (spelling != word) == bool(speller.note())
    assert spelt or spelling == word


def test_whole_words_as_tokens(words):
    speller = Speller(words)
    spelt = ["YES", "YES", "No", "No", "McBee", "", "YESNO", "!SIL"]
    said = ["yes", "Yes!", "NO", "no.", "MCBEE", "–", "YESNO", "!SIL"]
    assert [speller.spelling(word) for word in said] == spelt
    assert speller.decode(speller.encode("yes no mcbee.")) == "YES No McBee"
    assert speller.lacking(["maybe", "7"]) == "maybe, 7; it lacks them, and knows: McBee No YES"


def test_letters_in_one_case_only_each(tmp_path):
    tokenizer = make_lang(tmp_path / "lang_char", ["aB"], TokenOptions("char"))
    speller = Speller(tokenizer)
    assert [speller.spelling(word) for word in ("AB", "ab", "bA.")] == ["aB", "aB", "Ba"]


def test_one_line_says_what_was_changed(upper):
    speller = Speller(upper)
    assert speller.note() == ""
    speller.encode("HELLO WORE")
    assert speller.note() == ""
    speller.encode("Hello, HELLO hello Hello,")
    assert speller.note() == "3 words were written as the model has them, e.g. Hello, → HELLO"
    other = Speller(upper)
    other.encode("A – A")
    assert other.note().endswith(
        "1 words were written as the model has them, e.g. – → (nothing, it is punctuation)"
    )


def test_what_is_lacking_is_named(upper):
    speller = Speller(upper)
    assert speller.lacking(["na\u00efve", "42,", "na\u00efve"]) == (
        "na\u00efve, 42,; it lacks n \u00ef v 4 2, and knows: ' A B E H L O R W"
    )


def test_many_letters_are_not_all_shown(tmp_path):
    letters = "".join(chr(0x4E00 + i) for i in range(100))
    tokenizer = make_lang(tmp_path / "lang_char", [letters], TokenOptions("char"))
    assert Speller(tokenizer).lacking(["a"]).endswith(" ".join(letters[:60]) + " …")


@settings(deadline=None, derandomize=True)
@given(text=st.text("HELOWRBA' ", max_size=12))
def test_texts_that_fit_are_as_they_were(upper, text):
    speller = Speller(upper)
    assert speller.encode(text) == upper.encode(text)
    assert speller.note() == ""


@settings(deadline=None, derandomize=True)
@given(text=st.text(max_size=8))
def test_any_text_is_spelt_or_named(upper, text):
    speller = Speller(upper)
    unknown = upper.tokens.index("<unk>")
    for word in text.split():
        if unknown in speller.encode(word):
            assert speller.spelling(word) == word
            assert "it lacks" in speller.lacking([word])
        else:
            assert set(speller.spelling(word)) <= set("HELOWREBA' ")
