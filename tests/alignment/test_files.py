import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse import MonoCut, Recording, SupervisionSegment, SupervisionSet
from lhotse.supervision import AlignmentItem

from plateau.alignment.files import (
    AlignedUtterance,
    Alignment,
    aligned_utterance,
    read_frames,
    textgrid,
    words_of,
    write_alignments,
    write_frames,
    write_supervisions,
)
from plateau.config import UserError
from plateau.data.tokens import TokenOptions, make_lang
from plateau.decoding.files import Interval, read_ctm
from plateau.io import write_text

EXAMPLE = '''\
File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 0.5
            text = """yes"""
        intervals [3]:
            xmin = 0.5
            xmax = 0.833
            text = "Ọ̀yọ́"
        intervals [4]:
            xmin = 0.833
            xmax = 1
            text = ""
    item [2]:
        class = "IntervalTier"
        name = "tokens"
        xmin = 0
        xmax = 1
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1
            text = ""
'''


def parse(text):
    """A TextGrid as {tier: [(xmin, xmax, label)]}, and its xmax.

    Read as Praat does: texts in quotes, numbers that stand alone and <exists> count, in their
    order; all else is for the eye.
    """
    pattern = r'"((?:[^"]|"")*)"|(?<=\s)(-?\d+(?:\.\d+)?)(?=\s)|(<exists>)'
    values = iter(
        float(m[2]) if m[2] else m[3] or m[1].replace('""', '"') for m in re.finditer(pattern, text)
    )
    take = values.__next__
    assert [take(), take(), take()] == ["ooTextFile", "TextGrid", 0]
    xmax = take()
    assert take() == "<exists>"
    tiers = {}
    for _ in range(int(take())):
        assert take() == "IntervalTier"
        name = take()
        assert [take(), take()] == [0, xmax]
        tiers[name] = [(take(), take(), take()) for _ in range(int(take()))]
    assert not list(values)
    return tiers, xmax


def test_exact_text():
    words = [Interval(0.25, 0.5, '"yes"'), Interval(0.5, 5 / 6, "Ọ̀yọ́")]
    assert textgrid({"words": words, "tokens": []}, 1.0) == EXAMPLE
    assert parse(EXAMPLE)[0]["words"][1:3] == [(0.25, 0.5, '"yes"'), (0.5, 0.833, "Ọ̀yọ́")]


# Labels that make trouble: quotes, line ends, lines of the format itself, any script.
labels = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1) | st.sampled_from(
    ['"', '""', 'a"b', '"\n    item [2]:\n', "ngɛ́", "日本", "xmin = 0"]
)


@st.composite
def tiers_of_intervals(draw):
    """Intervals by their borders in milliseconds, some of the pieces between unlabelled."""
    borders = sorted(draw(st.lists(st.integers(0, 20_000), min_size=2, max_size=12, unique=True)))
    duration = (borders[-1] + draw(st.integers(0, 500))) / 1000
    pieces = [(a / 1000, b / 1000) for a, b in pairwise(borders)]
    names = draw(st.lists(labels, min_size=1, max_size=3, unique=True))
    kept = {name: [p for p in pieces if draw(st.booleans())] for name in names}
    return {n: [Interval(*p, draw(labels)) for p in ps] for n, ps in kept.items()}, duration


@given(tiers_of_intervals())
def test_what_is_written_is_read_again_with_the_gaps_filled(case):
    tiers, duration = case
    read, end = parse(textgrid(tiers, duration))
    assert end == duration and read.keys() == tiers.keys()
    for name, rows in read.items():
        assert [row for row in rows if row[2]] == [interval[:3] for interval in tiers[name]]
        # Praat wants intervals that are not empty and leave nothing out.
        assert rows[0][0] == 0 and rows[-1][1] == duration
        assert all(a[1] == b[0] for a, b in pairwise(rows))
        assert all(start < stop for start, stop, _ in rows)


