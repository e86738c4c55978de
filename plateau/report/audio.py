"""Sound as 16-bit WAV, and pieces of it."""

import io
import wave

import numpy as np
from lhotse.cut import Cut

from plateau.decoding.files import Interval


def load_samples(cut: Cut) -> np.ndarray:
    """The samples (S,) int16 of a cut, at its sampling rate; of several channels the first.

    Recordings of 16 bits come out as they are.
    """
    floats = cut.load_audio()[0]  # (S,), 1.0 is full scale
    return np.clip(np.round(floats * 32768), -32768, 32767).astype(np.int16)


def sample_range(interval: Interval, sampling_rate: int, num_samples: int) -> tuple[int, int]:
    """First sample of an interval and the one after its last; equal if nothing of it is there.

    Args:
        interval: in seconds.
        sampling_rate: Hz.
        num_samples: S; an aligned word can end up to a frame later.
    """
    first, end = (round(seconds * sampling_rate) for seconds in interval[:2])
    first = min(max(first, 0), num_samples)
    return first, min(max(end, first), num_samples)


def wav(samples: np.ndarray, sampling_rate: int) -> bytes:
    """A mono WAV file of int16 samples (S,): a header of 44 bytes, then the samples."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sampling_rate)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()
