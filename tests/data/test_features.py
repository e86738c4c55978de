import importlib.util
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet

from plateau.config import UserError
from plateau.data import features
from plateau.data.features import (
    Backend,
    FeatureOptions,
    choose_backend,
    compute_features,
    load_statistics,
    make_cuts,
    make_extractor,
    save_statistics,
)
from plateau.data.kaldi import Utterance, write_data_dir
from plateau.data.loading import load_batch
from plateau.data.manifests import to_manifests

OPTIONS = FeatureOptions(sampling_rate=8000, num_mel_bins=23, backend="lhotse")
LILCOM = 2**-6  # the largest error of Lhotse's lossy storage, whose steps are 2**-5

BACKENDS = [name for name in get_args(Backend) if importlib.util.find_spec(name.replace("-", "_"))]


@pytest.fixture
def two_lengths(tmp_path, tone) -> CutSet:
    """Utterances of 0.5, 0.777 and 1.003 s as wholes, at 8 kHz."""
    seconds = {"u-1": 0.5, "u-2": 0.777, "u-3": 1.003}
    utterances = [Utterance(i, "u", "x", tone(f"{i}.wav", s)) for i, s in seconds.items()]
    write_data_dir(tmp_path / "set", utterances)
    return make_cuts(*to_manifests(tmp_path / "set"), OPTIONS)


# Utterances of yesno: real recordings at 8 kHz.
YESNO = Path(__file__).parents[3] / "shared" / "data" / "yesno" / "waves_yesno"


