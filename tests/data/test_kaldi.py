import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.data.kaldi import (
    Interval,
    Utterance,
    read_data_dir,
    read_durations,
    write_data_dir,
)
from plateau.data.lines import Row, Segment, parse
from plateau.text import normalise

# ids: no white space, no lone surrogates, no control characters, none of sentencepiece's two
characters = st.characters(exclude_categories=("Z", "C"), exclude_characters="▁▅")
words = st.text(characters, min_size=1, max_size=6)
labels = words.map(normalise).filter(bool)
texts = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30
).map(normalise)
audio = words.filter(lambda w: not w.startswith("\ufeff")).map(lambda w: f"/audio dir/{w}.wav")
seconds = st.floats(0, 1e5, allow_nan=False)


@st.composite
def directories(draw):
    """Utterances that lie one after the other in their recordings, with words in them."""
    segmented = draw(st.booleans())
    utterances = []
    for speaker in draw(st.lists(words, unique=True, min_size=1, max_size=3)):
        source = draw(audio)
        recording = f"{speaker}_{len(utterances)}"
        names = draw(st.lists(words, unique=True, min_size=1, max_size=3))
        times = sorted(draw(st.sets(seconds, min_size=len(names) + 1, max_size=len(names) + 1)))
        for name, start, end in zip(names, times, times[1:], strict=False):
            fields = {"id": f"{speaker}-{name}", "speaker": speaker, "text": draw(texts)}
            if segmented:
                last = end == times[len(names)] and draw(st.booleans())
                end = None if last else end
                fields |= {"recording_id": recording, "start": start, "end": end, "audio": source}
                fields["channel"] = draw(st.none() | st.integers(0, 3))
            else:
                fields["audio"] = draw(audio)
            utterance = Utterance(**fields)
            starts = sorted(draw(st.lists(seconds, max_size=3)))
            timed = [Interval(s, draw(st.floats(0, 10)), draw(labels)) for s in starts]
            held = tuple(i for i in timed if utterance.segment.holds(i))
            utterances.append(replace(utterance, words=held, phones=held[:1]))
    ids = [u.id for u in utterances]
    if len(set(ids)) < len(ids):  # "a" + "-" + "b-c" and "a-b" + "-" + "c"
        return utterances[:1]
    return utterances


@settings(max_examples=80, deadline=None, derandomize=True)
@given(utterances=directories())
def test_reading_gives_back_what_was_written(tmp_path_factory, utterances):
    path = tmp_path_factory.mktemp("data")
    write_data_dir(path, utterances)
    assert read_data_dir(path) == sorted(utterances, key=lambda u: u.id)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(utterances=directories())
def test_files_are_sorted_as_sort_in_the_c_locale_does(tmp_path_factory, utterances):
    path = tmp_path_factory.mktemp("data")
    write_data_dir(path, utterances)
    for name in ("wav.scp", "text", "utt2spk", "spk2utt"):
        subprocess.run(
            ["sort", "-c", "-k1,1", path / name], env={**os.environ, "LC_ALL": "C"}, check=True
        )


def test_files_are_as_kaldi_has_them(segmented):
    assert (segmented / "segments").read_text() == (
        "ann-1 rec1 0.125 1.0\nann-2 rec1 1.0 -1\nbob-1 rec2 0.5 1.75\n"
    )
    assert (segmented / "spk2utt").read_text() == "ann ann-1 ann-2\nbob bob-1\n"
    assert (segmented / "ctm").read_text().splitlines()[2] == "rec1 1 1.5 0.25 again"
    assert (segmented / "phones.ctm").read_text() == "rec1 1 0.125 0.1 h\nrec1 1 0.3 0.075 o\n"


def test_intervals_go_to_the_segment_that_holds_their_centre(segmented):
    # the boundary between ann-1 and ann-2 is at 1.0 s
    (segmented / "ctm").write_text(
        ";; a comment\nrec1 1 0.9 0.19 before 0.7\nrec1 1 0.9 0.21 after\nrec2 1 0.0 0.1 nowhere\n"
    )
    first, second, third = read_data_dir(segmented)
    assert [i.label for i in first.words] == ["before"]
    assert second.words == (Interval(0.9, 0.21, "after"),)
    assert third.words == ()


