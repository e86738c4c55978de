"""A cheap look at audio files: what the header says, and whether the samples are all there."""

import re
from dataclasses import dataclass
from pathlib import Path

import soundfile

# What libsndfile notes of samples that should go on after the end of the file, such as
# "data : 32000 (should be 160)": data of WAV, SSND of AIFF, Data Size of AU, riff of W64, RF64.
_CUT = r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
# Programs that write WAV to a pipe (sox, ffmpeg) cannot know its size, and note 2 or 4 GiB.
_UNKNOWN_SIZE = 0x7FFF0000


@dataclass(frozen=True)
class AudioInfo:
    """Length in samples, sampling rate in Hz, and number of channels of a recording."""

    num_samples: int
    sampling_rate: int
    channels: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_samples / self.sampling_rate


def inspect_audio(path: str) -> AudioInfo:
    """Read a file's header and its last sample.

    Raises:
        ValueError: what is wrong: no such file, not audio, no samples, or truncated.
    """
    if not Path(path).is_file():
        raise ValueError("no such file" if not Path(path).exists() else "not a file")
    if Path(path).stat().st_size == 0:
        raise ValueError("an empty file")
    try:
        audio = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError) as error:
        what = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise ValueError(f"not readable as audio ({what})") from None
    with audio:
        cut = re.search(_CUT, audio.extra_info, re.MULTILINE)
        if cut and int(cut[2]) < int(cut[1]) < _UNKNOWN_SIZE:
            raise ValueError(f"truncated: {cut[2]} of {cut[1]} bytes are there")
        if audio.frames == 0:
            raise ValueError("has no samples")
        try:  # compressed files are shorter than their header says only when one reads the end
            audio.seek(audio.frames - 1)
            complete = len(audio.read(1)) == 1
        except soundfile.LibsndfileError:
            complete = False
        if not complete:
            raise ValueError("truncated: its last samples cannot be read")
        return AudioInfo(audio.frames, audio.samplerate, audio.channels)
