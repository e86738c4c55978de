import struct
from pathlib import Path

import pytest

from plateau.data.audio import inspect_audio

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


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_wav_from_a_pipe_does_not_know_its_size(tone, size):
    path = Path(tone("x.wav", 1.0))
    data = path.read_bytes()
    assert data[36:40] == b"data"
    path.write_bytes(data[:40] + struct.pack("<I", size) + data[44:])
    assert inspect_audio(str(path)).num_samples == 8000


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
