"""Make the default corpus: synthetic speech in train, dev, test_clean and test_other."""

import random
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from batch import BATCH_SECONDS, SetOptions, die_with_parent, make_batch
from speech import espeak
from text import SentenceMaker
from tqdm import tqdm

from plateau.config import UserError, cli, load
from plateau.data.kaldi import write_data_dir
from plateau.ranges import COUNT, above, check_options

TEXTS_PER_BATCH = 24  # a little more than a batch needs


@dataclass(frozen=True)
class EspeakOptions:
    """Size and randomness of the corpus.

    Args:
        hours: of training audio, above 0
        dev_minutes: of audio, above 0
        test_minutes: of audio in each of test_clean and test_other, above 0
        seed: every seed gives another corpus, the same one each time
    """

    hours: float = 1.0
    dev_minutes: float = 5.0
    test_minutes: float = 10.0
    seed: int = 1

    def __post_init__(self) -> None:
        check_options(
            self,
            "corpus",
            hours=above(0, 10_000),
            dev_minutes=above(0, 10_000),
            test_minutes=above(0, 10_000),
            seed=COUNT,
        )

    def sets(self) -> list[SetOptions]:
        """The four sets."""
        test_seconds = 60 * self.test_minutes
        return [
            SetOptions("train", 3600 * self.hours),
            SetOptions("dev", 60 * self.dev_minutes),
            SetOptions("test_clean", test_seconds, noisy=0.0),
            SetOptions("test_other", test_seconds, unseen=True, noisy=1.0, snr=(5.0, 20.0)),
        ]


def batches(options: SetOptions, seed: int, folder: Path) -> list[tuple]:
    """Arguments of `make_batch` for a set, the same however they are then spread over processes."""
    sentences = SentenceMaker(random.Random(f"{seed} {options.name}"), options.name)
    jobs, start = [], 0.0
    while start < options.seconds:
        seconds = min(BATCH_SECONDS, options.seconds - start)
        texts = [next(sentences) for _ in range(TEXTS_PER_BATCH)]
        jobs.append((options, seed, len(jobs), seconds, texts, folder))
        start += BATCH_SECONDS
    return jobs


def main(
    output: Path,
    corpus_dir: Path | None = None,
    config: Path | None = None,
    hours: float | None = None,
    seed: int | None = None,
    nj: int = 2,
) -> None:
    """Make the default corpus with espeak-ng.

    Args:
        output: data/espeak; gets a data directory for each set, and audio/
        corpus_dir: must not be given, the speech is made here
        config: YAML with a section `corpus` of these options: hours, dev_minutes, test_minutes,
            seed
        hours: of training speech (default 1)
        seed: of texts, voices and noises (default 1)
        nj: number of parallel processes; the corpus does not depend on it
    """
    if corpus_dir is not None:
        raise UserError("the corpus espeak is made here: leave out --corpus-dir")
    if nj < 1:
        raise UserError(f"--nj {nj}: at least 1 process is needed")
    options = EspeakOptions() if config is None else load(EspeakOptions, config, section="corpus")
    given = {name: v for name, v in (("hours", hours), ("seed", seed)) if v is not None}
    options = replace(options, **given)
    with espeak():
        pass  # a missing library is told here rather than by each process

    made = {name.name: [] for name in options.sets()}
    jobs = []
    for part in options.sets():
        # without wav.scp an earlier directory is not mistaken for this one while it is made
        (output / part.name / "wav.scp").unlink(missing_ok=True)
        folder = output / "audio" / part.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        jobs += batches(part, options.seed, folder)
    with ProcessPoolExecutor(nj, get_context("spawn"), die_with_parent) as pool:
        results = pool.map(make_batch, *zip(*jobs, strict=True))
        progress = tqdm(results, "espeak", len(jobs), disable=None, unit="batch")
        for job, utterances in zip(jobs, progress, strict=True):
            made[job[0].name] += utterances
    for name, utterances in made.items():
        write_data_dir(output / name, utterances)


if __name__ == "__main__":
    cli(main)
