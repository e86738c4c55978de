import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.data.kaldi import Utterance, read_data_dir, write_data_dir
from plateau.data.repair import fix_data_dir
from plateau.data.validate import examine, validate_data_dir

ROOT = Path(__file__).parents[2]


def contents(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def shorten(path: Path) -> None:
    audio = path.parent / "audio" / "second.flac"
    audio.write_bytes(audio.read_bytes()[:-2000])


def reverse(path: Path) -> None:
    path.write_text("".join(line + "\n" for line in reversed(path.read_text().splitlines())))


def add_recording(path: Path) -> None:
    first = (path / "wav.scp").read_bytes().splitlines()[0]
    append("wav.scp", first.replace(b"rec1", b"rec3") + b"\n")(path)


def append(name: str, line: bytes):
    return lambda path: (path / name).write_bytes((path / name).read_bytes() + line)


def replacing(name: str, old: str, new: str):
    return lambda path: edit(path / name, old, new)


# what breaks the directory, the kind and place of what is found, the utterances that remain
ALL = ["ann-1", "ann-2", "bob-1"]
FAULTS = {
    "unsorted text": (lambda p: reverse(p / "text"), "order", "text:2", ALL),
    "unsorted ctm": (lambda p: reverse(p / "ctm"), "order", "ctm:2", ALL),
    "not UTF-8": (append("text", b"\xff\xfe x\n"), "line", "text:4: not UTF-8", ALL),
    "byte order mark": (
        lambda p: (p / "text").write_bytes(b"\xef\xbb\xbf" + (p / "text").read_bytes()),
        "bom",
        "text:1",
        ALL,
    ),
    "too few fields": (replacing("utt2spk", "ann-2 ann", "ann-2"), "line", "utt2spk:2", ALL[::2]),
    "too many fields": (
        replacing("segments", "0.5 1.75", "0.5 1.75 A"),
        "line",
        "segments:3: has 5 fields",
        ALL[:2],
    ),
    "no time": (replacing("segments", "0.5 1.75", "nan 1.75"), "line", "segments:3", ALL[:2]),
    "repeated line": (append("utt2spk", b"bob-1  bob\n"), "duplicate", "utt2spk:4", ALL),
    "contradiction": (append("utt2spk", b"bob-1 bo\n"), "conflict", "utt2spk:4", ALL[:2]),
    "two recordings": (append("wav.scp", b"rec2 x.wav\n"), "conflict", "wav.scp:3", ALL[:2]),
    "no transcript": (replacing("text", "ann-2 again\n", ""), "keys", "text:ann-2", ALL[::2]),
    "no speaker": (replacing("utt2spk", "ann-2 ann\n", ""), "keys", "utt2spk:ann-2", ALL[::2]),
    "no segment": (append("text", b"bob-2 x\n"), "keys", "segments:bob-2", ALL),
    "no recording": (
        lambda p: (p / "wav.scp").write_text((p / "wav.scp").read_text().splitlines()[0] + "\n"),
        "segment",
        "segments:bob-1",
        ALL[:2],
    ),
    "no speaker list": (lambda p: (p / "spk2utt").unlink(), "spk2utt", "spk2utt: no such", ALL),
    "wrong speaker list": (
        replacing("spk2utt", "ann-1 ann-2", "ann-1"),
        "spk2utt",
        "spk2utt:ann",
        ALL,
    ),
    "no audio file": (
        lambda p: (p.parent / "audio" / "first.wav").unlink(),
        "audio",
        "wav.scp:rec1",
        ALL[2:],
    ),
    "empty audio": (
        lambda p: (p.parent / "audio" / "first.wav").write_bytes(b""),
        "audio",
        "an empty file",
        ALL[2:],
    ),
    "unreadable audio": (
        lambda p: (p.parent / "audio" / "first.wav").write_bytes(b"not audio"),
        "audio",
        "not readable as audio",
        ALL[2:],
    ),
    "truncated audio": (shorten, "audio", "second.flac: truncated", ALL[:2]),
    "ends too late": (
        replacing("segments", "0.5 1.75", "0.5 2.52"),
        "segment",
        "segments:bob-1",
        ALL[:2],
    ),
    "ends late": (replacing("segments", "0.5 1.75", "0.5 2.48"), "end", "bob-1", ALL),
    "starts too late": (
        replacing("segments", "1.0 -1", "2.0 -1"),
        "segment",
        "segments:ann-2",
        ALL[::2],
    ),
    "ends slightly late": (replacing("segments", "0.5 1.75", "0.5 2.01"), "end", "bob-1", ALL),
    "ends before start": (
        replacing("segments", "0.5 1.75", "1.0 1.0"),
        "segment",
        "segments:bob-1",
        ALL[:2],
    ),
    "word after the end": (
        replacing("ctm", "1.5 0.25 again", "1.9 0.25 again"),
        "interval",
        "ctm:3",
        ALL,
    ),
    "phone in no recording": (append("phones.ctm", b"rec9 1 0 1 x\n"), "outside", "ctm:3", ALL),
    "ctm without duration": (append("ctm", b"rec2 1 1.0 x\n"), "line", "ctm:5", ALL),
    "stale utt2dur": (
        lambda p: (p / "utt2dur").write_text("ann-1 0.875\nann-2 3\n"),
        "duration",
        "utt2dur:ann-2",
        ALL,
    ),
    "unknown utt2dur": (
        lambda p: (p / "utt2dur").write_text("ann-1 0.875\nzoe 1\n"),
        "keys",
        "utt2dur:zoe",
        ALL,
    ),
    "unused recording": (add_recording, "unused", "wav.scp:rec3", ALL),
}


def test_good_directories_have_no_problems(segmented, whole):
    assert validate_data_dir(segmented) == []
    assert validate_data_dir(whole) == []
    assert examine(segmented).summary() == "3 utterances, 2 speakers, 0.00 hours"
    seconds = [examine(segmented).seconds(utterance) for utterance in ALL]
    assert seconds == [0.875, 1.0, 1.25]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_mended(segmented, fault):
    damage, kind, place, remaining = FAULTS[fault]
    damage(segmented)
    problems = validate_data_dir(segmented)
    matching = [p for p in problems if p.kind == kind and place in str(p)]
    assert len(matching) == 1, [str(p) for p in problems]
    assert all(len(str(p).splitlines()) == 1 for p in problems)
    before = contents(segmented)
    audio = contents(segmented.parent / "audio")

    fixed = fix_data_dir(segmented)

    assert fixed.problems == problems
    assert sorted(fixed.dropped.keys() & set(ALL)) == sorted(set(ALL) - set(remaining))
    assert all(fixed.dropped.values())
    assert [u.id for u in read_data_dir(segmented)] == remaining
    assert validate_data_dir(segmented) == []
    assert contents(segmented / ".backup-1") == before
    assert contents(segmented.parent / "audio") == audio


def test_mending_keeps_the_rest_of_each_line(segmented):
    before = contents(segmented)
    reverse(segmented / "text")
    (segmented / "spk2utt").unlink()
    fix_data_dir(segmented)
    assert contents(segmented) == before


def test_an_end_slightly_after_the_recording_is_moved_back(segmented):
    edit(segmented / "segments", "0.5 1.75", "0.5 2.01")
    fixed = fix_data_dir(segmented)
    assert fixed.dropped == {}
    assert [u.end for u in read_data_dir(segmented)] == [1.0, None, 2.0]


def test_each_repair_keeps_its_own_backup(segmented):
    good = contents(segmented)
    for number in (1, 2):
        (segmented / "spk2utt").unlink()
        fix_data_dir(segmented)
        assert contents(segmented) == good
        assert (segmented / f".backup-{number}" / "text").exists()
    fix_data_dir(segmented)  # nothing to do
    assert not (segmented / ".backup-3").exists()


@pytest.mark.parametrize("name", ["wav.scp", "text", "utt2spk"])
def test_a_missing_file_is_found_and_cannot_be_mended(segmented, name):
    (segmented / name).unlink()
    (problem,) = validate_data_dir(segmented)
    assert f"{name}: no such file" in str(problem)
    before = contents(segmented)
    with pytest.raises(UserError, match="Nothing was changed"):
        fix_data_dir(segmented)
    assert contents(segmented) == before


def test_a_repair_never_leaves_an_empty_directory(segmented):
    shutil.rmtree(segmented.parent / "audio")
    before = contents(segmented)
    with pytest.raises(UserError, match="no utterance is usable"):
        fix_data_dir(segmented)
    assert contents(segmented) == before
    assert not (segmented / ".backup-1").exists()


def test_no_directory(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        validate_data_dir(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (replacing("text", "eve-1 word 1", "eve-1"), "transcript"),
        (lambda p: write_prefixed(p, "ev"), "speaker"),
        (lambda p: (p / "ctm").write_text("eve-0 1 0 0.5 word\n"), "words"),
    ],
)
def test_warnings_leave_the_directory_as_it_is(whole, damage, kind):
    damage(whole)
    problems = validate_data_dir(whole)
    assert {p.kind for p in problems} == {kind}
    assert all(p.warning and not p.fixable and "warning" in str(p) for p in problems)
    before = contents(whole)
    fix_data_dir(whole)
    assert contents(whole) == before
    assert len(read_data_dir(whole)) == 3


def write_prefixed(path: Path, speaker: str) -> None:
    (path / "utt2spk").write_text("".join(f"eve-{i} {speaker}\n" for i in range(3)))
    (path / "spk2utt").write_text(f"{speaker} eve-0 eve-1 eve-2\n")


def test_shell_commands_are_a_problem_unless_allowed(whole, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    edit(whole / "wav.scp", "eve-0 ", "eve-0 touch ran; cat ")
    edit(whole / "wav.scp", "0.wav", "0.wav |")
    (problem,) = validate_data_dir(whole)
    assert (problem.kind, problem.where) == ("pipe", "eve-0")
    assert "--allow-pipes" in str(problem)
    assert examine(whole).summary().endswith("hours besides what was not read")
    assert fix_data_dir(whole).dropped == {}
    assert not Path("ran").exists()
    found = examine(whole, allow_pipes=True)
    assert found.problems == []
    assert found.seconds("eve-0") == 1.0
    assert Path("ran").exists()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_after_a_repair_nothing_is_left_to_repair(tmp_path_factory, tone_files, seed):
    """Lines of a good directory are lost, doubled, swapped and garbled at random."""
    path = tmp_path_factory.mktemp("random") / "set"
    shutil.copytree(tone_files, path)
    generator = random.Random(seed)
    for file in sorted(path.iterdir()):
        lines = file.read_bytes().splitlines()
        for _ in range(generator.randrange(3)):
            at = generator.randrange(len(lines))
            match generator.randrange(6):
                case 0:
                    del lines[at : at + 1]
                case 1:
                    lines.insert(at, generator.choice(lines))
                case 2:
                    generator.shuffle(lines)
                case 3:
                    lines[at] = lines[at].replace(generator.choice([b" ", b"1", b"0"]), b"\xff", 1)
                case 4:
                    lines[at] = lines[at].replace(b"1", b"9", 1)
                case 5:
                    fields = lines[at].split()
                    generator.shuffle(fields)
                    lines[at] = b" ".join(fields)
            lines = lines or [b"x"]
        file.write_bytes(b"\n".join(lines))
    problems = validate_data_dir(path)
    try:
        fixed = fix_data_dir(path)
    except UserError:
        assert any(p.kind in ("empty", "encoding") for p in problems)
        return
    assert fixed.problems == problems
    assert [str(p) for p in validate_data_dir(path) if p.fixable] == []
    assert not fixed.dropped.keys() & {u.id for u in read_data_dir(path)}


@pytest.fixture(scope="module")
def tone_files(tmp_path_factory):
    """A good directory of eight utterances in four recordings, that outlives a test."""
    root = tmp_path_factory.mktemp("tones")
    utterances = []
    for number in range(8):
        audio, speaker, start = root / f"{number // 2}.wav", f"s{number // 4}", number % 2
        soundfile.write(audio, np.full(16000, 0.1), 8000)
        place = (f"rec{number // 2}", start, start + 1.0)
        utterances.append(
            Utterance(f"{speaker}-{number}", speaker, f"w{number}", str(audio), *place)
        )
    write_data_dir(root / "set", utterances)
    (root / "set" / "ctm").write_text(
        "".join(f"{u.recording_id} 1 {u.start + 0.1} 0.5 {u.text}\n" for u in utterances)
    )
    return root / "set"


def script(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "local" / "validate_data_dir.py", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_script_succeeds_in_one_line_for_each_directory(segmented, whole):
    done = script(segmented, whole)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"{segmented}: valid: 3 utterances, 2 speakers, 0.00 hours",
        f"{whole}: valid: 3 utterances, 1 speakers, 0.00 hours",
    ]


def test_script_prints_twenty_problems_of_a_kind_and_mends(segmented, whole):
    lines = "".join(f"zoe-{number:02} hi\n" for number in range(30))
    append("text", lines.encode())(segmented)
    done = script(segmented, whole)
    assert done.returncode == 1
    assert f"{whole}: valid" in done.stdout
    printed = done.stderr.splitlines()
    assert sum("utterance is missing here" in line for line in printed) == 40  # in two files
    assert f"{segmented}/segments: 10 more of kind 'keys'" in printed
    assert printed[-1] == f"{segmented}: 60 problems"

    done = script("--fix", segmented)
    assert done.returncode == 0
    printed = done.stderr.splitlines()
    assert f"mended: {segmented}/utt2spk:zoe-00: this utterance is missing here" in printed
    assert f"{segmented}: dropped 'zoe-00': missing in utt2spk" in printed
    assert printed[-1] == f"{segmented}/.backup-1: the files as they were"
    assert done.stdout == f"{segmented}: valid: 3 utterances, 2 speakers, 0.00 hours\n"


def test_script_allows_pipes(whole):
    edit(whole / "wav.scp", "eve-0 ", "eve-0 cat ")
    edit(whole / "wav.scp", "0.wav", "0.wav |")
    assert script(whole).returncode == 1
    assert script(whole, "--allow-pipes").returncode == 0


def test_script_without_directory():
    done = script("/nowhere/at/all")
    assert done.returncode == 1
    assert done.stderr.startswith("/nowhere/at/all: no such directory")