@pytest.mark.parametrize(
    "intervals",
    [
        [Interval(0.2, 0.2, "a")],
        [Interval(1.0, 1.0, "a")],
        [Interval(0.2, 0.5, "a"), Interval(0.4, 0.6, "b")],
        [Interval(0.4, 0.6, "a"), Interval(0.2, 0.3, "b")],
        [Interval(0.9, 1.1, "a")],
        [Interval(-0.1, 0.1, "a")],
        [Interval(0.1, float("nan"), "a")],
    ],
)
def test_impossible_intervals_are_refused(intervals):
    with pytest.raises(ValueError, match="interval"):
        textgrid({"words": intervals}, 1.0)


class Letters:
    """A tokenizer: a token for each letter."""

    def __init__(self):
        self.tokens = ["<blk>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]

    def encode(self, text):
        return [self.tokens.index(c) for c in text.replace(" ", "")]


def aligned(text, frames, num_frames=10, subsampling_factor=4, duration=None):
    words = words_of(Letters(), text)
    alignment = Alignment(tuple(frames), 0.0, num_frames)
    duration = 0.01 * subsampling_factor * num_frames if duration is None else duration
    return aligned_utterance("u", words, alignment, subsampling_factor, Letters(), duration)


def test_times_by_hand():
    utterance = aligned("ab c", [1, 4, 7])
    # Frame t is centred on feature frame 4 t, whose middle is at 40 t + 5 ms.
    assert utterance.tokens == (
        (pytest.approx(0.025), pytest.approx(0.145), "a", None),  # until the next of the word
        (pytest.approx(0.145), pytest.approx(0.185), "b", None),  # the last: a frame
        (pytest.approx(0.265), pytest.approx(0.305), "c", None),
    )
    assert utterance.words == (
        (pytest.approx(0.025), pytest.approx(0.185), "ab", None),
        (pytest.approx(0.265), pytest.approx(0.305), "c", None),
    )
    assert utterance.duration == pytest.approx(0.4)


def test_times_end_with_the_audio():
    """Of 0.485 s + 20 ms of audio the encoder's last frame has 40 ms."""
    alignment = Alignment((3, 12), 0.0, 13, runs=((3, 5), (11, 13)), log_posteriors=(-0.1, -0.2))
    words = words_of(Letters(), "a b")
    for path in (alignment, Alignment((3, 12), 0.0, 13)):
        utterance = aligned_utterance("u", words, path, 4, Letters(), 0.505)
        assert (utterance.duration, utterance.words[1].end) == (0.505, 0.505)
        tiers, end = parse(textgrid({"words": utterance.words}, utterance.duration))
        assert end == 0.505 and tiers["words"][-1][1:] == (0.505, "b")
    # Where the last frames lie: 0.01 s of the last one are within the audio of 0.475 s.
    assert aligned("b", [12], 13, duration=0.475).words[0][:2] == (0.465, 0.475)


def test_a_textgrid_and_the_ctms_say_the_same(tmp_path):
    """With tokens that share a frame, and a duration that is no whole number of milliseconds."""
    utterance = aligned("abcdefg hij", [2] * 7 + [11] * 3, 12, duration=0.4687512)
    write_alignments(tmp_path, [utterance])
    tiers, end = parse((tmp_path / "u.TextGrid").read_text())
    assert end == 0.468
    for kind in ("words", "tokens"):
        said = [i[:3] for i in read_ctm(tmp_path / f"{kind}.ctm")["u"]]
        assert said == [row for row in tiers[kind] if row[2]]
        assert "".join(label for *_, label in said) == "abcdefghij"


def test_tokens_of_one_frame_divide_it():
    utterance = aligned("ab c", [2, 2, 2], subsampling_factor=6)
    borders = [(i.start, i.end) for i in utterance.tokens]  # of 120 + 5 ms, ± 30 ms
    expected = [(0.095, 0.115), (0.115, 0.135), (0.135, 0.155)]
    assert borders == [pytest.approx(border) for border in expected]
    assert utterance.words[0][:2] == pytest.approx((0.095, 0.135))
    first = aligned("ab", [0, 0], subsampling_factor=4)  # it begins with the audio
    assert [i.start for i in first.tokens] == pytest.approx([0.0, 0.012])
    with pytest.raises(ValueError, match="u: 3 tokens and 2 frames"):
        aligned("ab c", [1, 2])


@given(st.data())
def test_any_alignment_makes_a_textgrid_and_words_hold_their_tokens(data):
    words = data.draw(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=6))
    number = sum(map(len, words))
    num_frames = data.draw(st.integers(1, 40))
    frames = sorted(
        data.draw(st.lists(st.integers(0, num_frames - 1), min_size=number, max_size=number))
    )
    factor = data.draw(st.sampled_from([2, 4, 6]))
    # Feature frames are of 10 ms, the last of them rounded; the encoder's last may lack some.
    missing = data.draw(st.floats(0, 0.01 * (factor - 1) + 0.004))
    duration = max(0.025, 0.01 * factor * num_frames - missing)
    utterance = aligned(" ".join(words), frames, num_frames, factor, duration)
    assert all(0 <= i.start < i.end <= duration for i in (*utterance.words, *utterance.tokens))
    tiers = {"words": utterance.words, "tokens": utterance.tokens}
    read, _ = parse(textgrid(tiers, utterance.duration))
    assert [label for *_, label in read["words"] if label] == words
    assert [label for *_, label in read["tokens"] if label] == list("".join(words))
    assert sum(1 for *_, label in read["tokens"] if label) == number
    rest = list(utterance.tokens)
    for start, end, word, _ in utterance.words:
        own, rest = rest[: len(word)], rest[len(word) :]
        assert (own[0].start, own[-1].end) == (start, end)
        assert all(a.end == b.start for a, b in pairwise(own))  # no gap within a word
    for token, frame in zip(utterance.tokens, frames, strict=True):  # each starts in its frame
        # … or is pushed by at most the millisecond that each of its neighbours needs.
        begin = 0.01 * (factor * frame - (factor - 1) / 2)
        room = 0.001 * number
        assert begin - room <= token.start < begin + 0.01 * factor + room


