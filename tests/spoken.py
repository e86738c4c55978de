"""A corpus in which words are tones at exact times, for the tests of windows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet

from plateau.data.features import FeatureOptions, compute_features, make_cuts
from plateau.data.kaldi import Interval, Utterance, write_data_dir
from plateau.data.manifests import to_manifests

RATE = 8000  # Hz
WORDS = {"la": 300, "mi": 800, "so": 1500, "ti": 2500}  # Hz
FEATURES = FeatureOptions(RATE, 20, "lhotse")
LEAD, TONE, PAUSE = 0.2, 0.1, 0.05  # seconds


def sung(text: str) -> tuple[np.ndarray, tuple[Interval, ...]]:
    """Samples and words of a text: a pause, tones with short pauses between, a pause."""
    start, words = LEAD, []
    samples = np.random.default_rng(0).normal(0, 0.003, round((2 * LEAD + 0.15 * 99) * RATE))
    for word in text.split():
        words.append(Interval(round(start, 3), TONE, word))
        first = round(start * RATE)
        seconds = np.arange(round(TONE * RATE)) / RATE
        samples[first : first + len(seconds)] += 0.3 * np.sin(2 * np.pi * WORDS[word] * seconds)
        start += TONE + PAUSE
    return samples[: round((start + LEAD) * RATE)], tuple(words)


def write_set(folder: Path, texts: Sequence[str], *, timed: bool = True) -> Path:
    """Write a data directory of these texts, utterances ``u-00`` and so on, with ctm or without."""
    audio = folder.parent / "audio" / folder.name
    audio.mkdir(parents=True, exist_ok=True)
    utterances = []
    for number, text in enumerate(texts):
        samples, words = sung(text)
        path = audio / f"{number}.wav"
        soundfile.write(path, samples, RATE)
        utterances.append(
            Utterance(f"u-{number:02}", "u", text, str(path), words=words if timed else ())
        )
    write_data_dir(folder, utterances)
    return folder


def make_set(folder: Path, texts: Sequence[str], *, timed: bool = True) -> CutSet:
    """Cuts of these texts with stored features."""
    data = write_set(folder / "data" / "set", texts, timed=timed)
    cuts = make_cuts(*to_manifests(data), FEATURES)
    return compute_features(cuts, FEATURES, folder / "fbank")
