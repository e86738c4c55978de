import math
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.data.tokens import LexiconTokenizer, TokenOptions, make_lang
from plateau.decoding.files import (
    Interval,
    emitted,
    for_sclite,
    has_marks,
    in_milliseconds,
    read_ctm,
    read_trn,
    spelt_words,
    write_ctm,
)
from plateau.decoding.scoring import score, write_scores
from plateau.decoding.stm import Segment, write_stm
from tests.sclite import counts, needs_sclite

# What tools take for something else, in whole words and within them.
NASTY = [
    *["%hesitation", "(uh)", "{a/b}", "{", "/", "}", "@", "uh-", "-", "*", "**", "*a", ";;", ";a"],
    *["<unk>", "<", "a<b", "<ALT_BEGIN>", "<ALT>", "<alt_end>", "\\", "a\\", "#"],
    *["É", "é", "ß", "ẞ", "İ", "日本", "ɛ́la", "😀", "A", "a", "'", '"', "don't", "[x]", "a_b", "!"],
]
words = st.sampled_from(NASTY) | st.text(
    st.characters(whitelist_categories=["L", "N", "P", "S"]), min_size=1, max_size=4
)
texts = st.lists(words, max_size=6).map(" ".join)
ids = st.text("aZ09-_.é(){}@;*\\<>%/:日", min_size=1, max_size=6)


def test_what_sclite_takes_as_markup_is_written_in_full_width():
    assert for_sclite("{a/b} (uh) @ ;; * c\\") == "｛a/b｝ （uh） ＠ ；； ＊ c＼"
    assert for_sclite("<unk> <ALT> <Alt_End> x<ALT>") == "<unk> ＜ALT> ＜Alt_End> x<ALT>"
    assert for_sclite("%hesitation uh- d'été Ọ") == "%hesitation uh- d'été Ọ"


@st.composite
def spoken(draw):
    """Intervals in whole milliseconds, in order, some with confidence, in an audio's duration."""
    borders = sorted(draw(st.lists(st.integers(0, 9000), min_size=2, max_size=12, unique=True)))
    confidences = st.none() | st.integers(0, 1000).map(lambda n: n / 1000)
    intervals = [
        Interval(a / 1000, b / 1000, draw(words), draw(confidences))
        for a, b in pairwise(borders)
        if draw(st.booleans())
    ]
    return tuple(intervals), (borders[-1] + draw(st.integers(0, 50))) / 1000


@given(st.dictionaries(ids, spoken().map(lambda s: s[0]), max_size=4))
def test_a_ctm_is_read_again(tmp_path_factory, utterances):
    path = tmp_path_factory.mktemp("ctm") / "words.ctm"
    write_ctm(path, utterances)
    assert read_ctm(path) == {i: said for i, said in utterances.items() if said}
    # And by who parts fields at spaces, as NIST's tools do, in milliseconds.
    for line in path.read_text(encoding="utf-8").splitlines():
        name, channel, start, duration, label, *confidence = line.split(" ")
        begin, end = round(1000 * float(start)), round(1000 * (float(start) + float(duration)))
        assert channel == "1" and len(confidence) <= 1
        assert any(
            (round(1000 * i.start), round(1000 * i.end), i.label) == (begin, end, label)
            for i in utterances[name]
        )


def cost(reference, hypothesis):
    """The least cost of an alignment with sclite's weights: 4 a substitution, 3 all else."""
    row = [3 * n for n in range(len(hypothesis) + 1)]
    for i, r in enumerate(reference, start=1):
        previous, row = row, [3 * i]
        for j, h in enumerate(hypothesis, start=1):
            row.append(min(previous[j] + 3, row[j - 1] + 3, previous[j - 1] + 4 * (r != h)))
    return row[-1]


