import runpy
import shlex
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet, RecordingSet, SupervisionSegment, SupervisionSet, load_manifest
from lhotse.bin.modes import cli as lhotse_cli

from plateau.config import UserError
from plateau.data.features import FeatureOptions, compute_features, make_cuts, make_extractor
from plateau.data.kaldi import Interval, Utterance, read_data_dir, write_data_dir
from plateau.data.manifests import alignment_in_cut, from_manifests, to_manifests

ROOT = Path(__file__).parents[2]


def cuts_of(path: Path, **options) -> CutSet:
    """One cut per utterance, as features are computed from."""
    recordings, supervisions = to_manifests(path, **options)
    cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    return cuts.trim_to_supervisions(keep_overlapping=False)


def test_manifests_hold_what_the_directory_says(segmented):
    recordings, supervisions = to_manifests(segmented)
    assert [(r.id, r.num_samples, r.sampling_rate, r.duration) for r in recordings] == [
        ("rec1", 16000, 8000, 2.0),
        ("rec2", 16000, 8000, 2.0),
    ]
    found = {s.id: (s.recording_id, s.start, s.end, s.speaker, s.text) for s in supervisions}
    assert found == {
        "ann-1": ("rec1", 0.125, 1.0, "ann", "hello world"),
        "ann-2": ("rec1", 1.0, 2.0, "ann", "again"),
        "bob-1": ("rec2", 0.5, 1.75, "bob", "tɔ́ŋ"),
    }
    first = next(iter(supervisions))
    assert [tuple(item)[:3] for item in first.alignment["word"]] == [
        ("hello", 0.125, 0.25),
        ("world", 0.5, 0.375),
    ]
    assert [item.symbol for item in first.alignment["phone"]] == ["h", "o"]


def test_texts_and_words_are_normalised(whole):
    (whole / "text").write_text("eve-0   re\u0301  do\neve-1 a\neve-2 b\n", encoding="utf-8")
    (whole / "ctm").write_text("eve-0 1 0 0.5 re\u0301\n", encoding="utf-8")
    first = next(iter(to_manifests(whole)[1]))
    assert first.text == "r\u00e9 do"
    assert first.alignment["word"][0].symbol == "r\u00e9"


@pytest.fixture
def pulses(tmp_path) -> Path:
    """Silence but for each word, which is a burst of ones: times can be seen in the samples."""
    samples = np.zeros(32000)
    words = [Interval(s, 0.25, f"w{s}") for s in (0.5, 1.0, 2.25, 3.0)]
    for word in words:
        samples[round(word.start * 8000) : round((word.start + word.duration) * 8000)] = 0.9
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    utterance = Utterance("a-1", "a", "w0.5 w1.0", str(tmp_path / "a.wav"), "r", 0.25, 1.5)
    other = replace(utterance, id="a-2", text="w2.25 w3.0", start=2.0, end=3.5)
    write_data_dir(
        tmp_path / "set",
        [replace(utterance, words=tuple(words[:2])), replace(other, words=tuple(words[2:]))],
    )
    return tmp_path / "set"


def bursts(samples: np.ndarray, rate: int) -> list[tuple[float, float]]:
    """Start and duration in seconds of what is not silent in samples (T,)."""
    loud = np.concatenate([[False], samples > 0.45, [False]])
    edges = np.flatnonzero(loud[1:] != loud[:-1]) / rate
    return [(start, end - start) for start, end in edges.reshape(-1, 2)]


def test_alignment_of_cuts_is_where_the_words_are_heard(pulses):
    cuts = list(cuts_of(pulses))
    assert [cut.start for cut in cuts] == [0.25, 2.0]
    longer = [cut.pad(duration=5.0) for cut in cuts]
    later = [cut.pad(duration=5.0, direction="left") for cut in cuts]
    within = [cut.truncate(offset=0.125) for cut in cuts]
    again = list(CutSet.from_cuts(cuts).perturb_speed(0.8))
    for cut in [*cuts, *longer, *later, *within, *again]:
        timed = [(i.start, i.duration) for i in alignment_in_cut(cut, "word")]
        heard = bursts(cut.load_audio()[0], cut.sampling_rate)
        assert len(timed) == 2
        # resampling for speed smears the edges over some samples
        tolerance = 2e-3 if cut in again else 1e-9
        np.testing.assert_allclose(timed, heard, atol=tolerance)
    assert alignment_in_cut(cuts[0], "phone") == []


