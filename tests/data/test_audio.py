import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.data.audio import AudioError, inspect_audio, is_too_short, read_audio

FORMATS = ["WAV", "FLAC", "AIFF", "AU", "W64", "RF64", "MP3"]


@pytest.mark.parametrize("format", [*FORMATS, "OGG"])
def test_length_rate_and_channels(tone, format):
    info = inspect_audio(tone("x", 0.5, rate=16000, channels=2, format=format))
    assert (info.num_samples, info.sampling_rate, info.channels) == (8000, 16000, 2)
    assert info.duration == 0.5


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_file_that_is_shorter_than_its_header_says(tone, format, keep):
    path = Path(tone("x", 2.0, format=format))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ValueError, match="truncated"):
        inspect_audio(str(path))


def check(path: Path, samples: np.ndarray) -> None:
    """Check and work see these samples (S, C), in pieces and out of memory, too."""
    info = inspect_audio(str(path))
    assert (info.num_samples, info.channels) == samples.shape
    for source in (path, io.BytesIO(path.read_bytes())):
        found, rate = read_audio(source)
        assert rate == info.sampling_rate
        np.testing.assert_allclose(found.T, samples, atol=1e-6)
        piece, _ = read_audio(source, 0.25, 0.5)
        np.testing.assert_allclose(piece.T, samples[rate // 4 : rate * 3 // 4], atol=1e-6)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
@pytest.mark.parametrize(
    "size", [0, 2_000_000_000, 0x7FFFF000, 0x7FFFFFDB, 0x7FFFFFFF, 3_000_000_000, 0xFFFFFFFF]
)
def test_wav_from_a_pipe_does_not_know_its_size(tone, size, subtype):
    path = Path(tone("x.wav", 1.0, subtype=subtype))
    samples, _ = soundfile.read(path, always_2d=True)
    data = path.read_bytes()
    at = data.index(b"data") + 4
    path.write_bytes(data[:at] + struct.pack("<I", size) + data[at + 4 :])
    check(path, samples)


@pytest.mark.parametrize(
    ("format", "tag", "at", "size"),
    [
        ("AU", b".snd", 8, b"\xff" * 4),
        ("AU", b".snd", 8, bytes(4)),
        ("AIFF", b"SSND", 4, bytes(4)),
        ("AIFF", b"SSND", 4, b"\x7f\xff\xff\xff"),
        ("CAF", b"data", 4, b"\xff" * 8),
        ("NIST", b"sample_count", 16, b"0   "),
        ("FLAC", b"fLaC", 22, bytes(4)),
    ],
)
def test_other_formats_without_a_size(tone, format, tag, at, size):
    path = Path(tone("x", 1.0, format=format))
    samples, _ = soundfile.read(path, always_2d=True)
    data = bytearray(path.read_bytes())
    at += data.index(tag)
    data[at : at + len(size)] = size
    path.write_bytes(data)
    check(path, samples)


def test_a_wav_without_samples_but_other_chunks(tone):
    path = Path(tone("x.wav", 0.0))
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 8) + b"INFOabcd")
    with pytest.raises(AudioError, match="has no samples"):
        inspect_audio(str(path))


def test_the_name_does_not_make_the_format(tone):
    """Not .raw either, which for soundfile would be samples without a header."""
    path = Path(tone("x", 1.0, format="WAV"))
    samples, _ = soundfile.read(path, always_2d=True)
    for suffix in (".raw", ".au", ".snd", ".gsm", ".vox", ".mp3", ".sph", ".txt"):
        check(path.rename(path.with_suffix(suffix)), samples)
        path = path.with_suffix(suffix)


@pytest.mark.parametrize("suffix", [".raw", ".au", ".snd", ".gsm", ".vox", ".vox6"])
def test_bytes_without_a_header_are_no_audio(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(bytes(range(100)))
    with pytest.raises(AudioError, match="not readable as audio"):
        inspect_audio(str(path))
    with pytest.raises(AudioError, match=path.name):
        read_audio(path)
    path.write_bytes(b"")
    with pytest.raises(AudioError, match=path.name):
        read_audio(path)


def test_damage_that_a_seek_would_hide_is_found(tone):
    path = Path(tone("x.flac", 0.05))
    content = bytearray(path.read_bytes())
    content.insert(48, 0)  # in the comment, before the first frame
    path.write_bytes(content)
    with soundfile.SoundFile(path) as audio:
        audio.seek(audio.frames - 1)
        audio.seek(0)
        assert len(audio.read()) == 400
    with pytest.raises(AudioError, match="decoding fails"):
        inspect_audio(str(path))
    with pytest.raises(AudioError, match=r"x\.flac"):
        read_audio(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_not_numbers(tmp_path, value, subtype):
    samples = np.zeros((80000, 2))
    samples[70000, 1] = value
    soundfile.write(tmp_path / "x.wav", samples, 8000, subtype=subtype)
    what = "NaN" if np.isnan(value) else "infinite"
    with pytest.raises(AudioError, match=rf"^sample 70000 of channel 1 \(8.75 s\) is {what}$"):
        inspect_audio(str(tmp_path / "x.wav"))


def test_the_peak_of_floats(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.array([0.0, -3e4, 5.0]), 8000, subtype="FLOAT")
    assert inspect_audio(str(tmp_path / "x.wav")).peak == 3e4


def test_flac_that_is_damaged_in_its_middle(tone):
    path = Path(tone("x.flac", 30.0))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 5000] = bytes(5000)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"decoding fails between 8.19 and 16.38 s"):
        inspect_audio(str(path))


def test_sphere_that_is_cut(tone):
    path = Path(tone("x.sph", 1.0, format="NIST"))
    path.write_bytes(path.read_bytes()[:9024])
    with pytest.raises(AudioError, match="truncated: 4000 of 8000 samples are there"):
        inspect_audio(str(path))


@pytest.mark.parametrize(
    ("command", "message", "lost"),
    [
        ("echo oops >&2; exit 3", "ends with 3: oops", True),
        ("true", "no audio comes from 'true': it writes nothing", True),
        ("echo text", "no audio comes from 'echo text': not readable as audio", True),
        ("no_such_program x", "ends with 127: ", False),
        ("kill -9 $$", "ends with -9: ", False),
    ],
)
def test_commands(tone, command, message, lost):
    """What says nothing of the audio is told apart: its utterances are not left out for it."""
    with pytest.raises(AudioError, match=message) as error:
        inspect_audio(f"{command} |")
    assert error.value.lost is lost
    assert inspect_audio(f"cat {tone('x.flac', 0.5)} |").num_samples == 4000


def test_a_tilde_is_not_expanded(tone, monkeypatch):
    path = Path(tone("x.wav"))
    monkeypatch.setenv("HOME", str(path.parent))
    with pytest.raises(AudioError, match=f"write {path}") as error:
        inspect_audio("~/x.wav")
    assert not error.value.lost


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_the_shortest_audio(rate):
    """A window of 25 ms, whatever the rate; times that are a little off do not count."""
    window = -(-rate // 40)
    assert not is_too_short(window / rate)
    assert is_too_short((window - 1) / rate)
    assert not is_too_short(0.725 - 0.7)


def test_what_is_no_audio(tone, tmp_path):
    empty, header, text = tmp_path / "a", tone("b.wav", 0.0), tmp_path / "c"
    empty.touch()
    text.write_text("no audio")
    for path, message in [
        (empty, "an empty file"),
        (header, "has no samples"),
        (text, "not readable as audio"),
        (tmp_path, "not a file"),
        (tmp_path / "d", "no such file"),
    ]:
        with pytest.raises(ValueError, match=message):
            inspect_audio(str(path))
