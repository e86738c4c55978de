"""The one place that opens audio: what is checked here is what features are computed from.

A header's length is an estimate. Programs that write to a pipe (sox, ffmpeg, arecord) do not know
it, and many MP3s say a wrong one; such files are read to their end. Where a header knows its length
and samples are missing, the file is truncated, and that is an error.
"""

import io
import mmap
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import soundfile

from plateau.config import UserError
from plateau.data.mp3 import with_true_length

# The shortest utterance in seconds: the window of a feature frame. Below it there are no features.
SHORTEST = 0.025
# What libsndfile notes of samples that should go on after the end of the file, such as
# "data : 32000 (should be 160)": data of WAV, SSND of AIFF, Data Size of AU, riff of W64, RF64.
_CUT = r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
# Sizes from here on stand for "not known": 2000000000, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF.
_UNKNOWN_SIZE = 2_000_000_000
# In these (but in FLAC) each byte is part of a sample, and no sample is wrong: their size is their
# length. All others (compressed, floating point) are decoded to their end to know.
_COUNTED = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"}
# By these suffixes libsndfile takes any bytes for samples without a header.
_HEADERLESS = (".raw", ".au", ".snd", ".gsm", ".vox", ".vox6")
_BLOCK = 1 << 16  # samples per channel that are decoded at once
_GONE = (FileNotFoundError, NotADirectoryError)
_NOT_RUN = (126, 127)  # exit status of a shell that could not start a command


class AudioError(ValueError):
    """What is wrong with audio, without its name.

    Args:
        what: the finding
        lost: whether it is the audio that is bad, and not that it could not be looked at
    """

    def __init__(self, what: str, lost: bool = True):
        super().__init__(what)
        self.lost = lost


@dataclass(frozen=True)
class AudioInfo:
    """Length in samples, sampling rate in Hz, and number of channels of a recording.

    ``peak`` is its largest absolute value (1.0 is full scale), None where it was not decoded.
    """

    num_samples: int
    sampling_rate: int
    channels: int
    peak: float | None = None

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_samples / self.sampling_rate


def is_too_short(seconds: float) -> bool:
    """Whether audio is shorter than `SHORTEST`, but for rounded times."""
    return seconds < SHORTEST - 1e-6


def too_short(seconds: float) -> str:
    """What to say of such audio."""
    return f"has {1000 * seconds:.4g} ms, less than a feature window ({1000 * SHORTEST:g} ms)"


def no_channel(channel: int, channels: int) -> str:
    """What to say where a recording of so many channels has no such channel."""
    return f"is on channel {channel}, its recording has {channels}; channels count from 0"


def is_pipe(audio: str) -> bool:
    """Whether an entry of `wav.scp` is a shell command that writes the audio."""
    return audio.endswith("|")


def inspect_audio(audio: str | io.BytesIO) -> AudioInfo:
    """Look at the recording of an entry of `wav.scp` (a shell command is run), or at its content.

    Integer PCM is as long as its bytes say, and only its last sample is read. All else is decoded
    wholly: there is no other way to know its length, and whether its samples are numbers.

    Raises:
        AudioError: no such file, not audio, no samples, truncated, damaged, NaN, a failed command.
    """
    if isinstance(audio, io.BytesIO):
        return _inspect(audio)
    if is_pipe(audio):
        command = audio.removesuffix("|").strip()
        try:
            return _inspect(io.BytesIO(_run(command)))
        except AudioError as error:
            if not error.lost or "ends with" in str(error):
                raise
            raise AudioError(f"no audio comes from '{command}': {error}") from None
    try:
        with Path(audio).open("rb") as file:
            if not file.read(1):
                raise AudioError("an empty file")
    except IsADirectoryError:
        raise AudioError("not a file") from None
    except OSError as error:
        if isinstance(error, _GONE):
            if audio.startswith("~") and Path(audio).expanduser().exists():
                what = f"~ is for shells to expand; write {Path(audio).expanduser()}"
                raise AudioError(what, lost=False) from None
            raise AudioError("no such file") from None
        raise AudioError(f"cannot be read: {error.strerror}", lost=False) from None
    return _inspect(audio)


