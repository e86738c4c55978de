from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.data.corpus import Corpus
from plateau.data.frames import FrameOptions, compute_frames
from plateau.data.kaldi import Utterance, write_data_dir
from plateau.data.manifests import to_manifests
from plateau.data.sequence_check import check_corpus
from plateau.data.sequences import SequenceSet, read_about
from plateau.errors import UserError

RATE = 8000


def make_manifests(root: Path, name: str) -> None:
    corpus = Corpus(root)
    for kind, manifest in zip(
        ("recordings", "supervisions"), to_manifests(root / name), strict=True
    ):
        corpus.manifest(kind, name).parent.mkdir(exist_ok=True)
        manifest.to_file(corpus.manifest(kind, name))


@pytest.fixture
def root(segmented) -> Path:
    """The set train: three utterances, pieces of two recordings of noise."""
    make_manifests(segmented.parent, "train")
    return segmented.parent


def test_frames_are_the_samples_of_each_utterance(root):
    compute_frames(Corpus(root), FrameOptions(200, RATE), root / "frames")
    made = {s.id: s for s in SequenceSet(root / "frames" / "train")}
    pieces = {"ann-1": ("first.wav", 0.125, 1), "ann-2": ("first.wav", 1, 2)}
    pieces["bob-1"] = ("second.flac", 0.5, 1.75)
    assert made.keys() == pieces.keys()
    for id, (name, start, end) in pieces.items():
        samples, _ = soundfile.read(root / "audio" / name, dtype="float32")
        expected = samples[round(start * RATE) : round(end * RATE)]
        frames = made[id].values
        assert frames.shape == (len(expected) // 200, 200)
        assert np.array_equal(frames.ravel(), expected[: frames.size])
    assert (made["bob-1"].writer, made["bob-1"].text) == ("bob", "tɔ́ŋ")
    about = read_about(root / "frames")
    assert (about.kind, about.sampling_rate) == ("frames", RATE)
    assert list(check_corpus(root / "frames")) == []


def test_the_last_part_of_a_frame_is_dropped_and_other_rates_are_resampled(root):
    compute_frames(Corpus(root), FrameOptions(333, RATE), root / "frames")
    assert SequenceSet(root / "frames" / "train").lengths == [
        7000 // 333,
        8000 // 333,
        10000 // 333,
    ]
    compute_frames(Corpus(root), FrameOptions(1000, 16000), root / "frames")
    made = SequenceSet(root / "frames" / "train")
    assert (made.lengths, made.dim) == ([14, 16, 20], 1000)


def test_utterances_shorter_than_a_frame_are_left_out_and_told(root, capsys):
    compute_frames(Corpus(root), FrameOptions(8001, RATE), root / "frames")
    assert SequenceSet(root / "frames" / "train").ids == ["bob-1"]
    said = "left out 2 of 3, shorter than a frame of 8001 samples at 8000 Hz: ann-1; …\n"
    assert said in capsys.readouterr().out
    with pytest.raises(UserError, match="no sequence to write"):
        compute_frames(Corpus(root), FrameOptions(10001, RATE), root / "frames")


def test_audio_that_is_gone_is_named(root):
    (root / "audio" / "second.flac").unlink()
    with pytest.raises(UserError, match="utterance 'bob-1': its audio cannot be read"):
        compute_frames(Corpus(root), FrameOptions(200, RATE), root / "frames")
    assert not (root / "frames" / "about.json").exists()


def test_digital_silence_is_a_fault(root, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    write_data_dir(root / "test", [Utterance("x-1", "x", "a", str(tmp_path / "silence.wav"))])
    make_manifests(root, "test")
    compute_frames(Corpus(root), FrameOptions(200, RATE), root / "frames")
    (fault,) = check_corpus(root / "frames")
    assert str(fault).endswith("test/sequences.jsonl:1: x-1: zero variance: all values are 0")
