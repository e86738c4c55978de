"""Stage 7: forced alignment of transcripts with the final model.

`python conformer_ctc/align.py exp/<corpus>/conformer_ctc/<exp> --sets dev,test` writes, for each
set, ``align_<set>/``: see `plateau.alignment.run.align_cuts`. Paths are those of the topology that
the model was trained with, and the best one is the best for the loss: with its label prior and
acoustic scale, but without the delay penalty, which is there to change the model.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from conformer_ctc.options import Options
from conformer_ctc.train import build_model
from plateau.alignment.ctc import align, frames_needed
from plateau.alignment.files import Alignment
from plateau.alignment.run import Aligner, align_sets
from plateau.config import UserError, cli
from plateau.training.experiment import Experiment
from plateau.training.recipe import load_final


def load(exp_dir: Path, prior_scale: float | None = None) -> Aligner:
    """The final model of an experiment.

    Args:
        exp_dir: the experiment's folder.
        prior_scale: exponent of the label prior; None: as at the end of the training.

    Raises:
        UserError: a prior is asked for that the model has not.
    """
    options, model = load_final(Experiment(exp_dir), Options, build_model)
    device = next(model.parameters()).device
    if prior_scale and model.prior is None:
        raise UserError(
            f"--prior-scale {prior_scale}: the model has no label prior; "
            "train one with loss.prior.estimator"
        )
    loss = options.loss.at(int(model.steps))
    scale = loss.prior.scale if prior_scale is None else prior_scale

    def align_batch(
        features: Tensor, lengths: Tensor, transcripts: Sequence[Sequence[Sequence[int]]]
    ) -> list[Alignment]:
        return align(
            model,
            features.to(device),
            lengths.to(device),
            transcripts,
            loss.topology,
            scale,
            loss.acoustic_scale,
        )

    return Aligner(
        options,
        model.encoder.subsampling_factor,
        align_batch,
        partial(frames_needed, loss.topology),
    )


def main(exp_dir: Path, sets: str = "", prior_scale: float | None = None) -> None:
    """Align sets of the experiment's corpus by the final model.

    Args:
        exp_dir: the experiment's folder, trained
        sets: names of sets, separated by commas; without it, those that are decoded
        prior_scale: exponent of the label prior, which posteriors are divided by; without it, that
            of the training; 0: none
    """
    align_sets(exp_dir, load(exp_dir, prior_scale), sets)


if __name__ == "__main__":
    cli(main)