def exact_fbank(samples: np.ndarray, rate: int, bins: int) -> np.ndarray:
    """Kaldi's log-mel energies (T, F) in double, with numpy's transform.

    Frames are centred in their shift, the signal is mirrored at its ends; each frame loses its
    mean, is pre-emphasised (0.97) and takes Povey's window, a Hann window to the power of 0.85;
    triangular filters on the mel scale lie from 20 Hz to 400 Hz below half the rate.
    """
    length, shift = rate * 25 // 1000, rate // 100
    size = 1 << (length - 1).bit_length()
    count = (len(samples) + shift // 2) // shift
    at = np.arange(count)[:, None] * shift + shift // 2 - length // 2 + np.arange(length)  # (T, W)
    at = np.where(at < 0, -at - 1, at)
    at = np.where(at >= len(samples), 2 * len(samples) - 1 - at, at)
    frames = samples.astype(np.float64)[at]
    frames -= frames.mean(1, keepdims=True)
    frames -= 0.97 * np.concatenate((frames[:, :1], frames[:, :-1]), 1)
    frames *= np.hanning(length) ** 0.85
    power = np.abs(np.fft.rfft(frames, size)[:, : size // 2]) ** 2  # (T, size / 2)

    def mel(hertz):
        return 1127 * np.log1p(hertz / 700)

    edges = np.linspace(mel(20.0), mel(rate / 2 - 400), bins + 2)[:, None]
    at = mel(np.arange(size // 2) * rate / size)
    up = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    energies = power @ np.maximum(np.minimum(up, down), 0).T  # (T, F)
    return np.log(np.maximum(energies, np.finfo(np.float32).eps))


@pytest.mark.parametrize("backend", get_args(Backend))
@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_each_backend_computes_kaldis_filterbanks(tone, rate, backend):
    """The same from all, so that one can stand in for another."""
    pytest.importorskip(backend.replace("-", "_"))
    recordings = [soundfile.read(tone("x.wav", 1.003, rate), dtype="float32")[0]]
    if rate == 8000:
        paths = sorted(YESNO.glob("*.wav"))[:5]
        recordings += [soundfile.read(path, dtype="float32")[0] for path in paths]
    extractor = make_extractor(FeatureOptions(sampling_rate=rate, backend=backend))
    assert extractor.feature_dim(rate) == 80
    assert extractor.frame_shift == features.FRAME_SHIFT
    for samples in recordings:
        found = np.asarray(extractor.extract(samples[None], rate))
        expected = exact_fbank(samples, rate, 80)
        assert found.shape == expected.shape and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_auto_takes_the_first_that_is_installed(monkeypatch):
    here = ["kaldifeat", "kaldi_native_fbank", "lhotse"]
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: name in here)
    assert choose_backend("auto") == "kaldifeat"
    here.remove("kaldifeat")
    assert choose_backend("auto") == "kaldi-native-fbank"
    assert choose_backend("lhotse") == "lhotse"
    with pytest.raises(UserError, match="kaldifeat is not installed"):
        make_extractor(FeatureOptions(backend="kaldifeat"))
    here.remove("kaldi_native_fbank")
    assert make_extractor(FeatureOptions()).name == "kaldi-fbank"
    with pytest.raises(UserError, match="kaldi-native-fbank is not installed"):
        make_extractor(FeatureOptions(backend="kaldi-native-fbank"))


def test_an_utterance_is_a_cut_of_its_name(segmented):
    """Segments of one recording, too; times are those of the fixture."""
    cuts = make_cuts(*to_manifests(segmented), OPTIONS)
    assert [(c.id, c.recording_id, c.start, c.duration) for c in cuts] == [
        ("ann-1", "rec1", 0.125, 0.875),
        ("ann-2", "rec1", 1.0, 1.0),
        ("bob-1", "rec2", 0.5, 1.25),
    ]
    assert [[s.id for s in c.supervisions] for c in cuts] == [["ann-1"], ["ann-2"], ["bob-1"]]
    assert [c.supervisions[0].text for c in cuts] == ["hello world", "again", "tɔ́ŋ"]
    audio, _ = soundfile.read(cuts["ann-1"].recording.sources[0].source, dtype="float32")
    np.testing.assert_array_equal(cuts["ann-1"].load_audio()[0], audio[1000:8000])


def test_segments_that_overlap_are_cuts_of_their_own(tmp_path, tone):
    audio = tone("x.wav", 2.0)
    utterances = [
        Utterance("u-1", "u", "a", audio, "rec", 0.0, 1.5),
        Utterance("u-2", "u", "b", audio, "rec", 1.0, 2.0),
    ]
    write_data_dir(tmp_path / "set", utterances)
    cuts = make_cuts(*to_manifests(tmp_path / "set"), OPTIONS)
    assert [(c.id, c.start, c.duration) for c in cuts] == [("u-1", 0.0, 1.5), ("u-2", 1.0, 1.0)]
    assert [[s.text for s in c.supervisions] for c in cuts] == [["a"], ["b"]]


def test_of_a_stereo_recording_the_first_channel_counts(tmp_path, tone):
    audio = tone("x.wav", channels=2)
    write_data_dir(tmp_path / "set", [Utterance("u-1", "u", "a", audio)])
    cuts = make_cuts(*to_manifests(tmp_path / "set"), OPTIONS)
    assert [c.id for c in cuts] == ["u-1"]
    samples, _ = soundfile.read(audio, dtype="float32")
    np.testing.assert_array_equal(cuts["u-1"].load_audio()[0], samples[:, 0])


def test_recordings_of_other_rates_are_resampled(tmp_path):
    """A tone of 440 Hz stays one: it lies in the same mel bin at either rate."""
    for rate in (8000, 16000, 22050):
        samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        soundfile.write(tmp_path / f"{rate}.wav", samples, rate)
    utterances = [
        Utterance(f"u-{rate}", "u", "x", str(tmp_path / f"{rate}.wav"))
        for rate in (8000, 16000, 22050)
    ]
    write_data_dir(tmp_path / "set", utterances)
    cuts = make_cuts(*to_manifests(tmp_path / "set"), OPTIONS)
    assert {cut.sampling_rate for cut in cuts} == {8000}
    assert {cut.num_samples for cut in cuts} == {8000}
    cuts = compute_features(cuts, OPTIONS, tmp_path / "fbank")
    loudest = [int(cut.load_features().mean(axis=0).argmax()) for cut in cuts]
    assert len(set(loudest)) == 1
    assert {cut.num_frames for cut in cuts} == {100}


def test_speed_perturbation_adds_copies(two_lengths, tmp_path):
    options = FeatureOptions(8000, 23, "lhotse", perturb_speed=(0.9, 1.1))
    manifests = to_manifests(tmp_path / "set")
    assert [c.id for c in make_cuts(*manifests, options)] == ["u-1", "u-2", "u-3"]
    cuts = make_cuts(*manifests, options, perturb=True)
    names = ["u-1", "u-2", "u-3"]
    names += [f"{name}_sp{speed}" for speed in (0.9, 1.1) for name in names]
    assert [c.id for c in cuts] == names
    originals = {c.id: c for c in two_lengths}
    for cut in cuts[3:]:
        name, speed = cut.id.split("_sp")
        assert cut.num_samples == pytest.approx(originals[name].num_samples / float(speed), abs=1)
        assert cut.supervisions[0].duration == cut.duration
        assert cut.supervisions[0].text == "x"
        assert cut.load_audio().shape == (1, cut.num_samples)
    cuts = compute_features(cuts, options, tmp_path / "fbank")
    for cut in cuts:
        assert cut.load_features().shape == (round(cut.duration * 100), 23)


def test_speed_perturbation_shifts_the_pitch(tmp_path):
    """Played faster by 1.1, a tone of 1000 Hz is one of 1100 Hz."""
    samples = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    soundfile.write(tmp_path / "x.wav", samples, 8000)
    write_data_dir(tmp_path / "set", [Utterance("u-1", "u", "x", str(tmp_path / "x.wav"))])
    options = FeatureOptions(8000, 23, "lhotse", perturb_speed=(1.1,))
    cuts = make_cuts(*to_manifests(tmp_path / "set"), options, perturb=True)
    audio = cuts["u-1_sp1.1"].load_audio()[0]
    peak = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))).argmax() * 8000 / len(audio)
    assert peak == pytest.approx(1100, abs=2)


def test_statistics_are_those_of_all_frames(two_lengths, tmp_path):
    cuts = compute_features(two_lengths, OPTIONS, tmp_path / "fbank")
    save_statistics(cuts, OPTIONS, tmp_path / "statistics.json")
    mean, std = load_statistics(tmp_path / "statistics.json")
    frames = np.concatenate([cut.load_features() for cut in cuts]).astype(np.float64)
    assert frames.shape == (50 + 78 + 100, 23)
    np.testing.assert_allclose(mean, frames.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(std, frames.std(axis=0), rtol=1e-4)
    assert mean.dtype == torch.float32


@pytest.mark.parametrize("backend", BACKENDS)
def test_on_the_fly_equals_stored(two_lengths, tmp_path, backend):
    stored = FeatureOptions(8000, 23, backend)
    on_the_fly = FeatureOptions(8000, 23, backend, on_the_fly=True)
    with_features = compute_features(two_lengths, stored, tmp_path / "fbank")
    first = load_batch(with_features, stored)
    second = load_batch(two_lengths, on_the_fly)
    assert first.ids == second.ids == ["u-3", "u-2", "u-1"]  # longest first
    assert first.lengths.tolist() == second.lengths.tolist() == [100, 78, 50]
    assert first.features.shape == second.features.shape == (3, 100, 23)
    for one, other, length in zip(first.features, second.features, first.lengths, strict=True):
        np.testing.assert_allclose(one[:length], other[:length], atol=LILCOM)
    for options, cuts in ((stored, with_features), (on_the_fly, two_lengths)):
        save_statistics(cuts, options, tmp_path / f"{options.on_the_fly}.json")
    first = load_statistics(tmp_path / "False.json")
    for one, other in zip(first, load_statistics(tmp_path / "True.json"), strict=True):
        np.testing.assert_allclose(one, other, atol=LILCOM)


@pytest.mark.parametrize("on_the_fly", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_features_do_not_depend_on_the_batch(two_lengths, tmp_path, backend, on_the_fly):
    options = FeatureOptions(8000, 23, backend, on_the_fly=on_the_fly)
    extractor = make_extractor(options)
    cuts = two_lengths
    if not on_the_fly:
        cuts = compute_features(cuts, options, tmp_path / "fbank")
    batch = load_batch(cuts, options)
    for name, features_, length in zip(batch.ids, batch.features, batch.lengths, strict=True):
        alone = np.asarray(extractor.extract(two_lengths[name].load_audio(), 8000))
        np.testing.assert_allclose(features_[:length], alone, atol=1e-4 if on_the_fly else LILCOM)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_could_not_be_stored_is_named(two_lengths, tmp_path, monkeypatch, backend):
    """With the error that there was, and the space that there is; nothing is guessed."""
    write, calls = features.write_array, iter(range(3))

    def fail(writer, value):
        if next(calls) == 1:
            raise OSError(5, "Input/output error")
        return write(writer, value)

    monkeypatch.setattr(features, "write_array", fail)
    message = (
        r"features of 'u-2' could not be stored: \[Errno 5\] Input/output error\n\d+ MB are free"
    )
    with pytest.raises(UserError, match=message):
        compute_features(two_lengths, FeatureOptions(8000, 23, backend), tmp_path / "fbank")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_audio_that_was_lost_after_stage_1_is_named(two_lengths, tmp_path, backend, workers):
    Path(two_lengths["u-2"].recording.sources[0].source).unlink()
    message = (
        r"utterance 'u-2': .*u-2.wav: .*\n"
        r".*: the same ./run.sh with --stage 1 --stop-stage 1 --force"
    )
    with pytest.raises(UserError, match=message):
        compute_features(
            two_lengths, FeatureOptions(8000, 23, backend), tmp_path / "fbank", workers
        )


def test_faster_copies_that_were_too_short_are_left_out(tmp_path, tone):
    """25 ms are a window at any rate; 1.1 times as fast they are not."""
    utterances = [
        Utterance(f"u-{rate}", "u", "x", tone(f"{rate}.wav", 0.025 + 1 / rate, rate))
        for rate in (8000, 11025, 22050, 44100, 48000)
    ]
    write_data_dir(tmp_path / "set", utterances)
    for backend in ("lhotse", "auto"):
        options = FeatureOptions(16000, 23, backend, perturb_speed=(0.9, 1.1))
        cuts = make_cuts(*to_manifests(tmp_path / "set"), options, perturb=True)
        assert {c.id for c in cuts} == {f"{u.id}{s}" for u in utterances for s in ("", "_sp0.9")}
        stored = compute_features(cuts, options, tmp_path / backend)
        assert all(cut.num_frames >= 1 for cut in stored)


def test_stored_cuts_have_a_checksum_and_no_leftovers(two_lengths, tmp_path):
    for cut in compute_features(two_lengths, FeatureOptions(8000, 23), tmp_path / "fbank"):
        assert cut.to_dict()["custom"].keys() == {"features_crc32"}
        assert cut.features.storage_type == "lilcom_chunky"


def test_lengths_agree_with_features_for_any_duration(tmp_path, tone):
    """Stored and on the fly, of wholes and segments, perturbed and resampled."""
    random = np.random.default_rng(0)
    audio = tone("x.wav", 3.0, 22050)
    utterances = []
    for i in range(12):
        start, seconds = random.uniform(0, 1), random.uniform(0.05, 1.9)
        utterances.append(Utterance(f"u-{i:02}", "u", "x", audio, "rec", start, start + seconds))
    write_data_dir(tmp_path / "set", utterances)
    options = FeatureOptions(8000, 23, "lhotse", perturb_speed=(0.9, 1.1))
    cuts = make_cuts(*to_manifests(tmp_path / "set"), options, perturb=True)
    stored = load_batch(compute_features(cuts, options, tmp_path / "fbank"), options)
    computed = load_batch(cuts, FeatureOptions(8000, 23, "lhotse", on_the_fly=True))
    for batch in (stored, computed):
        assert batch.lengths.max() == batch.features.shape[1]
    assert dict(zip(stored.ids, stored.lengths.tolist(), strict=True)) == dict(
        zip(computed.ids, computed.lengths.tolist(), strict=True)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_are_computed_again_in_place(two_lengths, tmp_path, backend):
    """What a killed run left in the archive does not matter; that of another set stays."""
    options = FeatureOptions(8000, 23, backend)
    other = compute_features(two_lengths, options, tmp_path / "fbank" / "test")
    first = compute_features(two_lengths, options, tmp_path / "fbank" / "test.b")
    expected = [cut.load_features() for cut in first]
    archive = tmp_path / "fbank" / "test.b.lca"
    archive.write_bytes(archive.read_bytes()[:100] + b"torn")
    again = compute_features(two_lengths, options, tmp_path / "fbank" / "test.b")
    for cuts in (again, other):
        for cut, features_ in zip(cuts, expected, strict=True):
            np.testing.assert_array_equal(cut.load_features(), features_)
    assert {path.name for path in archive.parent.iterdir()} == {"test.lca", "test.b.lca"}
