"""Stage 4: look for mistakes in windows and options before hours are spent on training."""

from pathlib import Path

import numpy as np

from masked_window.options import Options
from masked_window.train import build
from plateau.alignment.windows import windows_of
from plateau.checks.preflight import (
    check_memory,
    check_overlap,
    check_statistics,
    check_training,
    check_transcripts,
    model_in_memory,
)
from plateau.config import cli
from plateau.data.corpus import TRAIN
from plateau.data.tokens import read_lang
from plateau.data.window_loading import WindowLoader
from plateau.training.checkpoint import set_seed
from plateau.training.experiment import Experiment, corpus_of, lang_dir


def audit(options: Options) -> list[str]:
    """What is said of the windows of all sets in use: words that are not within their audio."""
    corpus = corpus_of(options)
    return [
        note
        for name in corpus.used_sets()
        for note in windows_of(corpus, name, options.window).audit()
    ]


def main(exp_dir: Path) -> None:
    """Check an experiment; notes do not stop it, errors do.

    Args:
        exp_dir: the experiment's folder, with its config.yaml
    """
    options = Experiment(exp_dir).options(Options)
    corpus, tokenizer = corpus_of(options), read_lang(lang_dir(options))
    check_statistics(corpus)
    if not corpus.test_sets():
        raise corpus.nothing_to_decode()
    train = corpus.cuts(TRAIN).to_eager()
    notes = check_transcripts(TRAIN, train, tokenizer)
    for set_name in corpus.test_sets():
        cuts = corpus.cuts(set_name).to_eager()
        notes += check_transcripts(set_name, cuts, tokenizer)
        notes += check_overlap(set_name, cuts, train)
    notes += audit(options)
    set_seed(options.training.seed)
    with model_in_memory("window_model.…"):
        recipe = build(options)
    windows = windows_of(corpus, TRAIN, options.window)
    loader = WindowLoader(windows, options.features, tokenizer)
    steps = options.training.epochs * loader.num_batches()
    notes += check_training(options.training, steps) + options.masking.check_steps(steps)
    longest = np.argsort(windows.index.num_frames)[-options.window.batch_size :]
    batch = loader.some(longest.tolist())
    check_memory(recipe.model, recipe.loss_function, batch, loader.memory_option)
    for note in notes:
        print(f"note: {note}")
    print(f"checked {len(windows)} training windows: ready to train")


if __name__ == "__main__":
    cli(main)
