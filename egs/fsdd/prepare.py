"""Data directories of FSDD: strings of digits of one speaker, joined from single recordings."""

import random
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from plateau.config import UserError, cli, load
from plateau.data.kaldi import Interval, Utterance, write_data_dir
from plateau.ranges import COUNT, at_least, check_options

SAMPLE_RATE = 8000
WORDS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
LAYOUT = "files like 7_jackson_32.wav: digit, speaker, index"
DIGITS = (3, 8)  # fewest and most in a string
PAUSES = (0.05, 0.4)  # seconds, before, between and after digits
EDGE = 1e-4  # 40 dB below the loudest 10 ms: what is below it at either end is taken for silence


@dataclass(frozen=True)
class FsddOptions:
    """How strings are made.

    Args:
        repeats: strings that each training recording is used in, at least 1; other sets: one
        seed: of the order and the pauses
    """

    repeats: int = 4
    seed: int = 1

    def __post_init__(self) -> None:
        check_options(self, "corpus", repeats=at_least(1, 1000), seed=COUNT)


@dataclass(frozen=True)
class Recording:
    """One spoken digit; ``samples`` (T,) at 8 kHz, without the silence at its ends."""

    word: str
    samples: np.ndarray


def read(path: Path, digit: str) -> Recording:
    """Read a recording and cut the silence at its ends, which its published form still has."""
    samples, rate = soundfile.read(path)
    if rate != SAMPLE_RATE or samples.ndim != 1 or len(samples) < SAMPLE_RATE // 100:
        raise UserError(f"{path}: not a recording of FSDD, which are 8 kHz with one channel")
    frames = samples[: len(samples) // 80 * 80].reshape(-1, 80)  # (10 ms frames, 80)
    power = np.mean(frames**2, axis=1)
    loud = np.flatnonzero(power >= EDGE * power.max())
    end = len(samples) if loud[-1] == len(frames) - 1 else 80 * (loud[-1] + 1)
    return Recording(WORDS[int(digit)], samples[80 * loud[0] : end])


def set_of(index: int) -> str:
    """The set of a recording: by the corpus's convention, indices 0 to 4 are the test set."""
    return "test" if index < 5 else "dev" if index < 10 else "train"


def strings(recordings: list[Recording], rng: random.Random) -> list[list[Recording]]:
    """Cut the shuffled recordings into strings of 3 to 8; each recording is in one of them."""
    pool = rng.sample(recordings, len(recordings))
    shortest, longest = DIGITS
    cut: list[list[Recording]] = []
    while pool:
        most = min(longest, len(pool) - shortest)  # leaves enough for another string
        length = len(pool) if len(pool) <= longest else rng.randint(shortest, most)
        cut.append(pool[:length])
        del pool[:length]
    return cut


def join(string: list[Recording], rng: random.Random) -> tuple[np.ndarray, tuple[Interval, ...]]:
    """Join recordings with random pauses of very soft noise: samples (T,) and timed words."""
    generator = np.random.default_rng(rng.getrandbits(64))
    level = 10 ** (rng.uniform(-70, -50) / 20)  # of full scale

    def pause() -> np.ndarray:
        return level * generator.standard_normal(round(SAMPLE_RATE * rng.uniform(*PAUSES)))

    pieces, words = [pause()], []
    position = len(pieces[0])
    for recording in string:
        duration = len(recording.samples) / SAMPLE_RATE
        words.append(Interval(position / SAMPLE_RATE, duration, recording.word))
        pieces += [recording.samples, pause()]
        position += len(pieces[-2]) + len(pieces[-1])
    return np.concatenate(pieces), tuple(words)


def main(
    output: Path,
    corpus_dir: Path | None = None,
    config: Path | None = None,
    repeats: int | None = None,
    seed: int | None = None,
    nj: int = 1,
) -> None:
    """Join recordings of FSDD to strings of digits: sets train, dev and test.

    Args:
        output: data/fsdd; gets a data directory for each set, and audio/
        corpus_dir: the folder recordings of the Free Spoken Digit Dataset
        config: YAML with a section `corpus` of these options: repeats, seed
        repeats: strings that each training recording is used in (default 4)
        seed: of the order and the pauses (default 1)
        nj: number of parallel processes; one does
    """
    options = FsddOptions() if config is None else load(FsddOptions, config, section="corpus")
    given = {name: v for name, v in (("repeats", repeats), ("seed", seed)) if v is not None}
    options = replace(options, **given)
    if corpus_dir is None:
        raise UserError(f"give --corpus-dir, the folder recordings of FSDD: {LAYOUT}")
    pools: dict[tuple[str, str], list[Recording]] = defaultdict(list)
    for path in sorted(corpus_dir.glob("*.wav")):
        if match := re.fullmatch(r"(\d)_([a-z]+)_(\d+)", path.stem):
            pools[set_of(int(match[3])), match[2]].append(read(path, match[1]))
    if {name for name, _ in pools} != {"train", "dev", "test"}:
        raise UserError(f"{corpus_dir}: no recordings of all three sets\nexpected: {LAYOUT}")

    made: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for name in made:
        # without wav.scp an earlier directory is not mistaken for this one while it is made
        (output / name / "wav.scp").unlink(missing_ok=True)
        shutil.rmtree(output / "audio" / name, ignore_errors=True)
        (output / "audio" / name).mkdir(parents=True)
    for (name, speaker), recordings in tqdm(sorted(pools.items()), "fsdd", disable=None):
        rng = random.Random(f"{options.seed} {name} {speaker}")
        passes = options.repeats if name == "train" else 1
        cut = [string for _ in range(passes) for string in strings(recordings, rng)]
        for number, string in enumerate(cut):
            samples, words = join(string, rng)
            utterance = f"{speaker}-{name}-{number:05d}"
            path = output / "audio" / name / f"{utterance}.wav"
            soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
            text = " ".join(word.label for word in words)
            made[name].append(Utterance(utterance, speaker, text, str(path), words=words))
    for name, utterances in made.items():
        write_data_dir(output / name, utterances)


if __name__ == "__main__":
    cli(main)
