"""Utterances of the default corpus, made in batches that do not depend on one another."""

import os
import random
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread

import noise
import numpy as np
import soundfile
from speech import (
    SAMPLE_RATE,
    TRAIN_VOICES,
    UNSEEN_VOICES,
    Speech,
    WordMismatchError,
    speakers,
    synthesise,
)
from text import SentenceMaker, set_of

from plateau.data.kaldi import Interval, Utterance

DURATIONS = (1.5, 6.0)  # seconds, shortest and longest utterance
BATCH_SECONDS = 60.0


@dataclass(frozen=True)
class SetOptions:
    """How one set is made.

    Args:
        name: train, dev, test_clean or test_other
        seconds: of audio, silences included
        unseen: whether its voices are those that training never has
        noisy: share of the utterances with noise, 0 to 1
        snr: smallest and largest signal-to-noise ratio, dB
    """

    name: str
    seconds: float
    unseen: bool = False
    noisy: float = 0.5
    snr: tuple[float, float] = (5.0, 30.0)

    @property
    def voices(self) -> dict[str, str]:
        """Speaker ids and names of espeak's voices."""
        return speakers(UNSEEN_VOICES if self.unseen else TRAIN_VOICES)


def die_with_parent() -> None:
    """End this process when its parent is killed, lest it writes into the next run's folders."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def speak(rng: random.Random, text: str, voice: str) -> Speech:
    """Speak a text at a random rate and pitch, every third time with pauses between the words."""
    gap = rng.choice((0, 0, rng.randint(1, 4)))
    return synthesise(text, voice, rng.randint(130, 190), rng.randint(35, 65), gap)


def make_utterance(
    rng: random.Random, options: SetOptions, speaker: str, text: str, others: list[str]
) -> tuple[np.ndarray, tuple[Interval, ...], tuple[Interval, ...]]:
    """One utterance between two random silences.

    Args:
        others: sentences for the talkers of a babble

    Returns:
        samples (T,) at 16 kHz, words and phones

    Raises:
        WordMismatchError: espeak joins words of this text.
    """
    speech = speak(rng, text, options.voices[speaker])
    before, after = (rng.randint(SAMPLE_RATE // 10, SAMPLE_RATE * 4 // 10) for _ in range(2))
    lead = before / SAMPLE_RATE
    words, phones = (
        tuple(Interval(i.start + lead, i.duration, i.label) for i in intervals)
        for intervals in (speech.words, speech.phones)
    )
    samples = np.pad(speech.samples, (before, after))  # (T,)
    active = np.zeros(len(samples), bool)  # (T,)
    for word in words:
        first = round(word.start * SAMPLE_RATE)
        active[first : first + round(word.duration * SAMPLE_RATE)] = True
    if rng.random() < options.noisy:
        kind = rng.choice(noise.KINDS)
        generator = np.random.default_rng(rng.getrandbits(64))
        if kind == "babble":
            voices = [voice for name, voice in options.voices.items() if name != speaker]
            talkers = [speak(rng, other, rng.choice(voices)).samples for other in others]
            sound = noise.babble(talkers, len(samples), generator)
        elif kind == "hum":
            sound = noise.hum(len(samples), SAMPLE_RATE, generator)
        else:
            sound = noise.coloured(kind, len(samples), SAMPLE_RATE, generator)
        samples = noise.mix(samples, active, sound, rng.uniform(*options.snr))
    level = 10 ** (rng.uniform(-30, -20) / 20)  # RMS of the whole, of full scale
    samples *= min(level / np.sqrt(np.mean(samples**2)), 0.99 / np.abs(samples).max())
    return samples, words, phones


def make_batch(
    options: SetOptions, seed: int, index: int, seconds: float, texts: list[str], folder: Path
) -> list[Utterance]:
    """Make utterances until they last ``seconds``, and write their audio into ``folder``.

    What is made depends on the arguments alone. Texts that espeak does not speak word by word, or
    that last too short or too long, are passed over; when all are used up, new ones are made.
    """
    rng = random.Random(f"{seed} {options.name} {index}")
    sentences = SentenceMaker(rng, options.name)
    waiting = list(reversed(texts))
    utterances: list[Utterance] = []
    total = 0.0
    while total < seconds:
        text = waiting.pop() if waiting else next(sentences)
        speaker = rng.choice(sorted(options.voices))
        others = [next(sentences) for _ in range(4)]
        try:
            samples, words, phones = make_utterance(rng, options, speaker, text, others)
        except WordMismatchError:
            continue
        duration = len(samples) / SAMPLE_RATE
        if not DURATIONS[0] <= duration <= DURATIONS[1]:
            continue
        total += duration
        name = f"{speaker}-{options.name}-{index:04d}{len(utterances):02d}"
        path = folder / f"{name}.wav"
        soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
        utterances.append(Utterance(name, speaker, text, str(path), words=words, phones=phones))
    assert all(set_of(utterance.text) == options.name for utterance in utterances)
    return utterances
