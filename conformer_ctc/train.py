"""Stage 5: train an encoder with CTC.

`python conformer_ctc/train.py exp/<corpus>/conformer_ctc/<exp>` trains what its config.yaml says;
with `python utils/torchrun.py --standalone --nproc_per_node N` in place of `python`, on N GPUs.
"""

from pathlib import Path

import torch
from torch import nn

from conformer_ctc.options import LossOptions, Options
from plateau.config import UserError, cli
from plateau.data.features import load_statistics
from plateau.data.loading import Batch
from plateau.data.tokens import BLANK_ID, Tokenizer, min_frames, read_lang
from plateau.graphs.ctc import ctc_loss
from plateau.models.ctc import CtcModel
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.recipe import Recipe, train
from plateau.training.trainer import Loss, LossFunction


def make_loss(tokenizer: Tokenizer, options: LossOptions) -> LossFunction:
    """CTC in nats, summed over the batch, and how many frames say blank."""

    def loss_function(model: nn.Module, batch: Batch) -> Loss:
        targets = [tokenizer.encode(text) for text in batch.texts]
        log_probs, lengths = model(batch.features, batch.lengths)  # (N, T', V), (N,)
        total = ctc_loss(log_probs, lengths, targets, options.delay_penalty).sum()
        within = torch.arange(log_probs.shape[1], device=lengths.device) < lengths[:, None]
        blank = (log_probs.argmax(dim=2) == BLANK_ID) & within  # (N, T')
        return Loss(
            total=total,
            tokens=sum(map(len, targets)),
            counts={"blank_fraction": float(blank.sum())},
            frames=int(lengths.sum()),
        )

    return loss_function


def build_model(options: Options) -> CtcModel:
    """The untrained model."""
    num_labels = len(read_lang(lang_dir(options)).tokens)
    model = CtcModel(options.features.num_mel_bins, num_labels, options.encoder)
    model.norm.set_statistics(*load_statistics(corpus_of(options).statistics))
    return model


def build(options: Options) -> Recipe:
    """The untrained model, its loss, and what the loss needs.

    Raises:
        UserError: options that cannot be.
    """
    if options.loss.delay_penalty < 0:
        penalty = options.loss.delay_penalty
        raise UserError(f"loss.delay_penalty is {penalty}; it must not be negative")
    loss = make_loss(read_lang(lang_dir(options)), options.loss)
    return Recipe(build_model(options), loss, min_frames)


def main(exp_dir: Path) -> None:
    """Train an experiment, or go on with it.

    Args:
        exp_dir: the experiment's folder, with its config.yaml
    """
    train(exp_dir, Experiment(exp_dir).options(Options), build)


if __name__ == "__main__":
    cli(main)
