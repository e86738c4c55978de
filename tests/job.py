"""Stages 1 to 8 of a recipe on tones, by the scripts' own command lines."""

import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from plateau.data.kaldi import Interval, Utterance, write_data_dir
from tests.training.toy import RATE, speak

ROOT = Path(__file__).parents[1]
SETS = {"train": 40, "dev": 4, "test": 6}
OVERRIDES = [
    f"features.sampling_rate={RATE}",
    "features.num_mel_bins=20",
    "features.perturb_speed=[0.9]",
    "tokens.kind=char",
    "encoder.conformer.dim=32",
    "encoder.conformer.num_layers=1",
    "encoder.conformer.feedforward_dim=32",
    "encoder.conformer.dropout=0",
    "loading.max_duration=6",
    "training.epochs=8",
    "training.average_last=2",
    "training.spec_augment.p=0",
    "training.schedule.peak=1e-2",
    "training.schedule.warmup_steps=10",
    "decoding.nbest=3",
]


def times_of(words: Sequence[str]) -> tuple[Interval, ...]:
    """When `speak` says words: 0.15 s for each letter, of which the first third is a pause."""
    intervals, start = [], 0.05
    for word in words:
        duration = 0.15 * len(word) - 0.05
        intervals.append(Interval(round(start, 3), round(duration, 3), word))
        start += duration + 0.05
    return tuple(intervals)


def trn(path: Path) -> dict[str, list[str]]:
    """Words by utterance."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        words, name = re.fullmatch(r"(.*) ?\((\S+)\)", line).groups()
        found[name] = words.split()
    return found


def check_nbest(decode_dir: Path) -> None:
    """`nbest.txt` ranks different hypotheses by score; the first is the one that is scored."""
    best = trn(decode_dir / "hyp.trn")
    ranked: dict[str, list[tuple[float, list[str]]]] = {name: [] for name in best}
    for line in (decode_dir / "nbest.txt").read_text(encoding="utf-8").splitlines():
        name, rank, score, *words = line.split()
        ranked[name].append((float(score), words))
        assert int(rank) == len(ranked[name]) <= 3
    assert {name: hypotheses[0][1] for name, hypotheses in ranked.items()} == best
    assert any(len(hypotheses) > 1 for hypotheses in ranked.values())
    for hypotheses in ranked.values():
        scores = [score for score, _ in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] < 0
        assert len({tuple(words) for _, words in hypotheses}) == len(hypotheses)


def assert_watched(directory: Path, scalar: str, epochs: int) -> None:
    """TensorBoard has a scalar and a picture of each of two utterances for every epoch."""
    events = EventAccumulator(str(directory)).Reload()
    assert len(events.Scalars(f"watched/{scalar}")) == epochs
    pictures = [tag for tag in events.Tags()["images"] if tag.startswith("watched/dev-")]
    assert len(pictures) == 2


def run(script: str, *arguments: str) -> None:
    """As `python script arguments`, without another process that imports torch."""
    argv = sys.argv
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as exit:
        assert not exit.code, f"{script}: {exit.code}"
    finally:
        sys.argv = argv


def run_job(recipe: str, exp_dir: Path, overrides: Sequence[str]) -> None:
    """Make a corpus of tones in this folder, and train and decode the recipe on it."""
    random = np.random.default_rng(0)
    for set_name, count in SETS.items():
        Path("audio", set_name).mkdir(parents=True)
        utterances = []
        for i in range(count):
            letters = "".join(random.choice(list("abc"), size=random.integers(2, 6)))
            audio = f"audio/{set_name}/{i}.wav"
            # Two or three letters are a word.
            words = re.findall(".{2,3}", letters + letters[0])
            soundfile.write(audio, speak("".join(words), random), RATE)
            name = f"{set_name}-{i:02}"
            text = " ".join(words)
            utterances.append(Utterance(name, set_name, text, audio, words=times_of(words)))
        write_data_dir(Path("data/toy", set_name), utterances)
    start(recipe, exp_dir, overrides)
    config = str(exp_dir / "config.yaml")
    run("local/validate_data_dir.py", *(f"data/toy/{set_name}" for set_name in SETS))
    run("local/make_manifests.py", "data/toy")
    run("local/compute_fbank.py", "data/toy", config, "--nj", "1")
    run("local/make_tokens.py", "data/toy", config)
    run("local/check.py", str(exp_dir))
    run(f"{recipe}/train.py", str(exp_dir))
    run(f"{recipe}/decode.py", str(exp_dir))
    run("local/results.py", str(exp_dir))


def start(recipe: str, exp_dir: Path, overrides: Sequence[str]) -> None:
    """Write the options of an experiment."""
    names = ["--corpus", "toy", "--recipe", recipe, "--exp-dir", str(exp_dir)]
    Path("default.yaml").touch()
    run("local/configure.py", *names, "--config", "default.yaml", "--", *OVERRIDES, *overrides)