# at least 25 ms apart
times = st.integers(1, 78).map(lambda number: 201 * number / 8000)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(edges=st.sets(times, min_size=2, max_size=6), last_open=st.booleans())
def test_directory_to_manifests_and_back(tmp_path_factory, recording, edges, last_open):
    path = tmp_path_factory.mktemp("data")
    edges = sorted(edges)
    utterances = [
        Utterance(
            id=f"é-{number:02}",
            speaker="é",
            text=f"wörd {number}",
            audio=recording,
            recording_id="rec",
            start=start,
            end=end,
            words=(Interval(start, round(end - start, 8), "wörd"),),
            phones=(Interval(start, round((end - start) / 3, 8), "w"), Interval(start, 0.0, "œ")),
        )
        for number, (start, end) in enumerate(pairwise(edges))
    ]
    if last_open:
        utterances[-1] = replace(utterances[-1], end=None)
    write_data_dir(path / "first", utterances)
    from_manifests(*to_manifests(path / "first"), path / "second")
    assert read_data_dir(path / "second") == utterances


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("audio") / "two seconds.wav"
    soundfile.write(path, np.zeros(16000), 8000)
    return str(path)


def test_whole_recordings_go_back_without_segments(whole, tmp_path):
    from_manifests(*to_manifests(whole, sampling_rate=16000), tmp_path / "back")
    names = {p.name for p in whole.iterdir()}
    assert {p.name for p in (tmp_path / "back").iterdir()} == names
    for name in names:
        assert (tmp_path / "back" / name).read_bytes() == (whole / name).read_bytes()


def test_resampling(segmented):
    cuts = list(cuts_of(segmented, sampling_rate=16000))
    assert [cut.load_audio().shape for cut in cuts] == [(1, 14000), (1, 16000), (1, 20000)]


def test_of_stereo_the_first_channel_is_taken(tmp_path, tone):
    audio = tone("stereo.wav", 1.0, channels=2)
    write_data_dir(tmp_path / "set", [Utterance("a", "a", "x", audio)])
    (cut,) = cuts_of(tmp_path / "set")
    np.testing.assert_array_equal(
        cut.load_audio(), soundfile.read(audio, dtype="float32")[0][None, :, 0]
    )


def test_each_utterance_is_on_its_channel(tmp_path, tone):
    """Two who speak at the same time in one recording; a third names no channel."""
    audio = tone("call.wav", 2.0, channels=2)
    left = Utterance("a-1", "a", "x", audio, "call", 0.0, 1.5, channel=0)
    right = replace(left, id="b-1", speaker="b", start=0.5, end=2.0, channel=1)
    none = replace(left, id="c-1", speaker="c", start=1.0, end=None, channel=None)
    write_data_dir(tmp_path / "set", [left, right, none])
    samples, _ = soundfile.read(audio, dtype="float32")
    recordings, supervisions = to_manifests(tmp_path / "set")
    cuts = {c.id: c for c in make_cuts(recordings, supervisions, FeatureOptions(8000))}
    for name, channel, start, end in (("a-1", 0, 0, 12000), ("b-1", 1, 4000, 16000)):
        assert (cuts[name].channel, [s.id for s in cuts[name].supervisions]) == (channel, [name])
        np.testing.assert_array_equal(cuts[name].load_audio()[0], samples[start:end, channel])
    np.testing.assert_array_equal(cuts["c-1"].load_audio()[0], samples[8000:, 0])
    from_manifests(recordings, supervisions, tmp_path / "back")
    assert read_data_dir(tmp_path / "back") == [
        left,
        replace(right, end=None),
        replace(none, channel=0),
    ]

    write_data_dir(tmp_path / "third", [replace(right, channel=2)])
    with pytest.raises(UserError, match="'b-1' is on channel 2, its recording has 2"):
        to_manifests(tmp_path / "third")


