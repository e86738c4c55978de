"""Noises, mixed in at a signal-to-noise ratio."""

import numpy as np

KINDS = ("white", "pink", "brown", "hum", "babble")
SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls as frequency ** -slope


def coloured(kind: str, length: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """White, pink or brown noise, (length,), shaped in the spectrum above 20 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequencies = np.fft.rfftfreq(length, 1 / sample_rate)
    spectrum *= np.maximum(frequencies, 20) ** -SLOPES[kind]
    spectrum[frequencies < 20] = 0
    return np.fft.irfft(spectrum, length)


def hum(length: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Mains hum, (length,): eight harmonics of 50 or 60 Hz with random levels and phases."""
    time = np.arange(length) / sample_rate
    fundamental = rng.choice((50, 60))
    harmonics = np.arange(1, 9)[:, None]  # (8, 1)
    levels, phases = rng.random((8, 1)) / harmonics, 2 * np.pi * rng.random((8, 1))
    return (levels * np.sin(2 * np.pi * fundamental * harmonics * time + phases)).sum(0)


def babble(talkers: list[np.ndarray], length: int, rng: np.random.Generator) -> np.ndarray:
    """Several talkers at once, (length,), each repeated and started at a random place."""
    voices = [np.roll(np.resize(t, length), rng.integers(length)) for t in talkers]
    return sum(voice / np.sqrt(np.mean(voice**2)) for voice in voices)


def mix(speech: np.ndarray, active: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Add noise to speech, (T,) each.

    Args:
        active: (T,) bool, where speech sounds
        snr: mean power of the active speech over mean power of the noise, dB
    """
    power = np.mean(speech[active] ** 2)
    gain = np.sqrt(power / np.mean(noise**2) / 10 ** (snr / 10))
    return speech + gain * noise
