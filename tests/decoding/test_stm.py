"""The stm of sclite: what is written is read again, by us and by sclite."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.data.kaldi import Utterance
from plateau.decoding.files import for_sclite
from plateau.decoding.stm import Segment, read_stm, to_utterances, write_stm
from tests.decoding.test_files import ids, texts
from tests.sclite import counts, needs_sclite

IGNORE = "IGNORE_TIME_SEGMENT_IN_SCORING"


@st.composite
def talks(draw, texts=texts):
    """Recordings of one or two channels, in which segments follow one another."""
    segments, told = [], draw(st.booleans())
    names = st.lists(ids, unique_by=for_sclite, min_size=1, max_size=3)
    for recording in draw(names):
        for channel in range(draw(st.integers(1, 2))):
            number = draw(st.integers(1, 3))
            borders = sorted(
                draw(st.sets(st.integers(0, 9000), min_size=number + 1, max_size=number + 1))
            )
            for start, end in pairwise(borders):
                who, text = draw(ids), draw(texts)
                id = f"{who}-{len(segments):02}{draw(ids)}" if told else ""
                times = start / 1000, end / 1000
                segments.append(Segment(recording, who, *times, text, channel, utterance=id))
    return segments


@given(talks())
def test_what_is_written_is_read(tmp_path_factory, segments):
    path = tmp_path_factory.mktemp("stm") / "x.stm"
    write_stm(path, segments)
    found = read_stm(path)
    assert len({s.utterance for s in found}) == len(segments)
    order = [(for_sclite(s.recording), s.channel, s.start) for s in found]
    assert order == sorted(order)
    if segments[0].utterance:
        assert {replace(s, label="") for s in found} == set(segments)
    else:  # there are no comments, and of the fields sclite's forms only
        forms = [
            {name: for_sclite(getattr(s, name)) for name in ("recording", "speaker", "text")}
            for s in segments
        ]
        expected = {replace(s, **form) for s, form in zip(segments, forms, strict=True)}
        assert {replace(s, label="", utterance="") for s in found} == expected
    again = path.with_name("again.stm")
    write_stm(again, found)
    assert read_stm(again) == found


@given(talks())
def test_a_stm_has_the_fields_of_nist(tmp_path_factory, segments):
    path = tmp_path_factory.mktemp("stm") / "ref.stm"
    write_stm(path, segments)
    found = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(";; kaldi "):
            continue
        name, channel, speaker, start, end, *said = line.split(" ")
        if said and said[0] == "<o>":  # a label, for a text that could be taken for one
            said = said[1:]
            assert said[0].startswith("<")
        else:
            assert not said or not said[0].startswith("<")
        found.add((name, int(channel), speaker, float(start), float(end), " ".join(said)))
    assert found == {
        (
            for_sclite(s.recording),
            s.channel + 1,
            for_sclite(s.speaker),
            s.start,
            s.end,
            for_sclite(s.text),
        )
        for s in segments
    }


@needs_sclite
@settings(max_examples=60)
@given(talks(texts.filter(bool)), st.data())
def test_sclite_finds_each_word_in_its_segment(tmp_path_factory, segments, data):
    folder = tmp_path_factory.mktemp("sclite")
    left_out = data.draw(st.sets(st.sampled_from(range(len(segments)))))
    segments = [replace(s, ignored=i in left_out) for i, s in enumerate(segments)]
    if all(s.ignored for s in segments):
        segments[0] = replace(segments[0], ignored=False)
    write_stm(folder / "ref.stm", segments)
    heard = []
    for s in segments:
        words = s.text.split()
        step = (s.end - s.start) / len(words)
        heard += [
            (for_sclite(s.recording), s.channel + 1, s.start + n * step, step, for_sclite(word))
            for n, word in enumerate(words)
        ]
    lines = [f"{r} {c} {start:.6f} {d:.6f} {w} 0.5\n" for r, c, start, d, w in sorted(heard)]
    (folder / "hyp.ctm").write_text("".join(lines), encoding="utf-8")
    found = counts(folder, "ctm")
    scored = [s for s in segments if not s.ignored]
    number = sum(len(s.text.split()) for s in scored)
    assert (found["sentences"], found["words"]) == (len(scored), number)
    assert (found["correct"], found["errors"]) == (number, 0)


LINES = """\
;; CATEGORY "0" "" ""
;; LABEL "O" "Overall" "Overall"
talk 1 inter_segment_gap 0 17.82 <o,,unknown> ignore_time_segment_in_scoring
talk 1 ann 17.82 28.81 <o,f0,female> there is  more
  talk\t1 bob 28.81 40 so (uh) { a / b }

