"""Data directories, and LibriSpeech as published, to one stm and back."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.data.kaldi import Interval, Utterance, read_data_dir, write_data_dir
from plateau.data.validate import validate_data_dir
from plateau.text import normalise
from tests.data.test_librispeech import CHAPTERS, make_set
from tests.decoding.test_files import texts as nasty
from tests.sclite import counts, needs_sclite

RATE = 8000
SECONDS = 3.2505  # half a millisecond, which no stm has

anything = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\0"))
ids = st.text("aZ09_.é(){}@;*\\<>%:日", min_size=1, max_size=4)


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    """A recording of two channels, by two names."""
    folder = tmp_path_factory.mktemp("audio")
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (round(SECONDS * RATE), 2))
    for name in ("one", "two"):
        soundfile.write(folder / f"{name}.wav", samples, RATE)
    return folder


@st.composite
def directories(draw, audio):
    """Utterances of a data directory, with segments or without."""
    texts = nasty | anything.map(normalise)
    if not draw(st.booleans()):
        return [
            Utterance(id, id, draw(texts), str(audio / f"{name}.wav"))
            for id, name in zip(draw(st.tuples(ids, ids)), ("one", "two"), strict=True)
        ]
    utterances = []
    for name in ("one", "two"):
        channel = draw(st.sampled_from([None, 0, 1]))
        for _ in range(draw(st.integers(1, 3))):
            start = draw(st.floats(0, SECONDS - 0.1))
            end = draw(st.none() | st.floats(start + 0.05, SECONDS))
            speaker = draw(ids)
            utterances.append(
                Utterance(
                    f"{speaker}-{len(utterances)}",
                    speaker,
                    draw(texts),
                    str(audio / f"{name}.wav"),
                    name,
                    start,
                    end,
                    channel=channel,
                )
            )
    return utterances


def files(path: Path, *names: str) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in names}


@settings(max_examples=60)
@given(data=st.data())
def test_there_and_back(load_script, audio, tmp_path_factory, data):
    stm = load_script("stm")
    folder = tmp_path_factory.mktemp("data")
    utterances = data.draw(directories(audio))
    if len({u.id for u in utterances}) < len(utterances):
        utterances = utterances[:1]
    write_data_dir(folder / "a", utterances)
    stm.main(folder / "a", folder / "a.stm")
    stm.main(folder / "a.stm", folder / "b", folder / "a" / "wav.scp")
    names = "text", "utt2spk", "spk2utt", "wav.scp"
    assert files(folder / "b", *names) == files(folder / "a", *names)
    before, after = read_data_dir(folder / "a"), read_data_dir(folder / "b")
    for old, new in zip(before, after, strict=True):
        end = SECONDS if old.end is None else old.end
        assert -1e-9 <= old.start - new.start < 0.001 and -1e-9 <= end - new.end < 0.001
        assert (new.channel or 0) == (old.channel or 0)
        recording = old.segment.recording_id
        unset = {"start": 0, "end": 1, "channel": None}
        assert replace(new, **unset) == replace(old, **unset, recording_id=recording)
    # What is in whole milliseconds already stays.
    stm.main(folder / "b", folder / "b.stm")
    assert (folder / "b.stm").read_bytes() == (folder / "a.stm").read_bytes()
    problems = [
        p for p in validate_data_dir(folder / "b") if p.kind not in ("characters", "transcript")
    ]
    assert [p.finding for p in problems if not p.warning] == []


def test_librispeech_and_the_folder_of_its_audio(load_script, tmp_path, capsys):
    stm, root = load_script("stm"), tmp_path / "dev-clean"
    make_set(root, CHAPTERS)
    stm.main(root, tmp_path / "dev.stm")
    assert capsys.readouterr().out.endswith("dev.stm: 4 segments of 4 recordings, 0.00 h\n")
    assert (tmp_path / "dev.stm").read_text() == (
        "174-50561-0000 1 174 0.000 1.000 FORGOTTEN TOO\n"
        "84-121123-0000 1 84 0.000 1.000 GO DO YOU HEAR\n"
        "84-121123-0001 1 84 0.000 1.000 BUT IN LESS THAN\n"
        "84-99-0000 1 84 0.000 1.000 IT'S\n"
    )
    stm.main(tmp_path / "dev.stm", tmp_path / "dev", root)
    assert validate_data_dir(tmp_path / "dev") == []
    assert (tmp_path / "dev" / "utt2spk").read_text() == (
        "174-50561-0000 174\n84-121123-0000 84\n84-121123-0001 84\n84-99-0000 84\n"
    )
    assert (tmp_path / "dev" / "segments").read_text().splitlines()[2] == (
        "84-121123-0001 84-121123-0001 0.0 1.0"
    )


def test_segments_of_others_and_what_they_leave_out(load_script, audio, tmp_path, capsys):
    (tmp_path / "x.stm").write_text(
        "one 1 inter_segment_gap 0 0.5 <o,,unknown> ignore_time_segment_in_scoring\n"
        "one 1 ann 0.5 1.5 <o,f0,female> yes no\n"
        "two A bob 0 2.25 <o,f0,male> no\n"
    )
    load_script("stm").main(tmp_path / "x.stm", tmp_path / "data", audio)
    out = capsys.readouterr().out
    assert "x.stm: 1 segments are not to be scored, and were left out\n" in out
    assert out.endswith("data: 2 segments of 2 recordings, 0.00 h\n")
    assert files(tmp_path / "data", "text", "segments") == {
        "text": b"ann-one-0000500-0001500 yes no\nbob-two no\n",
        "segments": b"ann-one-0000500-0001500 one 0.5 1.5\nbob-two two 0.0 2.25\n",
    }


@needs_sclite
def test_sclite_takes_the_words_of_the_ctm_for_those_of_the_stm(load_script, audio, tmp_path):
    """A directory's own ctm, whose times are those of the recording, against its stm."""
    words = tuple(Interval(0.5 + 0.25 * i, 0.2, f"w{i}") for i in range(8))
    utterances = [
        Utterance("s-1", "s", "w0 w1 w2", str(audio / "one.wav"), "one", 0.4, 1.23, words[:3]),
        Utterance(
            "s-2", "s", "w3 w4 w5 w6 w7", str(audio / "one.wav"), "one", 1.23, None, words[3:]
        ),
    ]
    write_data_dir(tmp_path / "data", utterances)
    load_script("stm").main(tmp_path / "data", tmp_path / "ref.stm")
    (tmp_path / "hyp.ctm").write_bytes((tmp_path / "data" / "ctm").read_bytes())
    found = counts(tmp_path, "ctm")
    assert (found["sentences"], found["correct"], found["errors"]) == (2, 8, 0)


