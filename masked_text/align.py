"""Stage 7: forced alignment of transcripts, by the final model's CTC.

`python masked_text/align.py exp/<corpus>/masked_text/<exp> --sets dev,test` writes, for each set,
``align_<set>/``: see `plateau.alignment.run.align_cuts`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from masked_text.options import Options
from masked_text.train import build_model
from plateau.alignment.ctc import align, frames_needed
from plateau.alignment.files import Alignment
from plateau.alignment.run import Aligner, align_sets
from plateau.config import cli
from plateau.training.experiment import Experiment
from plateau.training.recipe import load_final


def load(exp_dir: Path) -> Aligner:
    """The final model of an experiment."""
    options, model = load_final(Experiment(exp_dir), Options, build_model)
    device = next(model.parameters()).device

    def align_batch(
        features: Tensor, lengths: Tensor, transcripts: Sequence[Sequence[Sequence[int]]]
    ) -> list[Alignment]:
        return align(model.ctc, features.to(device), lengths.to(device), transcripts)

    factor = model.encoder.subsampling_factor
    return Aligner(options, factor, align_batch, partial(frames_needed, "ctc"))


def main(exp_dir: Path, sets: str = "") -> None:
    """Align sets of the experiment's corpus by the final model.

    Args:
        exp_dir: the experiment's folder, trained
        sets: names of sets, separated by commas; without it, those that are decoded
    """
    align_sets(exp_dir, load(exp_dir), sets)


if __name__ == "__main__":
    cli(main)
