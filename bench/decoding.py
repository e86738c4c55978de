"""Real-time factors of trained experiments side by side, each method and batch size in turn."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from statistics import median

from lhotse import CutSet

from plateau.config import UserError, cli
from plateau.data.loading import Batch, load_batch
from plateau.decoding.run import Encode, Search, cuts_to_decode, decode_batch
from plateau.machine import machine
from plateau.results import read_records
from plateau.training.experiment import Experiment, corpus_of, options_class
from plateau.training.recipe import load_final


@dataclass(frozen=True)
class Job:
    """An experiment's decoder, and what it decodes."""

    exp_dir: Path
    encode: Encode
    searches: Mapping[str, Search]
    batches: list[Batch]

    def seconds(self, size: int) -> dict[str, float]:
        """Of encoder and search, by method, at so many utterances at once."""
        total: dict[str, float] = defaultdict(float)
        for batch in self.batches:
            for method, taken in decode_batch(batch, size, self.encode, self.searches)[1].items():
                total[method] += taken
        return total

    def wer(self, set_name: str, method: str) -> str:
        """Of the whole set, as stage 6 has it; empty where that was not run."""
        path = Experiment(self.exp_dir).decode_dir(set_name, method) / "metrics.json"
        records = read_records(path) if path.exists() else []
        return next((f"{r['value']:.2f}" for r in records if r["metric"] == "wer"), "")


def load(exp_dir: Path, set_name: str, utterances: int, largest: int) -> Job:
    """The final model of an experiment, and the set's utterances, evenly by length.

    Raises:
        UserError: there is no such set, or no such model.
    """
    recipe = exp_dir.resolve().parent.name
    experiment = Experiment(exp_dir)
    module = import_module(f"{recipe}.decode")
    options, model = load_final(
        experiment, options_class(recipe), import_module(f"{recipe}.train").build_model
    )
    corpus = corpus_of(options)
    if set_name not in corpus.sets():
        raise UserError(f"--set {set_name}: {corpus.root} has {', '.join(corpus.sets())}")
    decoding = experiment.options(options_class(recipe)).decoding
    encode, searches = module.decoder(model, options, decoding)
    cuts = cuts_to_decode(corpus, set_name)
    step = max(1, len(cuts) // utterances)
    chosen = list(islice(cuts[::step], utterances))
    batches = [
        load_batch(CutSet.from_cuts(chosen[first : first + largest]), options.features)
        for first in range(0, len(chosen), largest)
    ]
    return Job(exp_dir, encode, searches, batches)


def main(
    exp_dirs: list[Path],
    set: str = "test_clean",
    utterances: int = 32,
    batch_sizes: tuple[int, ...] = (16, 1),
    repetitions: int = 3,
) -> None:
    """Print seconds per second of audio of each method of each experiment.

    Args:
        exp_dirs: experiments that are trained, of recipes on speech
        set: whose utterances are decoded
        utterances: so many of them, from the longest to the shortest
        batch_sizes: utterances at once
        repetitions: the figures are medians of so many; experiments take turns
    """
    if min(utterances, repetitions, *batch_sizes) < 1:
        raise UserError("--utterances, --batch-sizes, --repetitions: each must be at least 1")
    print(machine(), flush=True)
    jobs = [load(exp_dir, set, utterances, max(batch_sizes)) for exp_dir in exp_dirs]
    found: dict[tuple[Path, str, int], list[float]] = defaultdict(list)
    for job in jobs:  # not counted: much is made when it is first used
        job.seconds(max(batch_sizes))
    for _ in range(repetitions):
        for job in jobs:
            audio = sum(batch.seconds for batch in job.batches)
            for size in batch_sizes:
                for method, taken in job.seconds(size).items():
                    found[job.exp_dir, method, size].append(taken / audio)
    sizes = [f"RTF batch {size}" for size in batch_sizes]
    print(f"| experiment | method | WER % of {set} | {' | '.join(sizes)} |")
    print("|---" * (3 + len(sizes)) + "|")
    for job in jobs:
        for method in job.searches:
            cells = [f"{median(found[job.exp_dir, method, size]):.4f}" for size in batch_sizes]
            wer = job.wer(set, method)
            print(f"| {job.exp_dir} | {method} | {wer} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    cli(main)