def test_mistakes_are_named_and_nothing_is_lost(load_script, audio, tmp_path):
    stm = load_script("stm").main
    path = tmp_path / "x.stm"
    path.write_text("one 1 s 0 1 a\nthree 1 s 0 1 b\nthree 1 s 1 2 c\n")
    write_data_dir(tmp_path / "old", [Utterance("s-1", "s", "a", str(audio / "one.wav"))])
    before = files(tmp_path / "old", "text", "wav.scp")
    (tmp_path / "twice" / "below").mkdir(parents=True)
    for place in ("one.wav", "below/one.flac"):
        (tmp_path / "twice" / place).touch()
    (tmp_path / "twice" / "below" / "one.txt").touch()
    for arguments, message in [
        ((path, tmp_path / "old", audio), "old: is there already; name a new data directory"),
        ((path, path, audio), "x.stm: is there already; name a new data directory"),
        ((path, tmp_path / "new"), "give --audio: the folder of the recordings, or the wav.scp"),
        ((path, tmp_path / "new", tmp_path / "no"), "no: neither a folder nor a wav.scp"),
        ((path, tmp_path / "new", tmp_path / "wav.scp"), "wav.scp: cannot be read: No such file"),
        (
            (path, tmp_path / "new", audio),
            f"x.stm: 1 recordings without audio, such as 'three', which has 2 segments; looked for "
            f"it in {audio}",
        ),
        ((path, tmp_path / "new", tmp_path / "twice"), "two files of the recording 'one', "),
        ((tmp_path / "old", tmp_path / "new"), "new not the name of an stm, which ends so"),
        ((tmp_path, tmp_path / "y.stm"), "neither a Kaldi data directory, with wav.scp, nor a set"),
        ((tmp_path / "none.stm", tmp_path / "new", audio), "none.stm: no such file"),
    ]:
        with pytest.raises(UserError, match=re.escape(message)) as error:
            stm(*arguments)
        assert str(error.value).count("\n") < 3
    assert not (tmp_path / "new").exists() and not (tmp_path / "y.stm").exists()
    assert files(tmp_path / "old", "text", "wav.scp") == before


def test_audio_that_is_no_audio_is_named(load_script, tmp_path):
    make_set(tmp_path / "dev", {"1-2": {"1-2-0000": "YES"}})
    (tmp_path / "dev" / "1" / "2" / "1-2-0000.flac").write_bytes(b"fLaC nothing")
    with pytest.raises(UserError, match=r"'1-2-0000': .*1-2-0000\.flac: not readable as audio"):
        load_script("stm").main(tmp_path / "dev", tmp_path / "x.stm")
    assert not (tmp_path / "x.stm").exists()