TEXTS = ['say "no" now', "ọ̀rọ̀  tó dára", "日本 語", "it's a a a"]


@pytest.mark.parametrize("kind", ["bpe", "char", "word", "phone"])
def test_words_have_the_tokens_of_the_transcript(kind, tmp_path):
    lexicon = tmp_path / "lexicon"
    lexicon.write_text("say S EY\nnow N AW\na AH\n", encoding="utf-8")
    options = TokenOptions(kind, 40, str(lexicon) if kind == "phone" else None)
    tokenizer = make_lang(tmp_path / f"lang_{kind}", TEXTS, options)
    for text in [*TEXTS, "unheard ✗ of", ""]:
        words = words_of(tokenizer, text)
        assert [word for word, _ in words] == tokenizer_words(text)
        assert [token for _, tokens in words for token in tokens] == tokenizer.encode(text)


def tokenizer_words(text):
    return unicodedata.normalize("NFC", text).split()


def test_the_files_of_a_set(tmp_path):
    utterances = [
        AlignedUtterance(
            id,
            (Interval(0.04, 0.08, '▁"'), Interval(0.08, 0.12, "ọ̀")),
            (Interval(0.04, 0.12, '"ọ̀'),),
            0.2,
        )
        for id in ("b", "a/1")
    ]
    (tmp_path / "gone.TextGrid").write_text("of an earlier run")
    assert write_alignments(tmp_path, utterances) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a%2F1.TextGrid",
        "b.TextGrid",
        "tokens.ctm",
        "words.ctm",
    ]
    assert (tmp_path / "words.ctm").read_text(encoding="utf-8") == (
        'a/1 1 0.040 0.080 "ọ̀\nb 1 0.040 0.080 "ọ̀\n'
    )
    assert (tmp_path / "tokens.ctm").read_text(encoding="utf-8") == (
        'a/1 1 0.040 0.040 ▁"\na/1 1 0.080 0.040 ọ̀\nb 1 0.040 0.040 ▁"\nb 1 0.080 0.040 ọ̀\n'
    )
    tiers, end = parse((tmp_path / "b.TextGrid").read_text(encoding="utf-8"))
    assert list(tiers) == ["words", "tokens"] and end == 0.2
    assert tiers["words"] == [(0, 0.04, ""), (0.04, 0.12, '"ọ̀'), (0.12, 0.2, "")]