talk B ann 30 31.5 <o> <unk> no
lecture A carl 0 3 yes\r
"""


def test_a_stm_of_others_is_read_as_sclite_does(tmp_path):
    path = tmp_path / "x.stm"
    path.write_bytes(LINES.encode())
    gap, *said = read_stm(path)
    assert gap.ignored and gap.label == "<o,,unknown>"
    assert [(s.utterance, s.label, s.text, s.channel) for s in said] == [
        ("ann-talk-0017820-0028810", "<o,f0,female>", "there is  more", 0),
        ("bob-talk-0028810-0040000", "", "so (uh) { a / b }", 0),
        ("ann-talk-2-0030000-0031500", "<o>", "<unk> no", 1),
        ("carl-lecture", "", "yes", 0),
    ]
    utterances = to_utterances([gap, *said], {"talk": "t.sph", "lecture": "l.sph"})
    assert [u.channel for u in utterances] == [0, 0, 1, None]
    assert utterances[3] == Utterance(
        "carl-lecture", "carl", "yes", "l.sph", "lecture", start=0.0, end=3.0
    )
    with pytest.raises(UserError, match=r"1 recordings without audio, such as 'talk', which has 3"):
        to_utterances(said, {"lecture": "l.sph"})


def test_comments_count_as_long_as_the_line_says_the_same(tmp_path):
    path = tmp_path / "x.stm"
    written = Segment("r(1)", "s", 0.25, 1.0, f"(uh) （no） {IGNORE}", utterance="s-1")
    write_stm(path, [written])
    assert read_stm(path) == [written]
    assert not read_stm(path)[0].ignored
    text = path.read_text()
    assert text.splitlines()[-1].endswith("（uh） （no） IGNORE＿TIME＿SEGMENT＿IN＿SCORING")
    # Somebody mends the text, and leaves the comment.
    path.write_text(text.replace("（uh） （no）", "um no"))
    assert read_stm(path)[0].text == "um no IGNORE＿TIME＿SEGMENT＿IN＿SCORING"
    assert read_stm(path)[0].recording == "r(1)"
    # A comment belongs to the next line only.
    path.write_text(";; kaldi utterance s-1\nr 1 s 0 1 a\nr 1 s 1 2 b\n;; kaldi utterance s-9\n")
    assert [s.utterance for s in read_stm(path)] == ["s-1", "s-r-0001000-0002000"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("r 1 s 0", "has 4 fields, not the form '<recording> <channel> <speaker> <start> <end> ["),
        ("r x1 s 0 1 a", "'x1' is not a channel: 1, 2, … or A, B, …"),
        ("r 0 s 0 1 a", "'0' is not a channel"),
        ("r 1 s 0 1_0 a", "'1_0' is not a time in seconds"),
        ("r 1 s 0 inf a", "'inf' is not a time in seconds"),
        ("r 1 s -1 1 a", "'-1' is not a time in seconds"),
        ("r 1 s 0 １ a", "'１' is not a time in seconds"),
        ("r 1 s 1 1 a", "from 1.0 to 1.0 s; a segment lasts at least a millisecond"),
        ("r 1 s 2 1 a", "from 2.0 to 1.0 s; a segment"),
        ("r 1 s 0 1 <o, f0> a", "sclite takes '<o,' for a label: write labels without spaces"),
        ("r 1 s 0 1 <3 you", "sclite takes '<3' for a label"),
        ("; r 1 0 1 a", "begins with a semicolon; a comment begins with two"),
        ("r\u00a0q 1 s 0 1 a", "an id has U+00A0 NO-BREAK SPACE; take it out"),
        ("ok 1 s 0 1.0 again", "the utterance 's-ok' is in line 2, too"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "x.stm"
    if "again" in line:  # ids told: else both would have their times in them
        told = ";; kaldi utterance s-ok\n"
        path.write_text(f"{told}ok 1 s 0 1 a\n{told}{line}\n")
        number = 4
    else:
        path.write_text(f";; first\nok 1 s 0 1 a\n{line}\n")
        number = 3
    with pytest.raises(UserError, match=re.escape(f"x.stm:{number}: {message}")):
        read_stm(path)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (Segment("a b", "s", 0, 1, "x"), "'a b' is empty or has white space"),
        (Segment("a", "", 0, 1, "x"), "'' is empty or has white space"),
        (Segment("a", "s", 0, 0.0004, "x"), r"a does not last a millisecond, \[0, 0.0004\] s"),
        (Segment("a", "s", 0, float("nan"), "x"), "a has a time that is none"),
        (Segment("a", "s", 0, 1, "x\ny"), "the text of a is not one line of words"),
        (Segment("a", "s", 0, 1, " x"), "the text of a is not one line of words"),
        (Segment("a", "s", 0, 1, "x", channel=9999), "a is on channel 9999"),
        (Segment("a", "s", 0, 1, "x", label="<o, f0>"), "a has the label '<o, f0>'"),
        (Segment("a\u200b", "s", 0, 1, "x"), r"an id of a.* has U\+200B ZERO WIDTH SPACE"),
    ],
)
def test_what_no_line_can_hold_is_not_written(tmp_path, segment, message):
    with pytest.raises(UserError, match=f"x.stm: not written: {message}"):
        write_stm(tmp_path / "x.stm", [segment])
    assert not list(tmp_path.iterdir())


def test_recordings_that_would_be_one_for_sclite(tmp_path):
    with pytest.raises(UserError, match="not written: a; and a； would be one id for sclite"):
        write_stm(tmp_path / "x.stm", [Segment(r, "s", 0, 1, "x") for r in ("a;", "a；")])