@needs_sclite
@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.dictionaries(ids, st.tuples(texts, texts), min_size=1, max_size=8))
def test_sclite_reads_all_texts_and_ids_from_both_kinds_of_files(tmp_path_factory, utterances):
    folder = tmp_path_factory.mktemp("sclite")
    scores = score(
        {i: ref for i, (ref, _) in utterances.items()},
        {i: hyp for i, (_, hyp) in utterances.items()},
    )
    write_scores(folder, scores)
    segments, heard = [], {}
    for u in scores.utterances:
        hypothesis = u.hypothesis.split()
        segments.append(Segment(u.id, f"s{u.id}", 0.0, 0.1 + len(hypothesis) / 1000, u.reference))
        # The shortest and latest words that a ctm can have.
        heard[for_sclite(u.id)] = [
            Interval(0.1 + n / 1000, 0.101 + n / 1000, for_sclite(word), 0.5)
            for n, word in enumerate(hypothesis)
        ]
    write_stm(folder / "ref.stm", segments)
    write_ctm(folder / "hyp.ctm", heard)
    texts = [(u.reference.split(), u.hypothesis.split()) for u in scores.utterances]
    for kind in ("trn", "ctm"):
        found = counts(folder, kind)
        assert found["sentences"] == len(texts)
        assert found["words"] == sum(len(ref) for ref, _ in texts)
        assert found["ins"] - found["del"] == sum(len(hyp) - len(ref) for ref, hyp in texts)
        assert 4 * found["sub"] + 3 * (found["ins"] + found["del"]) == sum(cost(*t) for t in texts)
        assert found["wrong"] == scores.wrong_utterances


@needs_sclite
@pytest.mark.parametrize("hypotheses", [{}, {"b": "x"}], ids=["nothing", "only-where-silent"])
def test_sclite_takes_a_ctm_that_lacks_utterances(tmp_path, hypotheses):
    scores = score({"a": "yes no", "b": "", "c": "no"}, hypotheses)
    write_scores(tmp_path, scores)
    write_stm(
        tmp_path / "ref.stm", [Segment(u.id, "s", 0.0, 1.0, u.reference) for u in scores.utterances]
    )
    heard = {id: [Interval(0.5, 0.6, word)] for id, word in hypotheses.items()}
    write_ctm(tmp_path / "hyp.ctm", heard)
    found = counts(tmp_path, "ctm")
    assert (found["words"], found["del"], found["ins"]) == (3, 3, len(hypotheses))


@pytest.mark.parametrize("label", ["", "a b", " a", "\n"])
def test_a_label_that_would_break_a_ctm(tmp_path, label):
    with pytest.raises(UserError, match=r"hyp.ctm: not written: .* is empty or has white space"):
        write_ctm(tmp_path / "hyp.ctm", {"u": [Interval(0.0, 1.0, label)]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"u 1 0.0 0.1 a\nu 1 0.1\n", r"x\.ctm, line 2: not of the form '<utterance> 1 "),
        (b"u 1 zero 0.1 a\n", "line 1: not of the form"),
        (b"u 1 0.0 0.1 a\nu 1 0.0 0.1 \xff\n", "x.ctm: not UTF-8: line 2 has byte 0xff"),
        (b"u 1 0.0 0.1 a\0\n", "x.ctm: not a text file: line 1 has a NUL character"),
    ],
)
def test_a_broken_ctm_is_named(tmp_path, content, message):
    path = tmp_path / "x.ctm"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_ctm(path)


def test_a_broken_or_missing_file_is_named(tmp_path):
    (tmp_path / "ref.trn").write_text("a (u)\nno id\n")
    with pytest.raises(UserError, match=r"ref\.trn, line 2: not of the form"):
        read_trn(tmp_path / "ref.trn")
    folder = tmp_path / "toy" / "transducer" / "x,beam=[2]" / "decode_test_greedy"
    folder.mkdir(parents=True)
    (folder.parent / "config.yaml").write_text("data_dir: data/toy\n")
    command = "./run.sh --corpus toy --recipe transducer --exp 'x,beam=[2]'"
    with pytest.raises(
        UserError, match=re.escape(f"hyp.trn: no such file; make it with {command}")
    ):
        read_trn(folder / "hyp.trn")
    with pytest.raises(
        UserError, match=r"words\.ctm: no such file; make it with the same ./run.sh again"
    ):
        read_ctm(tmp_path / "words.ctm")


# In milliseconds


