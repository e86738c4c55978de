"""MP3s whose header, or whose size, promises another length than there is."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.data.audio import AudioError, inspect_audio, read_audio


@pytest.fixture(params=[(8000, 1), (16000, 2), (44100, 1)], ids=str)
def mp3(tmp_path, request) -> Path:
    """Silence, then noise, so that frames of variable bit rate differ in size."""
    rate, channels = request.param
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2 * rate, channels))
    samples = np.concatenate([np.zeros((rate, channels)), noise])
    path = tmp_path / "x.mp3"
    soundfile.write(path, samples, rate, bitrate_mode="VARIABLE", compression_level=0.5)
    return path


def tag(content: bytes) -> int:
    return max(content.find(b"Xing"), content.find(b"Info"))


@pytest.mark.parametrize("more", [-20, -1, 1, 2, 1000])
def test_a_wrong_number_of_frames(mp3, more):
    """The header promises fewer or more: all that there is is read."""
    samples, rate = soundfile.read(mp3, dtype="float32", always_2d=True)
    assert len(samples) == 3 * rate
    content = bytearray(mp3.read_bytes())
    at = tag(content) + 8
    (frames,) = struct.unpack(">I", content[at : at + 4])
    content[at : at + 4] = struct.pack(">I", frames + more)
    mp3.write_bytes(content)
    assert inspect_audio(str(mp3)).num_samples == 3 * rate
    found, _ = read_audio(mp3)
    np.testing.assert_allclose(found.T, samples, atol=1e-6)
    piece, _ = read_audio(mp3, 1.5, 1.0)
    # after a seek libmpg123 starts a little early: its filters know less of what was before
    np.testing.assert_allclose(piece.T, samples[rate * 3 // 2 : rate * 5 // 2], atol=1e-4)


@pytest.mark.parametrize("start", [b"", b"ID3\x03\0\0\0\0\x03\x74" + bytes(500)])
@pytest.mark.parametrize("end", [b"", b"TAG" + bytes(125), b"junk" * 20])
def test_without_a_tag_the_length_is_an_estimate(mp3, start, end):
    """libmpg123's is of the first frame's bit rate. All frames are there, with the codec's delay
    at the start and what fills the last frame."""
    samples, rate = soundfile.read(mp3, dtype="float32", always_2d=True)
    content = mp3.read_bytes()
    (frames,) = struct.unpack(">I", content[tag(content) + 8 : tag(content) + 12])
    body = content[content.index(content[:2], tag(content)) :]
    mp3.write_bytes(start + body + end)
    info = inspect_audio(str(mp3))
    assert info.num_samples == frames * (1152 if rate == 44100 else 576)
    found, _ = read_audio(mp3)
    assert found.shape == (info.channels, info.num_samples)
    delay = int(
        np.argmin(
            [np.abs(found.T[d : d + rate * 2] - samples[: rate * 2]).sum() for d in range(1400)]
        )
    )
    np.testing.assert_allclose(
        found.T[delay:][: len(samples)][: 2 * rate], samples[: 2 * rate], atol=0.02
    )


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_fewer_bytes_and_frames_than_the_tag_says_is_truncated(mp3, keep):
    content = mp3.read_bytes()
    cut = int(keep * len(content))
    mp3.write_bytes(content[:cut])
    with pytest.raises(AudioError, match=f"truncated: {cut} of {len(content)} bytes are there"):
        inspect_audio(str(mp3))
