"""Stage 7: forced alignment of transcripts with the final model.

`python transducer/align.py exp/<corpus>/transducer/<exp> --sets dev,test` writes, for each set,
``align_<set>/``: see `plateau.alignment.run.align_cuts`.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from plateau.alignment.files import Alignment
from plateau.alignment.run import Aligner, align_sets
from plateau.alignment.transducer import align
from plateau.config import cli
from plateau.training.experiment import Experiment
from plateau.training.recipe import load_final
from transducer.options import Options
from transducer.train import build_model

MAX_SECONDS = 120.0  # memory grows with frames times tokens, and within the encoder with frames²


def load(exp_dir: Path) -> Aligner:
    """The final model of an experiment."""
    options, model = load_final(Experiment(exp_dir), Options, build_model)
    device = next(model.parameters()).device

    def align_batch(
        features: Tensor, lengths: Tensor, transcripts: Sequence[Sequence[Sequence[int]]]
    ) -> list[Alignment]:
        targets = [[token for word in words for token in word] for words in transcripts]
        topology = options.loss.topology
        return align(model, features.to(device), lengths.to(device), targets, topology)

    def frames_needed(words: Sequence[Sequence[int]]) -> int:
        return 1 if options.loss.topology == "rnnt" else sum(map(len, words))

    factor = model.encoder.subsampling_factor
    return Aligner(options, factor, align_batch, frames_needed, MAX_SECONDS)


def main(exp_dir: Path, sets: str = "") -> None:
    """Align sets of the experiment's corpus by the final model.

    Args:
        exp_dir: the experiment's folder, trained
        sets: names of sets, separated by commas; without it, those that are decoded
    """
    align_sets(exp_dir, load(exp_dir), sets)


if __name__ == "__main__":
    cli(main)
