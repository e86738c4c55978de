from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.data.lexicon import read_lexicon

PLAIN = {"NO": ["N", "OW"], "YES": ["Y", "EH1", "S"], "a'b": ["A", "B"]}


def lexicon(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "lexicon.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "NO N OW\nYES Y EH1 S\na'b A B\n",
        "NO\tN OW\r\nYES\tY EH1 S\r\n\r\na'b\tA B",
        b"\xef\xbb\xbfNO N OW\nYES  Y EH1 S\na'b A B\n",
        ";;; of the CMU\nNO  N OW\nYES  Y EH1 S\na'b  A B\n",
        # Kaldi's lexiconp.txt, case 08
        "NO\t0.99\tN OW\nYES\t0.5\tY EH1 S\na'b 1 A B\n",
        # Kaldi's lexiconp_silprob.txt and MFA's dictionaries
        "NO 1.0 0.17 1.2 0.9 N OW\nYES 0.99 0.1 2 1e-3 Y EH1 S\na'b .5 0 0 0 A B\n",
        "NO\t1.0\t0.17\t1.2\t0.9\tN OW\nYES\t0.99\t0.1\t2.0\t1\tY EH1 S\na'b\t1\t1\t1\t1\tA B\n",
    ],
)
def test_forms_of_kaldi_and_mfa(tmp_path, text):
    assert read_lexicon(lexicon(tmp_path, text)) == PLAIN


def test_one_of_several_pronunciations(tmp_path):
    assert read_lexicon(lexicon(tmp_path, "A a\nA b\n")) == {"A": ["a"]}
    assert read_lexicon(lexicon(tmp_path, "A 0.2 a\nA 1.0 b\nA 1.0 c\n")) == {"A": ["b"]}


def test_words_are_normalised(tmp_path):
    path = lexicon(tmp_path, "caf\u0065\u0301 k a f\n")
    assert read_lexicon(path) == {"caf\u00e9": ["k", "a", "f"]}


def test_single_words_without_probability(tmp_path, capsys):
    """As in MFA's english_us_mfa.dict."""
    text = "".join(f"w{i}\t0.99\t0.1\t1.0\t1.0\ta b\n" for i in range(12)) + "yknow\tj n ow\n"
    path = lexicon(tmp_path, text)
    assert read_lexicon(path)["yknow"] == ["j", "n", "ow"]
    assert capsys.readouterr().out == (
        f"note: {path}: 1 of 13 lines have no probability, which is then 1, e.g. line 13: yknow\n"
    )


def test_unknown_words_of_mfa_and_special_ones_of_kaldi(tmp_path):
    text = "<unk>\tspn\n!SIL SIL\n<UNK> SPN\n<SPOKEN_NOISE> SPN\nA a\n"
    found = {"!SIL": ["SIL"], "<UNK>": ["SPN"], "<SPOKEN_NOISE>": ["SPN"], "A": ["a"]}
    assert read_lexicon(lexicon(tmp_path, text)) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A a\n\nNO\n", ":3: 'NO' has no phones; add them"),
        ("A 0.5 a\nNO 0.5\n", ":2: 'NO' has no phones; add them"),
        (
            "A 0.5 a\nB b\n",
            r":1: 0.5 stands where a phone should; 1 of 2 lines have 1 number\(s\) after",
        ),
        ("A 0.5 a\nB 0.5 b 0.7\n", ":2: 0.7 stands where a phone should"),
        ("A 0.5 0.5 a\nB 0.5 0.5 b\n", ":1: 0.5 stands where a phone should"),
        ("A 1 1 1 a\n", ":1: 1 stands where a phone should"),
        ("A a\nB b 1 c\n", ":2: 1 stands where a phone should"),
        ("A a\nB 1 c\n", ":2: 1 stands where a phone should"),
        ("A 1 a\nA 2 b\n", ":2: 2 is not a probability, which is 0 to 1"),
        ("A -0.1 a\n", ":1: -0.1 is not a probability"),
        ("A a\n<eps> b\n", ":2: '<eps>' is a name that tools use"),
        ("<s> a\n", ":1: '<s>' is a name"),
        ("A #1\n", ":1: '#1' is a name"),
        ("A <unk>\n", ":1: '<unk>' is a name"),
        ("A <blk> b\n", ":1: '<blk>' is a name"),
        ("A a▁\n", r":1: has U\+2581 LOWER ONE EIGHTH BLOCK, which sentencepiece uses itself"),
        ("A\u200b a\n", r":1: has U\+200B ZERO WIDTH SPACE, take it out"),
        ("\n", ": no words; a line is a word and its phones"),
        ("<unk> spn\n", ": no words"),
        ("A é\n".encode("latin-1"), ": not UTF-8: line 1 has byte 0xe9"),
        ("A a\n".encode("utf-16"), ": UTF-16, not UTF-8"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    with pytest.raises(UserError, match=r"lexicon\.txt" + message):
        read_lexicon(lexicon(tmp_path, text))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match="none: no such file"):
        read_lexicon(tmp_path / "none")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_lexicon(tmp_path)


NAMES = st.text("AZaz'!éß", min_size=1, max_size=4)
PHONES = st.lists(NAMES, min_size=1, max_size=4)


@settings(deadline=None, derandomize=True)
@given(st.dictionaries(NAMES, PHONES, min_size=1), st.sampled_from([0, 1, 4]), st.data())
def test_any_lexicon_is_read_as_written(tmp_path_factory, words, columns, data):
    number = st.floats(0, 1).map(lambda p: f"{p:.2f}")
    gap = st.sampled_from([" ", "\t", "  "])
    lines = []
    for word, phones in words.items():
        numbers = [data.draw(number) for _ in range(columns)]
        first = data.draw(gap)
        lines.append(first.join([word, *numbers, " ".join(phones)]))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    path = tmp_path_factory.mktemp("lexicon") / "lexicon"
    path.write_bytes("".join(line + end for line in lines).encode())
    assert read_lexicon(path) == words
