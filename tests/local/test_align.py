"""`local/align.sh` on good and bad input, with a model trained on tones."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, RecordingSet, SupervisionSet

pytest.importorskip("k2")

from plateau.config import UserError
from plateau.data.kaldi import Interval, Utterance, write_data_dir
from tests.job import ROOT, run_job, times_of
from tests.training.toy import RATE, TONES, speak

EXP_DIR = Path("exp/toy/conformer_ctc/x")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a finished job."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("job"))
    run_job("conformer_ctc", EXP_DIR, [])
    yield Path.cwd()
    patch.undo()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def align(load_script):
    return load_script("align").main


def tones(text: str, rate: int = RATE) -> np.ndarray:
    """The sound of a text, as in training."""
    samples = speak(text.replace(" ", ""), np.random.default_rng(0))
    if rate == RATE:
        return samples
    times = np.arange(round(len(samples) * rate / RATE)) / rate
    return np.interp(times, np.arange(len(samples)) / RATE, samples)


def read(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()]


def check_times(words: list[list[str]], true: tuple[Interval, ...]) -> None:
    """Of one utterance; see `test_alignments_are_where_the_tones_are`."""
    assert [word[4] for word in words] == [interval.label for interval in true]
    for (_, _, start, duration, _, _), interval in zip(words, true, strict=True):
        assert -0.09 < float(start) - interval.start < 0.04
        end = interval.start + interval.duration
        assert abs(float(start) + float(duration) - end) < 0.04


def test_each_bad_input_has_its_answer(job, align, tmp_path, capfd):
    texts = {
        "good": "abc ba",
        "other-rate": "cab ab",
        "two-channels": "abc ba",
        "silent": "",
        "unknown": "abc xyz",
        "fast": "abc ba abc ba abc ba",
        "truncated": "abc ba",
        "damaged": "abc ba" * 20,
        "unreadable": "abc ba",
        "missing": "abc ba",
        "click": "abc",
        "new-word": "ccbcc ab",
        "outside": "abc",
    }
    for name, text in texts.items():
        rate = 2 * RATE if name == "other-rate" else RATE
        samples = tones({"fast": "ab", "unknown": "abc"}.get(name, text), rate)
        if name == "two-channels":
            samples = np.stack([samples, np.zeros_like(samples)], axis=1)
        elif name == "click":
            samples = samples[:80]
        soundfile.write(tmp_path / f"{name}.wav", samples, rate)
    whole = (tmp_path / "truncated.wav").read_bytes()
    (tmp_path / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(tmp_path / "damaged.wav", tones(texts["damaged"]), RATE, format="FLAC")
    damaged = bytearray((tmp_path / "damaged.wav").read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + middle // 4] = bytes(middle // 4)
    (tmp_path / "damaged.wav").write_bytes(damaged)
    (tmp_path / "unreadable.wav").write_text("no audio")
    (tmp_path / "missing.wav").unlink()
    data = tmp_path / "kaldi"
    write_data_dir(
        data,
        [
            Utterance(
                name,
                name,
                text,
                str(tmp_path / f"{name}.wav"),
                recording_id=f"rec-{name}",
                end=9.0 if name == "outside" else None,
                words=times_of(text.split()) if name == "good" else (),
            )
            for name, text in texts.items()
        ],
    )
    out = tmp_path / "out"
    align(EXP_DIR, data, out=out)
    screen = capfd.readouterr().out
    left_out = dict(line.split(" ", 1) for line in (out / "left_out.txt").read_text().splitlines())
    frames = left_out["fast"].split()[4]  # 16 letters and 6 word starts
    assert left_out.pop("fast") == f"has 21 tokens and {frames} frames, no path fits"
    assert int(frames) < 21
    expected = {
        "silent": "has no text",
        "unknown": "has words that the model's tokens cannot spell: xyz",
        "truncated": "truncated: ",
        "damaged": "has damaged audio: not all of its samples can be read",
        "unreadable": "not readable as audio",
        "missing": "no such file",
        "click": "has 10 ms, less than a window",
        "outside": "is not inside of its recording",
    }
    assert left_out.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in left_out[name]
        assert f"kaldi: left out {name} {left_out[name]}" in screen
    assert f"resampled from {2 * RATE} Hz to the model's {RATE} Hz: 1 recordings" in screen
    assert "with several channels, of which --channel 0 is taken: 1 recordings" in screen
    assert "for training had no such words: " in screen and "ccbcc" in screen

    words = read(out / "words.ctm")
    assert {fields[0] for fields in words} == {"good", "other-rate", "two-channels", "new-word"}
    for name in {fields[0] for fields in words}:
        check_times([w for w in words if w[0] == name], times_of(texts[name].split()))
    assert '"word_start_error_ms"' in (out / "metrics.json").read_text()
    # Another tool: Lhotse cuts the words out of the recordings.
    cuts = CutSet.from_manifests(
        recordings=RecordingSet.from_file(out / "recordings.jsonl.gz"),
        supervisions=SupervisionSet.from_file(out / "supervisions.jsonl.gz"),
    )
    good = next(cut for cut in cuts if cut.recording_id == "rec-good")
    spoken = good.trim_to_alignments("word", max_pause=-0.001)
    assert [cut.supervisions[0].text for cut in spoken] == ["abc", "ba"]

    align(EXP_DIR, data, out=tmp_path / "second", channel=1)
    assert {fields[0] for fields in read(tmp_path / "second/words.ctm")} == {"two-channels"}
    assert "good has 1 channels, from 0; --channel 1" in capfd.readouterr().out
    # There the words were not said, and that is told.
    assert {fields[0] for fields in read(tmp_path / "second/doubtful.txt")} == {"two-channels"}


def test_one_file_from_another_folder(job, tmp_path):
    """By the shell's command, with relative paths, a name with a space, and the text in a file."""
    soundfile.write(tmp_path / "my talk.flac", tones("abc ba"), RATE)
    (tmp_path / "text").write_text("abc\nba\n")
    command = [ROOT / "local/align.sh", job / EXP_DIR, "my talk.flac", "--text-file", "text"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = read(job / EXP_DIR / "aligned/my_talk/words.ctm")
    assert {fields[0] for fields in words} == {"my_talk"}
    check_times(words, times_of(["abc", "ba"]))


def test_words_that_are_not_there_are_doubtful(job, align, tmp_path):
    """Said are abc and ba, and a pause between them."""
    samples = tones("abc ba")
    start = round(0.475 * RATE)  # in the pause after the first word
    noise = np.random.default_rng(1).normal(0, 0.003, RATE)
    samples = np.concatenate([samples[:start], noise, samples[start:]])
    soundfile.write(tmp_path / "x.wav", samples, RATE)
    align(EXP_DIR, tmp_path / "x.wav", text="abc cbc ba", out=tmp_path / "out")
    ((name, _, _, word, confidence),) = read(tmp_path / "out/doubtful.txt")
    assert (name, word) == ("x", "cbc")
    words = read(tmp_path / "out/words.ctm")
    assert [fields[4] for fields in words] == ["abc", "cbc", "ba"]
    assert float(confidence) < 0.1 < min(float(words[0][5]), float(words[2][5]))


def test_what_is_too_long_for_the_model_is_left_out(job, load_script, tmp_path, monkeypatch):
    script = load_script("align")
    load = script.load
    monkeypatch.setattr(script, "load", lambda path: replace(load(path), max_seconds=0.7))
    soundfile.write(tmp_path / "x.wav", tones("abc ba"), RATE)
    with pytest.raises(UserError, match="nothing could be aligned"):
        script.main(EXP_DIR, tmp_path / "x.wav", text="abc ba", out=tmp_path / "out")
    assert (tmp_path / "out/left_out.txt").read_text().startswith("x has 1 s, and this model")


def test_long_recordings_in_little_memory(job, align, tmp_path, monkeypatch):
    """In windows, and by the search for long recordings, the times are right all the same."""
    from plateau.alignment import ctc

    letters = np.random.default_rng(2).choice(list(TONES), size=120)
    words = ["".join(letters[i : i + 3]) for i in range(0, 120, 3)]
    soundfile.write(tmp_path / "long.wav", tones(" ".join(words)), RATE)
    for name, value in (("WINDOW", 360), ("CONTEXT", 120), ("MAX_LATTICE", 0)):
        monkeypatch.setattr(ctc, name, value)
    align(EXP_DIR, tmp_path / "long.wav", text=" ".join(words), out=tmp_path / "out")
    found = read(tmp_path / "out/words.ctm")
    assert [fields[4] for fields in found] == words
    late = [
        abs(float(fields[2]) - true.start)
        for fields, true in zip(found, times_of(words), strict=True)
    ]
    # Between equal tones the model, which knows two words at most, may be wrong by one of them.
    assert max(late) < 0.2 and sum(late) / len(late) < 0.06


def test_mistakes_are_named(job, align, tmp_path):
    audio = tmp_path / "x.wav"
    soundfile.write(audio, tones("abc"), RATE)
    cases = [
        ((EXP_DIR, audio), {}, "either --text or --text-file"),
        ((EXP_DIR, audio), {"text": "a", "text_file": audio}, "either --text or --text-file"),
        ((EXP_DIR, audio), {"text_file": tmp_path / "none"}, "none: cannot be read"),
        ((EXP_DIR, tmp_path / "none"), {}, "none: no such data directory or audio file"),
        ((EXP_DIR, Path("data/toy/dev")), {"text": "a"}, "has its own text"),
        ((EXP_DIR, audio), {"text": "a", "channel": -1}, "channels count from 0"),
        ((Path("exp/toy"), audio), {"text": "a"}, "exp/toy: not an experiment"),
        ((Path("/"), audio), {"text": "a"}, "not an experiment"),
        (
            (EXP_DIR.with_name("none"), audio),
            {"text": "a"},
            "not an experiment: there is no config.yaml",
        ),
        ((EXP_DIR, audio), {"text": " "}, "nothing could be aligned; see .*left_out.txt"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(UserError, match=message):
            align(*arguments, out=tmp_path / "out", **options)
    assert (tmp_path / "out/left_out.txt").read_text() == "x has no text\n"