def check_there(files: Iterable[str]) -> None:
    """See that audio files are there; each is only looked for.

    Raises:
        UserError: names the first that is not, and tells how many are not.
    """
    files = list(dict.fromkeys(files))
    gone = [file for file in files if _is_gone(file)]
    if gone:
        raise UserError(
            f"{gone[0]}: no such file; {len(gone)} of {len(files)} audio files are not there\n"
            "put them back, or write into wav.scp where they are; then start the same ./run.sh "
            "again, without --stage\n"
            "or leave out their utterances: python local/validate_data_dir.py --fix DATA_DIR"
        )


def _is_gone(file: str) -> bool:
    try:
        Path(file).stat()
    except _GONE:
        return not file.startswith("~")  # of which `inspect_audio` has more to say
    except OSError:
        return False
    return False


def read_audio(
    source: str | Path | io.BytesIO, start: float = 0.0, duration: float | None = None
) -> tuple[np.ndarray, int]:
    """Samples of a file or of a file's content, as `inspect_audio` saw them.

    Args:
        source: path, or content in memory
        start: seconds, rounded to a sample
        duration: seconds, rounded to a sample; None: to the end. Less comes where the audio ends

    Returns:
        samples (C, S), float32, and the sampling rate in Hz

    Raises:
        AudioError: names the file and says why it cannot be read.
    """
    name = "" if isinstance(source, io.BytesIO) else f"{source}: "
    try:
        with _open(source) as audio:
            rate = audio.samplerate
            if start > 0:
                audio.seek(_samples(start, rate))
            blocks = list(_blocks(audio, None if duration is None else _samples(duration, rate)))
            empty = np.zeros((0, audio.channels), np.float32)
            return np.concatenate([empty, *blocks]).T, rate
    except (AudioError, soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{name}{_reason(error)}") from None


def _samples(seconds: float, rate: int) -> int:
    """As Lhotse counts them: halves go up, and what is a half but for binary fractions, too."""
    return int(Decimal(round(seconds * rate, 8)).quantize(0, rounding=ROUND_HALF_UP))


def _run(command: str) -> bytes:
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        what = f"'{command}' ends with {done.returncode}: {reason[0]}"
        # A command that is not there, or was killed, says nothing of the audio.
        raise AudioError(what, lost=done.returncode not in _NOT_RUN and done.returncode > 0)
    if not done.stdout:
        raise AudioError("it writes nothing")
    return done.stdout


class _Stream(soundfile.SoundFile):
    """Read block after block: soundfile would seek after each, and by the header's length."""

    def seekable(self) -> bool:
        return False


def _open(source: str | Path | io.BytesIO) -> _Stream:
    """Open audio; where its header's length is known to be none, with one that is mended."""
    fault = None
    if isinstance(source, io.BytesIO):
        source.seek(0)
    try:
        audio = _Stream(_content(source) if str(source).lower().endswith(_HEADERLESS) else source)
    except soundfile.LibsndfileError as error:
        fault = error
    else:
        if audio.format == "MP3":
            audio.close()
            try:
                return _Stream(with_true_length(bytes(_content(source))))
            except ValueError as error:
                raise AudioError(str(error)) from None
        if audio.frames > 0:
            return audio
        audio.close()
    content = _content(source)
    if not _mend_size(content) and fault:
        raise fault
    return _Stream(io.BytesIO(content) if isinstance(content, bytearray) else content)


def _content(source: str | Path | io.BytesIO) -> mmap.mmap | bytearray:
    """The bytes of a source; to change them does not change the file."""
    if isinstance(source, io.BytesIO):
        return bytearray(source.getvalue())
    with Path(source).open("rb") as file:
        if not file.read(1):  # there is nothing to map
            raise AudioError("an empty file")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _mend_size(content: mmap.mmap | bytearray) -> bool:
    """Write the true size into a header that says none though samples follow (WAV, AU, CAF)."""
    match content[:4]:
        case b"RIFF" | b"RIFX" as kind:
            order, first, width, unknown = "big" if kind == b"RIFX" else "little", 12, 4, 0
        case b"caff":
            order, first, width, unknown = "big", 8, 8, (1 << 64) - 1
        case b".snd":
            start = int.from_bytes(content[4:8], "big")
            if int.from_bytes(content[8:12], "big") or len(content) <= max(start, 12):
                return False
            content[8:12] = (len(content) - start).to_bytes(4, "big")
            return True
        case _:
            return False
    at = first
    while at + 4 + width <= len(content):
        size = int.from_bytes(content[at + 4 : at + 4 + width], order)
        body = at + 4 + width
        if content[at : at + 4] == b"data":
            rest = len(content) - body
            if size != unknown or not rest or (width == 4 and _are_chunks(content, body, order)):
                return False
            content[at + 4 : body] = min(rest, (1 << 32) - 1).to_bytes(width, order)
            return True
        at = body + size + (size % 2 if width == 4 else 0)
    return False


def _are_chunks(content: mmap.mmap | bytearray, at: int, order: str) -> bool:
    """Whether what follows no samples is other chunks of a WAV, to the end of the file."""
    while at + 8 <= len(content) and all(32 <= byte < 127 for byte in content[at : at + 4]):
        size = int.from_bytes(content[at + 4 : at + 8], order)
        at += 8 + size + size % 2
    return at in (len(content), len(content) + 1)


def _blocks(audio: _Stream, frames: int | None = None) -> Iterator[np.ndarray]:
    """Yield samples (S, C), float32, from here on, ``frames`` in all or to the end."""
    while frames is None or frames > 0:
        size = _BLOCK if frames is None else min(frames, _BLOCK)
        block = audio.read(size, dtype="float32", always_2d=True)
        if not len(block):
            return
        yield block
        if frames is not None:
            frames -= len(block)


def _inspect(source: str | io.BytesIO) -> AudioInfo:
    try:
        with _open(source) as audio:
            cut = re.search(_CUT, audio.extra_info, re.MULTILINE)
            if cut and int(cut[2]) < int(cut[1]) < _UNKNOWN_SIZE:
                raise AudioError(f"truncated: {cut[2]} of {cut[1]} bytes are there")
            if audio.frames == 0:
                raise AudioError("has no samples")
            if audio.format == "NIST":
                _check_nist(source, audio.frames)
            # Other compressed formats than FLAC estimate their length, and FLAC may not know it.
            if audio.subtype in _COUNTED and audio.frames < 1 << 36 and not _ends(audio):
                raise AudioError("truncated: its last samples cannot be read")
            if audio.subtype in _COUNTED and audio.format != "FLAC":
                return AudioInfo(audio.frames, audio.samplerate, audio.channels)
            if audio.format != "FLAC":
                return _decode(audio)
        # Anew, as `read_audio` opens it: having been at its end can hide damage at its start.
        with _open(source) as audio:
            return _decode(audio)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"not readable as audio ({_reason(error)})") from None