def test_rewriting_removes_what_no_longer_holds(segmented, tone):
    write_data_dir(segmented, [Utterance("a", "a", "x", tone("a.wav"))])
    assert {p.name for p in segmented.iterdir()} == {"wav.scp", "text", "utt2spk", "spk2utt"}


def test_durations_are_optional(whole):
    assert read_durations(whole) == {}
    (whole / "utt2dur").write_text("eve-0 1.5\n")
    assert read_durations(whole) == {"eve-0": 1.5}


def test_shell_commands_are_refused_unless_allowed(whole):
    (whole / "wav.scp").write_text("eve-0 touch hacked |\neve-1 x.wav\neve-2 x.wav\n")
    with pytest.raises(UserError, match=r"'eve-0' is a shell command.*--allow-pipes"):
        read_data_dir(whole)
    assert read_data_dir(whole, allow_pipes=True)[0].audio == "touch hacked |"
    assert not Path("hacked").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text", b"ann-1 \xff\n", r"text:1: not UTF-8"),
        ("text", b"\xef\xbb\xbfann-1 x\n", r"text:1: starts with a byte order mark"),
        ("utt2spk", b"ann-1 ann\n\nann-2 ann x\n", r"utt2spk:3: has 3 fields, not 2"),
        ("utt2spk", b"ann-1 ann\nann-1 ann\n", r"utt2spk:2: 'ann-1' is there for the second"),
        ("segments", b"ann-1 rec1 0 zero\n", r"segments:1: 'zero' is not a time"),
        ("segments", b"ann-1 rec1 0 inf\n", r"segments:1: 'inf' is not a time"),
        ("segments", b"ann-1 rec1 0 1\n", r"'ann-2' is in only one of text and segments \(2 "),
        ("utt2spk", b"ann-1 ann\nann-2 ann\n", r"'bob-1' is in only one of text and utt2spk"),
        ("wav.scp", b"rec1\n", r"wav.scp:1: has no audio"),
        ("wav.scp", b"rec1 a.wav\n", r"no recording 'rec2', which utterance 'bob-1' needs"),
        ("ctm", b"rec1 1 0.5 hello\n", r"ctm:1: has 4 fields, not 5 to 8"),
        ("text", b"", r"text: empty"),
    ],
)
def test_reading_names_file_and_line(segmented, name, content, message):
    (segmented / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_data_dir(segmented)
    assert str(segmented) in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_a_missing_file_is_named(segmented):
    (segmented / "utt2spk").unlink()
    with pytest.raises(UserError, match=r"utt2spk: cannot be read: No such file"):
        read_data_dir(segmented)


@pytest.mark.parametrize(
    ("line", "end", "channel"),
    [
        ("rec1 0 -1", None, None),
        ("rec1 0 -1.0", None, None),
        ("rec1 0.0 -1.00 1", None, 1),
        ("rec1 0 -1e0", None, None),
        ("rec1 0 0.9 0", 0.9, 0),
        ("rec1 0 0.9 -1", 0.9, None),
        ("rec1 0 9e-1 12\r", 0.9, 12),
    ],
)
def test_segments_as_kaldi_takes_them(line, end, channel):
    segment = parse("segments", 1, f"u {line}".encode()).value
    assert segment == Segment("rec1", 0.0, end, channel)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u r 0 -1.5", "'-1.5' is not a time"),
        ("u r 0 -2", "'-2' is not a time"),
        ("u r -1 1", "'-1' is not a time"),
        ("u r 0 1 A", "'A' is not a channel"),
        ("u r 0 1 1.0", "'1.0' is not a channel"),
        ("u r 0 1 -2", "'-2' is not a channel"),
        ("u r 0 1 0 0", "has 6 fields, not 4 or 5"),
    ],
)
def test_segments_that_kaldi_refuses(line, message):
    with pytest.raises(ValueError, match=message):
        parse("segments", 1, line.encode())