def test_times_are_as_lhotse_rounds_them(tmp_path, tone):
    """0.454, not 0.45399999999999996."""
    word = Interval(0.7, 1.154 - 0.7, "x")
    assert repr(word.duration) == "0.45399999999999996"
    utterance = Utterance("u-1", "u", "x", tone("a.wav", 2.0), "r", 0.7, 1.154, (word,))
    write_data_dir(tmp_path / "set", [utterance])
    recordings, supervisions = to_manifests(tmp_path / "set")
    (said,) = supervisions
    assert (said.start, said.duration) == (0.7, 0.454)
    assert said.alignment["word"][0].duration == 0.454
    (cut,) = make_cuts(recordings, supervisions, FeatureOptions(8000))
    assert "999" not in str(cut.to_dict())


@pytest.mark.parametrize("seconds", [1 / 8000, 0.0248])
def test_audio_without_features_is_named(whole, tone, seconds):
    tone("1.wav", seconds)
    with pytest.raises(UserError, match=r"'eve-1' has .* ms, less than a feature window"):
        to_manifests(whole)


def test_sphere_files_go_through_to_features(tmp_path, tone):
    """Lhotse alone would call a program for them; the manifest is one that it can read."""
    audio = tone("a.sph", 1.0, format="NIST")
    write_data_dir(tmp_path / "set", [Utterance("u-1", "u", "x", audio)])
    options = FeatureOptions(8000, 23)
    cuts = make_cuts(*to_manifests(tmp_path / "set"), options, perturb=True)
    (cut,) = compute_features(cuts, options, tmp_path / "fbank")
    expected = make_extractor(options).extract(soundfile.read(audio, dtype="float32")[0], 8000)
    np.testing.assert_allclose(cut.load_features(), np.asarray(expected), atol=2**-5)


def test_shell_commands_become_sources_of_type_command(whole):
    file = (whole / "wav.scp").read_text().split()[1]
    lines = (whole / "wav.scp").read_text().splitlines()
    command = f"cat {shlex.quote(file)}"
    (whole / "wav.scp").write_text("\n".join([f"eve-0 {command} |", *lines[1:]]))
    with pytest.raises(UserError, match="'eve-0' is a shell command"):
        to_manifests(whole)
    recordings, supervisions = to_manifests(whole, allow_pipes=True, nj=2)
    first = recordings["eve-0"]
    assert (first.sources[0].type, first.sources[0].source) == ("command", command)
    assert first.num_samples == 8000
    np.testing.assert_array_equal(first.load_audio()[0], soundfile.read(file, dtype="float32")[0])
    from_manifests(recordings, supervisions, whole.parent / "back")
    assert read_data_dir(whole.parent / "back", allow_pipes=True) == read_data_dir(whole, True)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo oops >&2; exit 3", r"'eve-0': .* ends with 3: oops"),
        ("echo no audio", "'eve-0': no audio comes from 'echo no audio'"),
        ("true", "'eve-0': no audio comes from 'true'"),
    ],
)
def test_shell_commands_that_fail_are_named(whole, command, message):
    lines = (whole / "wav.scp").read_text().splitlines()
    (whole / "wav.scp").write_text("\n".join([f"eve-0 {command} |", *lines[1:]]))
    with pytest.raises(UserError, match=message):
        to_manifests(whole, allow_pipes=True)


def test_bad_audio_is_named(whole):
    path = Path((whole / "wav.scp").read_text().split()[3])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"wav.scp: 'eve-1': .*1.wav: truncated"):
        to_manifests(whole)


@pytest.mark.parametrize(("end", "expected"), [("2.009", 2.0), ("2.011", None)])
def test_segments_may_end_slightly_late(segmented, end, expected):
    text = (segmented / "segments").read_text()
    (segmented / "segments").write_text(text.replace("1.75", end))
    if expected is None:
        with pytest.raises(UserError, match=r"'bob-1' from 0.5 to 2.011 s is not inside"):
            to_manifests(segmented)
    else:
        assert to_manifests(segmented)[1]["bob-1"].end == expected


def test_ids_get_their_speaker_as_prefix(segmented, tmp_path):
    recordings, _ = to_manifests(segmented)
    supervisions = SupervisionSet.from_segments(
        [
            SupervisionSegment("1", "rec1", 0.0, 1.0, speaker="ann", text="a"),
            SupervisionSegment("2", "rec1", 1.0, 0.5),
        ]
    )
    from_manifests(recordings, supervisions, tmp_path / "back")
    found = [(u.id, u.speaker, u.text, u.end) for u in read_data_dir(tmp_path / "back")]
    assert found == [("2", "2", "", 1.5), ("ann-1", "ann", "a", 1.0)]


