"""Speed of filterbanks: kaldifeat against Lhotse's own, on the same synthetic audio."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import torch
from lhotse import FeatureExtractor

from plateau.config import UserError, cli
from plateau.data.features import FeatureOptions, make_extractor
from plateau.machine import machine

BATCH_SECONDS = 600.0  # as `compute_features` has it
BACKENDS = ("kaldifeat", "lhotse")  # ours, the peer

Samples = np.ndarray  # (1, samples), float32 in -1..1
Run = Callable[[FeatureExtractor, Sequence[Samples], int], list[np.ndarray]]


def synthesise(seconds: float, sampling_rate: int, seed: int = 0) -> list[Samples]:
    """Utterances of 3 to 15 s, ``seconds`` in all: buzz with a pitch that moves, and noise."""
    random = np.random.default_rng(seed)
    utterances = []
    while seconds > 0:
        duration = min(random.uniform(3, 15), max(seconds, 3))
        t = np.arange(round(duration * sampling_rate)) / sampling_rate
        phase = 2 * np.pi * (random.uniform(80, 200) * t + 3 * np.sin(2 * t))
        voice = sum(np.sin(k * phase) / k for k in range(1, 11)) * np.abs(np.sin(8 * t))
        samples = 0.1 * voice + 0.01 * random.standard_normal(len(t))
        utterances.append(samples.astype(np.float32)[None])
        seconds -= duration
    return utterances


def in_batches(
    extractor: FeatureExtractor, utterances: Sequence[Samples], sampling_rate: int
) -> list[np.ndarray]:
    """Features (T, F) of each utterance, in batches of ten minutes."""
    features: list[np.ndarray] = []
    batch: list[Samples] = []
    for i, utterance in enumerate(utterances):
        batch.append(utterance)
        full = sum(samples.size for samples in batch) >= BATCH_SECONDS * sampling_rate
        if full or i == len(utterances) - 1:
            features.extend(extractor.extract_batch(batch, sampling_rate=sampling_rate))
            batch = []
    return features


def one_by_one(
    extractor: FeatureExtractor, utterances: Sequence[Samples], sampling_rate: int
) -> list[np.ndarray]:
    """Features (T, F) of each utterance, each for itself."""
    return [extractor.extract(samples, sampling_rate) for samples in utterances]


def largest_difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """The largest absolute difference between two lists of features, in nats.

    Raises:
        UserError: they differ in the number of utterances or frames.
    """
    ours, theirs = [np.asarray(x) for x in ours], [np.asarray(x) for x in theirs]
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        raise UserError(f"{' and '.join(BACKENDS)} disagree on the number of frames")
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def main(seconds: float = 600.0, repetitions: int = 5) -> None:
    """Print times real time of both backends, their ratio, and how far their outputs differ.

    Args:
        seconds: of audio
        repetitions: of each measurement; the backends take turns, medians are printed
    """
    if seconds <= 0 or repetitions < 1:
        raise UserError("--seconds must be above 0 and --repetitions at least 1")
    print(machine())
    options = {backend: FeatureOptions(backend=backend) for backend in BACKENDS}
    sampling_rate = options[BACKENDS[0]].sampling_rate
    extractors = {backend: make_extractor(options[backend]) for backend in BACKENDS}
    utterances = synthesise(seconds, sampling_rate)
    seconds = sum(samples.size for samples in utterances) / sampling_rate
    print(f"{len(utterances)} utterances, {seconds:.0f} s, {repetitions} repetitions, medians\n")
    print(f"{'':12}{'kaldifeat':>14}{'lhotse':>14}{'ratio':>8}{'largest difference':>21}")
    runs: dict[str, Run] = {"batches": in_batches, "one by one": one_by_one}
    for name, run in runs.items():
        times: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
        outputs = {}
        for repetition in range(repetitions + 1):  # the first one warms up
            for backend in BACKENDS:
                started = time.perf_counter()
                with torch.no_grad():
                    outputs[backend] = run(extractors[backend], utterances, sampling_rate)
                if repetition > 0:
                    times[backend].append(time.perf_counter() - started)
        speeds = [f"{seconds / median(times[backend]):.0f} x RT" for backend in BACKENDS]
        ratio = median(b / a for a, b in zip(*times.values(), strict=True))
        difference = largest_difference(*outputs.values())
        print(f"{name:12}{speeds[0]:>14}{speeds[1]:>14}{ratio:>8.2f}{difference:>16.1e} nats")


if __name__ == "__main__":
    cli(main)
