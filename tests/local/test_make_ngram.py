import math
import unicodedata

import pytest

from plateau.config import UserError, cli
from plateau.ngram import estimate

TEXT = "u1 the cat\nu2  the\tdog \nu3\nu4 caf\u0065\u0301\n"
SENTENCES = [["the", "cat"], ["the", "dog"], ["caf\u00e9"]]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_it_writes_the_model_of_normalised_sentences(load_script, text, tmp_path, capsys):
    arpa = tmp_path / "lm" / "2gram.arpa"
    cli(load_script("make_ngram").main, [str(text), str(arpa), "--order", "2"])
    # the, cat, dog, café, start and end; u3 says nothing
    assert capsys.readouterr().out == f"{arpa}: 6 1-grams, 7 2-grams of 3 sentences\n"
    written = arpa.read_text(encoding="utf-8")
    assert written == unicodedata.normalize("NFC", written)
    estimate(SENTENCES, 2).write_arpa(tmp_path / "expected")
    assert written == (tmp_path / "expected").read_text(encoding="utf-8")
    assert [path.name for path in arpa.parent.iterdir()] == ["2gram.arpa"]


def test_a_byte_order_mark_and_carriage_returns_are_no_words(load_script, text, tmp_path):
    for name, content in (("a", TEXT.encode()), ("b", b"\xef\xbb\xbf" + TEXT.encode())):
        text.write_bytes(content.replace(b"\n", b"\r\n") if name == "b" else content)
        load_script("make_ngram").main(text, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_it_measures_perplexity(load_script, text, tmp_path, capsys):
    test = tmp_path / "other_text"  # of any name
    test.write_text("x the bird\n")
    load_script("make_ngram").main(text, tmp_path / "lm.arpa", test=test)
    model = estimate(SENTENCES, 3)
    probs = [model.prob("the", ["<s>"]), model.prob("</s>", [])]  # after an unseen word
    expected = math.exp(-sum(map(math.log, probs)) / 2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"{test}: perplexity {expected:.4g}, 1 of 2 words unknown, left out"


@pytest.mark.parametrize(
    ("content", "order", "message"),
    [
        (None, 3, "text: no such file"),
        (b"", 3, "text: no words"),
        (b"u1\nu2 \n", 3, "text: no words"),
        (b"u1 a\nu2 \xff\n", 3, "text: not UTF-8: line 2"),
        (b"\xff\xfeu\x001\x00", 3, "text: UTF-16, not UTF-8"),
        (b"u1 a <s>\n", 3, "text: the word '<s>' is a name that tools"),
        (b"u1 a\n", 0, "order of the n-grams is 0; give 1 to 5"),
        (b"u1 a\n", 6, "order of the n-grams is 6; give 1 to 5"),
    ],
)
def test_user_errors(load_script, text, tmp_path, content, order, message):
    text.unlink()
    if content is not None:
        text.write_bytes(content)
    arpa = tmp_path / "lm.arpa"
    arpa.write_text("as it was")
    with pytest.raises(UserError, match=message):
        load_script("make_ngram").main(text, arpa, order)
    assert arpa.read_text() == "as it was"


def test_missing_test_text_is_named_before_the_model_is_written(load_script, text, tmp_path):
    with pytest.raises(UserError, match="none: no such file"):
        load_script("make_ngram").main(text, tmp_path / "lm.arpa", test=tmp_path / "none")
    assert not (tmp_path / "lm.arpa").exists()