def _check_nist(source: str | io.BytesIO, frames: int) -> None:
    """Raise `AudioError` where a SPHERE header counts more samples; libsndfile does not look."""
    head = bytes(_content(source)[:1024])
    said = re.search(rb"^sample_count -i (\d+)", head, re.MULTILINE)
    if said and frames < int(said[1]) < _UNKNOWN_SIZE:
        raise AudioError(f"truncated: {frames} of {int(said[1])} samples are there")


def _decode(audio: _Stream) -> AudioInfo:
    """Read all samples: their number, their peak, and whether they are numbers."""
    count, peak = 0, 0.0
    try:
        for block in _blocks(audio):
            level = float(np.abs(block).max())
            if not np.isfinite(level):
                sample, channel = np.argwhere(~np.isfinite(block))[0]
                what = "NaN" if np.isnan(block[sample, channel]) else "infinite"
                of = f" of channel {channel}" if audio.channels > 1 else ""
                place = f"sample {count + sample}{of} ({(count + sample) / audio.samplerate:g} s)"
                raise AudioError(f"{place} is {what}")
            count, peak = count + len(block), max(peak, level)
    except soundfile.LibsndfileError:
        start, end = (min(n, audio.frames) / audio.samplerate for n in (count, count + _BLOCK))
        raise AudioError(f"decoding fails between {start:.2f} and {end:.2f} s") from None
    if not count:
        raise AudioError("has no samples")
    return AudioInfo(count, audio.samplerate, audio.channels, peak)


def _ends(audio: _Stream) -> bool:
    """Whether the last sample can be read."""
    try:
        audio.seek(audio.frames - 1)
        return len(audio.read(1)) == 1
    except soundfile.LibsndfileError:
        return False


def _reason(error: Exception) -> str:
    return getattr(error, "error_string", str(error)).strip().rstrip(".")