def test_what_kaldi_cannot_hold_is_refused(whole, tmp_path):
    recordings, supervisions = to_manifests(whole)
    (first, *_), (said, *_) = recordings, supervisions
    fast = [r.perturb_speed(1.1, affix_id=False) for r in recordings]
    memory = [r.move_to_memory() for r in recordings]
    second_channel = SupervisionSet.from_segments([replace(said, channel=1)])
    for (found, wanted), message in [
        ((fast, supervisions), "'eve-0' is changed by Speed"),
        ((memory, supervisions), "'eve-0' is of type memory"),
        ((recordings, second_channel), "'eve-0': is on channel 1 of 1"),
        (([r for r in recordings if r.id != first.id], supervisions), "no recording 'eve-0'"),
    ]:
        with pytest.raises(UserError, match=message):
            from_manifests(RecordingSet.from_recordings(found), wanted, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_script_writes_what_lhotse_reads(segmented, whole):
    corpus = segmented.parent
    done = subprocess.run(
        [sys.executable, ROOT / "local" / "make_manifests.py", corpus],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{whole}: 3 utterances, 0.00 hours, alignment no",
        f"{segmented}: 3 utterances, 0.00 hours, alignment yes",
    ]
    name = corpus.name
    for part, path in (("dev", whole), ("train", segmented)):
        files = [
            str(corpus / "manifests" / f"{name}_{kind}_{part}.jsonl.gz")
            for kind in ("recordings", "supervisions")
        ]
        for command in (
            ["validate", "--read-data", files[0]],
            ["validate", files[1]],
            ["validate-pair", "--read-data", *files],
            ["kaldi", "export", *files, str(corpus / f"exported_{part}")],
        ):
            result = CliRunner().invoke(lhotse_cli, command, catch_exceptions=False)
            assert result.exit_code == 0
            assert "failed" not in result.output
        recordings, supervisions = to_manifests(path)
        assert list(load_manifest(files[0])) == list(recordings)
        assert list(load_manifest(files[1])) == list(supervisions)
    exported = (corpus / "exported_train" / "text").read_text(encoding="utf-8")
    assert exported == (segmented / "text").read_text(encoding="utf-8")
    assert {p.name[:4] for p in (corpus / "manifests").iterdir()} == {name[:4]}  # no temporaries


def test_script_names_what_is_wrong_and_a_command_that_helps(whole, tone):
    whole = whole.rename(whole.with_name("train"))
    tone("1.wav", 1 / 8000)
    command = [sys.executable, ROOT / "local" / "make_manifests.py", whole.parent]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    problem, remedy, count = done.stderr.splitlines()
    assert "wav.scp:eve-1: has 0.125 ms, less than a feature window" in problem
    assert count == f"{whole}: 1 problems"
    assert not (whole.parent / "manifests").exists()
    remedy = remedy.removeprefix("mend all: ").replace("python", sys.executable, 1)
    subprocess.run(remedy, shell=True, cwd=ROOT, check=True, capture_output=True)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"{whole}: 2 utterances, 0.00 hours, alignment no\n"


def test_script_runs_a_command_once(whole):
    whole = whole.rename(whole.with_name("train"))
    lines = (whole / "wav.scp").read_text().splitlines()
    audio = lines[0].split()[1]
    lines[0] = f"eve-0 echo x >> {whole}/ran; cat {audio} |"
    (whole / "wav.scp").write_text("\n".join(lines) + "\n")
    command = [sys.executable, ROOT / "local" / "make_manifests.py", whole.parent]
    subprocess.run([*command, "--allow-pipes"], check=True, capture_output=True)
    assert (whole / "ran").read_text() == "x\n"


def test_script_without_data(tmp_path):
    main = runpy.run_path(str(ROOT / "local" / "make_manifests.py"))["main"]
    with pytest.raises(UserError, match=r"no \*/wav.scp; put data directories there"):
        main(tmp_path)
