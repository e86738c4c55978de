"""Stage 4: look for mistakes in data and options before hours are spent on training."""

from importlib import import_module
from pathlib import Path

from lhotse import CutSet

from plateau.checks.preflight import (
    check_lengths,
    check_memory,
    check_model,
    check_overlap,
    check_statistics,
    check_transcripts,
)
from plateau.config import cli
from plateau.data.corpus import TRAIN
from plateau.data.tokens import read_lang
from plateau.training.checkpoint import set_seed
from plateau.training.experiment import Experiment, corpus_of, lang_dir, options_class
from plateau.training.selection import long_enough


def main(recipe: str, exp_dir: Path) -> None:
    """Check an experiment; notes do not stop it, errors do.

    Args:
        recipe: the recipe's folder
        exp_dir: the experiment's folder, with its config.yaml
    """
    options = Experiment(exp_dir).options(options_class(recipe))
    corpus = corpus_of(options)
    tokenizer = read_lang(lang_dir(options))
    check_statistics(corpus)
    if not corpus.test_sets():
        raise corpus.nothing_to_decode()
    train = corpus.cuts(TRAIN)
    check_lengths(TRAIN, train, options.loading.max_duration)
    if dev := corpus.dev_set():
        check_lengths(dev, corpus.cuts(dev), options.loading.max_duration)
    notes = check_transcripts(TRAIN, train, tokenizer)
    for set_name in corpus.test_sets():
        cuts = corpus.cuts(set_name)
        notes += check_transcripts(set_name, cuts, tokenizer)
        notes += check_overlap(set_name, cuts, train)
    set_seed(options.training.seed)
    built = import_module(f"{recipe}.train").build(options)
    left_out = exp_dir / "log" / f"left_out_{TRAIN}.txt"
    usable = long_enough(
        train, tokenizer, built.model.output_lengths, built.frames_needed, left_out
    )
    by_duration = sorted(usable, key=lambda cut: cut.duration)
    few = CutSet.from_cuts(
        by_duration[i] for i in sorted({len(by_duration) * i // 8 for i in range(8)})
    )
    notes += check_model(
        built.model, built.loss_function, few, options.features, len(tokenizer.tokens)
    )
    check_memory(built.model, built.loss_function, by_duration, options)
    for note in notes:
        print(f"note: {note}")
    print(f"checked {len(train)} training utterances and {recipe}: ready to train")


if __name__ == "__main__":
    cli(main)