@pytest.mark.parametrize(
    ("fields", "channel"),
    [
        ("r 1 0.5 0.25 word", 0),
        ("r A 0.5 0.25 word 0.9", 0),
        ("r b 0.5 0.25 word NA lex", 1),
        ("r 2 0.5 0.25 word 0.9 lex spk", 1),
        ("r left 0.5 0.25 word", None),
    ],
)
def test_ctm_in_the_forms_of_nist(fields, channel):
    row = parse("ctm", 3, fields.encode())
    assert row == Row(3, "r", Interval(0.5, 0.25, "word"), channel)
    with pytest.raises(ValueError, match="has 9 fields, not 5 to 8"):
        parse("ctm", 3, f"{fields}{' x' * (9 - len(fields.split()))}".encode())


def test_words_go_to_the_utterance_on_their_channel(tmp_path, tone):
    """Two speakers of a telephone call speak at the same time."""
    path, call = tmp_path / "data", tone("call.wav", 2.0, channels=2)
    left = Utterance("a-1", "a", "yes", call, "call", 0.0, 2.0, channel=0)
    right = replace(left, id="b-1", speaker="b", text="no well", channel=1)
    write_data_dir(path, [left, right])
    assert (path / "segments").read_text() == "a-1 call 0.0 2.0 0\nb-1 call 0.0 2.0 1\n"
    for first, second in (("1", "2"), ("A", "B")):
        (path / "ctm").write_text(
            f"call {second} 0.25 0.5 no 0.9 lex\n"
            f"call {first} 0.5 0.25 yes\n"
            f"call {second} 1.0 0.5 well\n"
        )
        one, other = read_data_dir(path)
        assert one.words == (Interval(0.5, 0.25, "yes"),)
        assert other.words == (Interval(0.25, 0.5, "no"), Interval(1.0, 0.5, "well"))
    write_data_dir(tmp_path / "again", [one, other])
    assert read_data_dir(tmp_path / "again") == [one, other]


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named_and_the_command_helps(segmented, codec):
    right = (segmented / "text").read_bytes()
    (segmented / "text").write_bytes(right.decode().encode(codec))
    with pytest.raises(UserError, match="text: UTF-16, not UTF-8; convert it") as error:
        read_data_dir(segmented)
    subprocess.run(str(error.value).splitlines()[1], shell=True, check=True)
    assert (segmented / "text").read_bytes() == right


good = Utterance("ann-1", "ann", "x", "a.wav")


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        ([], "no utterances"),
        ([good, good], "two utterances have this id"),
        ([replace(good, id="ann 1")], "has white space"),
        ([replace(good, id="ann-\u00a01")], "has white space"),
        ([replace(good, speaker="bob")], "must start with 'bob-'"),
        ([replace(good, id="ann-\u200b1")], r"has U\+200B ZERO WIDTH SPACE; ids may not"),
        ([replace(good, channel=-1)], "channel -1 is not one"),
        ([replace(good, audio="a\nb")], "line breaks"),
        ([replace(good, start=2.0, end=1.0)], "empty or negative"),
        ([replace(good, end=float("nan"))], "empty or negative"),
        ([replace(good, words=(Interval(0, 1, ""),))], "is empty"),
        ([replace(good, words=(Interval(-1, 3, "x"),))], "no valid time"),
        ([replace(good, end=1.0, words=(Interval(1.0, 1.0, "x"),))], "outside of its segment"),
        ([replace(good, text="\ud800")], "surrogates not allowed"),
        ([replace(good, text="a\0b")], "has a NUL character"),
        (
            [
                replace(good, recording_id="r"),
                replace(good, id="ann-2", recording_id="r", audio="b"),
            ],
            "recording 'r' has two audio files",
        ),
    ],
)
def test_what_reading_would_not_give_back_is_not_written(tmp_path, utterances, message):
    with pytest.raises(UserError, match=message):
        write_data_dir(tmp_path / "data", utterances)
    assert not (tmp_path / "data").exists()