def test_long_names_are_shortened_and_what_cannot_be_written_costs_only_itself(tmp_path):
    names = ["x" * 240, "日" * 100, ".hidden", "a/b", "in-the-way", "last"]
    word = (Interval(0.0, 0.1, "a"),)
    (tmp_path / "in-the-way.TextGrid" / "folder").mkdir(parents=True)
    with pytest.raises(OSError, match=r"in-the-way\.TextGrid"):
        write_alignments(tmp_path, [])  # what is there is removed first
    old = tmp_path / "in-the-way.TextGrid"
    old.rename(tmp_path / "elsewhere")
    written = []

    def write(path, text):
        if path.name == "in-the-way.TextGrid":
            raise PermissionError(13, "Permission denied", str(path))
        written.append(path.name)
        write_text(path, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plateau.alignment.files.write_text", write)
        utterances = [AlignedUtterance(name, word, word, 0.2) for name in names]
        assert write_alignments(tmp_path, utterances) == {"in-the-way": "Permission denied"}
    assert sorted(written) == sorted(path.name for path in tmp_path.glob("*.TextGrid"))
    assert len(written) == 5 and all(len(name.encode()) < 230 for name in written)
    assert {fields.split()[0] for fields in (tmp_path / "words.ctm").open()} == set(names)


def test_words_have_their_confidence(tmp_path):
    tokens = (Interval(0.0, 0.1, "a"), Interval(0.2, 0.3, "b"))
    words = (Interval(0.0, 0.1, "a", 0.25), Interval(0.2, 0.3, "b", 1.0))
    utterance = AlignedUtterance("u", tokens, words, 0.4)
    write_alignments(tmp_path, [utterance])
    lines = (tmp_path / "words.ctm").read_text().splitlines()
    assert lines == ["u 1 0.000 0.100 a 0.250", "u 1 0.200 0.100 b 1.000"]
    assert (tmp_path / "tokens.ctm").read_text() == "u 1 0.000 0.100 a\nu 1 0.200 0.100 b\n"


def test_supervisions_are_on_the_clock_of_their_recording(tmp_path):
    recording = Recording("rec", [], sampling_rate=8000, num_samples=16000, duration=2.0)
    supervision = SupervisionSegment("u", "rec", start=0.5, duration=1.0, text="ab", speaker="s")
    whole = MonoCut("x", 0.0, 2.0, 0, supervisions=[supervision], recording=recording)
    (cut,) = whole.trim_to_supervisions()
    tokens = (Interval(0.2, 0.4, "a"), Interval(0.9, 1.0, "b"))
    aligned = AlignedUtterance("u", tokens, (Interval(0.2, 1.0, "ab", 0.75),), 1.0)
    path = tmp_path / "supervisions.jsonl.gz"
    write_supervisions(path, [cut, cut.with_id("left-out")], [aligned])
    (found,) = SupervisionSet.from_file(path)
    assert (found.start, found.duration, found.recording_id) == (0.5, 1.0, "rec")
    assert (found.text, found.speaker) == ("ab", "s")
    assert found.alignment == {
        "word": [AlignmentItem("ab", 0.7, 0.8, 0.75)],
        "token": [AlignmentItem("a", 0.7, 0.2), AlignmentItem("b", 1.4, 0.1)],
    }


def test_frames_come_back(tmp_path):
    frames = {"b": [0, 0, 12], "a": []}
    write_frames(tmp_path / "frames.txt", frames)
    assert (tmp_path / "frames.txt").read_text() == "a\nb 0 0 12\n"
    assert read_frames(tmp_path / "frames.txt") == frames
    text = (tmp_path / "frames.txt").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "frames.txt").write_bytes(b"\xef\xbb\xbf" + text)  # of another editor
    assert read_frames(tmp_path / "frames.txt") == frames
    write_frames(tmp_path / "frames.txt", {})
    assert read_frames(tmp_path / "frames.txt") == {}


@pytest.mark.parametrize("line", ["b 1 x", "", "a 3", "b -1"])
def test_broken_frames_are_named(line, tmp_path):
    path = tmp_path / "frames.txt"
    path.write_text(f"a 1 2\n{line}\n")
    with pytest.raises(UserError, match=r"frames\.txt:2: not"):
        read_frames(path)
    with pytest.raises(UserError, match="no such alignment"):
        read_frames(tmp_path / "none")
    path.write_bytes("a 1\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"frames\.txt: UTF-16"):
        read_frames(path)
