"""Rules of validation one by one: Kaldi's, ours, and that a repair keeps what is good."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.config import UserError
from plateau.data.kaldi import read_data_dir
from plateau.data.manifests import to_manifests
from plateau.data.repair import fix_data_dir
from plateau.data.validate import examine, validate_data_dir
from tests.data.test_validate import ALL, ROOT, contents, edit, script


def set_text(text: str, encoding: str = "utf-8"):
    return lambda path: (path / "text").write_bytes(text.encode(encoding))


def text_of(first: str) -> str:
    return f"ann-1 {first}\nann-2 again\nbob-1 tɔ́ŋ\n"


HELLO = {"ann-1": "hello world"}
# What utils/validate_data_dir.sh and utils/validate_text.pl of Kaldi refuse (or take, where no kind
# is given), and what they do not look at but the tools after them: the transcript after a repair.
KALDI = {
    "taken": (text_of("hello world"), None, HELLO),
    "taken: other marks": (
        text_of("hello <noise> #world"),
        None,
        {"ann-1": "hello <noise> #world"},
    ),
    "<s>": (text_of("<s> hello world"), "characters", HELLO),
    "</s>": (text_of("hello world </s>"), "characters", HELLO),
    "#0": (text_of("hello #0 world"), "characters", HELLO),
    "<eps>": (text_of("hello <eps> world"), "characters", HELLO),
    "<unk>": (text_of("hello <unk> world"), "characters", {"ann-1": "hello [unk] world"}),
    "<blk>": (text_of("<blk>"), "characters", {"ann-1": "[blk]"}),
    "no-break space": (text_of("hello\u00a0world"), "characters", HELLO),
    "ideographic space": (text_of("hello\u3000world"), "characters", HELLO),
    "line separator": (text_of("hello\u2028world"), "characters", HELLO),
    "next line": (text_of("hello\x85world"), "characters", HELLO),
    "form feed": (text_of("hello\x0cworld"), "characters", HELLO),
    "zero-width space": (text_of("hel\u200blo world"), "characters", HELLO),
    "byte order mark within": (text_of("hello \ufeffworld"), "characters", HELLO),
    "escape": (text_of("hello\x1bworld"), "characters", HELLO),
    "word mark": (text_of("hello\u2581world"), "characters", {"ann-1": "hello_world"}),
    "not sorted": ("ann-2 again\nann-1 hello world\nbob-1 tɔ́ŋ\n", "order", HELLO),
    "twice": (text_of("hello world") + "bob-1 tɔ́ŋ\n", "duplicate", HELLO),
    "id": (text_of("hello world").replace("ann-2", "ann\u200b-2"), "id", {"ann-2": "again"}),
}


@pytest.mark.parametrize("case", KALDI)
def test_texts_that_kaldi_refuses(segmented, case):
    text, kind, said = KALDI[case]
    set_text(text)(segmented)
    (segmented / "ctm").unlink()
    problems = validate_data_dir(segmented)
    assert {p.kind for p in problems} == ({kind} if kind else set())
    assert all(not p.warning and p.fixable for p in problems)
    assert fix_data_dir(segmented).dropped == {}
    assert validate_data_dir(segmented) == []
    texts = {u.id: u.text for u in read_data_dir(segmented)}
    assert texts.keys() == set(ALL)
    assert texts.items() >= said.items()


def test_line_ends_of_windows_are_taken(segmented):
    """Kaldi refuses them; programs there write them."""
    good = read_data_dir(segmented)
    for name in ("wav.scp", "text", "utt2spk", "spk2utt", "segments", "ctm", "phones.ctm"):
        (segmented / name).write_bytes((segmented / name).read_bytes().replace(b"\n", b"\r\n"))
    assert validate_data_dir(segmented) == []
    assert read_data_dir(segmented) == good


def test_ctm_words_are_mended_as_texts_are(segmented):
    edit(segmented / "text", "hello world", "<unk> world")
    edit(segmented / "ctm", "0.25 hello", "0.25 <unk> 0.7")
    edit(
        segmented / "ctm", "rec1 1 0.5 0.375 world", "rec1 1 0.4 0.1 <eps>\nrec1 1 0.5 0.375 world"
    )
    assert fix_data_dir(segmented).dropped == {}
    assert validate_data_dir(segmented) == []
    first = (segmented / "ctm").read_text().splitlines()[:2]
    assert first == ["rec1 1 0.125 0.25 [unk] 0.7", "rec1 1 0.5 0.375 world"]


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["text", "utt2spk", "ctm"])
def test_utf_16_is_one_problem(segmented, codec, name):
    good = read_data_dir(segmented)
    (segmented / name).write_bytes((segmented / name).read_text().encode(codec))
    (problem,) = validate_data_dir(segmented)
    assert (problem.kind, problem.what) == ("encoding", "UTF-16, not UTF-8")
    assert problem.advice.startswith("convert it: iconv -f UTF-16")
    assert fix_data_dir(segmented).dropped == {}
    assert read_data_dir(segmented) == good


def test_a_repair_does_not_lose_lines_of_another_encoding(segmented):
    (segmented / "text").write_bytes((segmented / "text").read_bytes().replace(b"again", b"\xe9"))
    before = contents(segmented)
    (problem,) = [p for p in validate_data_dir(segmented) if p.kind == "encoding"]
    assert "text:2: not UTF-8 (byte 0xe9); convert it from its ENCODING: iconv" in str(problem)
    with pytest.raises(UserError, match="Nothing was changed"):
        fix_data_dir(segmented)
    assert contents(segmented) == before
    command = problem.advice.split(": ", 1)[1].replace("ENCODING", "LATIN1")
    command += " && mv text.utf8 text"
    subprocess.run(command, shell=True, check=True, cwd=segmented)
    assert read_data_dir(segmented)[1].text == "é"


def rewrite(name: str, samples: np.ndarray, **options):
    def damage(path: Path) -> None:
        soundfile.write(path.parent / "audio" / name, samples, 8000, **options)

    return damage


NAN = np.where(np.arange(8000) == 4000, np.nan, 0.1)


@pytest.mark.parametrize(
    ("samples", "kind", "message"),
    [
        (NAN, "audio", "1.wav: sample 4000 (0.5 s) is NaN; mend the file or leave out"),
        (-NAN * np.inf, "audio", "sample 0 (0 s) is infinite"),
        (np.zeros(1), "short", "eve-1: has 0.125 ms, less than a feature window (25 ms)"),
        (np.zeros(199), "short", "eve-1: has 24.88 ms, less than a feature window (25 ms)"),
    ],
)
def test_audio_without_features_is_left_out(whole, samples, kind, message):
    rewrite("1.wav", samples, subtype="FLOAT")(whole)
    (problem,) = validate_data_dir(whole)
    assert problem.kind == kind
    assert message in str(problem)
    assert list(fix_data_dir(whole).dropped) == ["eve-1"]
    assert validate_data_dir(whole) == []
    assert [u.id for u in read_data_dir(whole)] == ["eve-0", "eve-2"]


def test_the_shortest_audio_is_good(whole):
    rewrite("1.wav", np.zeros(200))(whole)
    assert validate_data_dir(whole) == []


def test_a_segment_that_is_too_short(segmented):
    edit(segmented / "segments", "0.5 1.75", "1.5 1.524")
    (segmented / "ctm").unlink()
    (problem,) = validate_data_dir(segmented)
    assert "segments:bob-1: has 24 ms, less than" in str(problem)
    assert list(fix_data_dir(segmented).dropped) == ["bob-1"]
    assert validate_data_dir(segmented) == []


def test_floats_far_beyond_full_scale_are_a_warning(whole):
    rewrite("1.wav", np.full(8000, 3e4), subtype="FLOAT")(whole)
    (problem,) = validate_data_dir(whole)
    assert problem.warning
    assert "1.wav: its samples go to 3e+04 times full scale" in str(problem)
    rewrite("1.wav", np.full(8000, 1.5), subtype="FLOAT")(whole)
    assert validate_data_dir(whole) == []


def test_kaldis_segments_are_kept(segmented):
    """Ends of -1 in any spelling, and channels."""
    lines = "ann-1 rec1 0.125 1.0 0\nann-2 rec1 1.0 -1.00 -1\nbob-1 rec2 0.5 -1.0\n"
    (segmented / "segments").write_text(lines)
    (segmented / "utt2dur").write_text("ann-1 0.875\nann-2 1.0\nbob-1 1.5\n")
    assert validate_data_dir(segmented) == []
    assert fix_data_dir(segmented).backup is None
    assert (segmented / "segments").read_text() == lines
    assert [(u.end, u.channel) for u in read_data_dir(segmented)] == [
        (1.0, 0),
        (None, None),
        (None, None),
    ]


def test_rounding_is_no_fault(segmented):
    edit(segmented / "segments", "0.5 1.75", "0.5 2.0000000000000004")
    assert validate_data_dir(segmented) == []
    (said,) = [s for s in to_manifests(segmented)[1] if s.id == "bob-1"]
    assert said.end == 2.0


def test_channels(segmented, tone):
    """One that is not there needs somebody to mend its number: the utterance may be good."""
    tone("second.flac", 2.0, channels=2)
    (problem,) = validate_data_dir(segmented)
    assert problem.warning
    assert "wav.scp:rec2: warning: has 2 channels; the first is taken" in str(problem)
    edit(segmented / "segments", "0.5 1.75", "0.5 1.75 1")
    edit(segmented / "ctm", "rec2 1 ", "rec2 B ")
    assert validate_data_dir(segmented) == []
    edit(segmented / "segments", "0.5 1.75 1", "0.5 1.75 2")
    edit(segmented / "ctm", "rec2 B ", "rec2 3 ")
    (problem,) = validate_data_dir(segmented)
    assert "bob-1: is on channel 2, its recording has 2; channels count from 0" in str(problem)
    assert not problem.fixable
    assert fix_data_dir(segmented).dropped == {}


def test_a_word_that_ends_after_its_recording_is_shortened(segmented):
    edit(segmented / "ctm", "1.5 0.25 again", "1.9 0.25 again 0.5")
    fix_data_dir(segmented)
    assert "rec1 1 1.9 0.1 again 0.5\n" in (segmented / "ctm").read_text()


def test_utt2dur_is_compared_with_what_is_decoded(whole):
    """The header of the MP3 says a second; there are two."""
    path = whole.parent / "audio" / "1.wav"
    soundfile.write(path, np.zeros(16000), 8000, format="MP3")
    content = bytearray(path.read_bytes())
    at = max(content.find(b"Xing"), content.find(b"Info")) + 8
    content[at : at + 4] = (int.from_bytes(content[at : at + 4], "big") // 2).to_bytes(4, "big")
    path.write_bytes(content)
    (whole / "utt2dur").write_text("eve-0 1\neve-1 2\neve-2 1\n")
    assert validate_data_dir(whole) == []
    assert examine(whole).seconds("eve-1") == 2.0


def test_a_command_that_fails_is_left_out_by_the_command_that_is_named(whole):
    """Each command runs once in a repair, though the directory is looked at twice."""
    edit(whole / "wav.scp", "eve-0 ", f"eve-0 echo x >> {whole}/ran; cat /nowhere |\neve-0 ")
    lines = (whole / "wav.scp").read_text().splitlines()
    (whole / "wav.scp").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    done = script(whole, "--allow-pipes")
    assert done.returncode == 1
    first, remedy, _ = done.stderr.splitlines()
    assert "ends with 1: cat: /nowhere: No such file" in first
    assert first.endswith("(--fix --allow-pipes does)")
    assert remedy.startswith("mend all: python local/validate_data_dir.py --fix --allow-pipes ")
    (whole / "ran").unlink()
    command = remedy.split(": ", 1)[1].replace("python", sys.executable, 1)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert (whole / "ran").read_text() == "x\n"
    assert "dropped 'eve-0'" in done.stderr
    assert done.stdout == f"{whole}: valid: 2 utterances, 1 speakers, 0.00 hours\n"


def test_a_command_that_is_not_installed_is_no_reason_to_leave_out(whole):
    lines = (whole / "wav.scp").read_text().splitlines()
    (whole / "wav.scp").write_text("\n".join(["eve-0 no_such_tool x |", *lines[1:]]) + "\n")
    (problem,) = validate_data_dir(whole, allow_pipes=True)
    assert "ends with 127" in str(problem)
    assert not problem.fixable
    assert fix_data_dir(whole, allow_pipes=True).dropped == {}