def test_times_are_rounded_and_clipped():
    said = [
        Interval(-0.001, 0.0254, "a", 0.5),
        Interval(0.0256, 0.485, "b"),
        Interval(0.485, 0.525, "c"),
    ]
    assert in_milliseconds(said, 0.50563) == [
        (0.0, 0.025, "a", 0.5),
        (0.026, 0.485, "b", None),
        (0.485, 0.505, "c", None),
    ]
    assert in_milliseconds([Interval(0.28, 0.3, "a")], 0.29)[0].end == 0.29  # 289.99… ms


def test_thirty_tokens_in_a_last_frame_of_20_ms():
    said = [Interval(*piece, "a") for piece in emitted([12] * 30, 4)]  # 0.465 to 0.505 s
    found = in_milliseconds(said, 0.485)
    assert [round(1000 * i.start) for i in found] == list(range(455, 485))
    assert all(round(1000 * (i.end - i.start)) == 1 for i in found)


@given(st.data())
def test_no_interval_is_empty_overlaps_or_ends_beyond_the_audio(data):
    duration = data.draw(st.floats(0.025, 3.0))
    frames = data.draw(st.lists(st.integers(0, math.ceil(25 * duration)), max_size=25).map(sorted))
    said = [Interval(*piece, "a") for piece in emitted(frames, 4)]
    found = in_milliseconds(said, duration)
    assert len(found) == len(said)
    assert all(0 <= i.start < i.end <= duration for i in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(round(x, 3) == x for i in found for x in i[:2])


def test_more_intervals_than_milliseconds_neither_overlap_nor_end_beyond_the_audio():
    found = in_milliseconds([Interval(0.0, 0.01, "a")] * 9, 0.005)
    assert all(0 <= i.start <= i.end <= 0.005 for i in found)
    assert all(a.end <= b.start for a, b in pairwise(found))


# Words


def emissions(*labels):
    return [Interval(n / 10, (n + 1) / 10, label, 0.5) for n, label in enumerate(labels)]


def test_words_last_from_their_first_to_their_last_token():
    said = emissions("x", "▁", "▁ab", "cd", "▁", "e")
    assert [(w.start, w.end, w.label) for w in spelt_words(said, marked=True)] == [
        (0.0, 0.1, "x"),
        (0.2, pytest.approx(0.4), "abcd"),
        (0.5, 0.6, "e"),  # the lone ▁ is in the pause before
    ]
    assert spelt_words(said, marked=False) == said


def test_the_confidence_of_a_word_is_the_geometric_mean_of_its_tokens():
    tokens = [
        Interval(n, n + 1, label, c)
        for n, label, c in ((0, "▁", 0.01), (1, "a", 0.2), (2, "b", 0.8))
    ]
    assert spelt_words(tokens, marked=True)[0].confidence == pytest.approx(0.4)
    unsure = [*tokens[:2], tokens[2]._replace(confidence=0.0)]
    assert spelt_words(unsure, marked=True)[0].confidence == 0
    unknown = [*tokens[:2], tokens[2]._replace(confidence=None)]
    assert spelt_words(unknown, marked=True)[0].confidence is None


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lang")
    said = ["ab abba don't", "ọ̀rọ̀ 日本 ab"]
    found = [
        make_lang(folder / f"lang_{kind}", said, TokenOptions(kind=kind, vocab_size=30))
        for kind in ("bpe", "char", "word")
    ]
    tokens = ["<blk>", "<unk>", "A", "B"]
    return [*found, LexiconTokenizer(tokens, {"ab": ["A", "B"]}, phones=True)]


@given(st.data())
def test_words_are_those_of_the_tokenizer_for_any_tokens(tokenizers, data):
    tokenizer = data.draw(st.sampled_from(tokenizers))
    tokens = data.draw(st.lists(st.integers(1, len(tokenizer.tokens) - 1), max_size=12))
    said = emissions(*(tokenizer.tokens[token] for token in tokens))
    found = spelt_words(said, has_marks(tokenizer))
    assert " ".join(word.label for word in found) == tokenizer.decode(tokens)
    assert all(a.end <= b.start for a, b in pairwise(found))
