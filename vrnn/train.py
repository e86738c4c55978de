"""Stage 5: train a model with latent variables.

`python vrnn/train.py exp/<corpus>/vrnn/<exp>` trains what its config.yaml says.
"""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from plateau.config import cli
from plateau.data.sequence_loading import SequenceBatch, SequenceLoader, make_batch
from plateau.data.sequences import TRAIN, SequenceSet
from plateau.models.bounds import BoundOptions, elbo, objective
from plateau.training.experiment import Experiment
from plateau.training.interfaces import Loss, LossFunction
from plateau.training.recipe import Recipe, fit
from vrnn.model import SequenceModel, build_model, corpus_of
from vrnn.options import Options
from vrnn.watch import make_watch

WATCHED = 16  # sequences that TensorBoard shows


def make_loss(model: SequenceModel, options: BoundOptions) -> LossFunction:
    """Minus the bound, with the KL as it counts by now, in nats and in the units of the data.

    Its ``tokens`` are steps. The counts are the bound and its terms, with the KL as it is.
    """

    def loss_function(wrapped: nn.Module, batch: SequenceBatch) -> Loss:
        terms = wrapped(batch.values, batch.lengths)
        steps = int(batch.lengths.sum())
        scale = steps * model.log_scale.item()
        total = scale - objective(terms, options, int(model.steps))
        if model.training:
            model.steps += 1
        counts = {
            "bound": elbo(terms, options.analytic_kl).sum().item() - scale,
            "log_prob": terms.log_prob.sum().item() - scale,
            "kl": terms.kl.sum().item(),
        }
        return Loss(total, steps, counts, steps)

    return loss_function


def build(options: Options) -> Recipe:
    """The untrained model and its loss."""
    model = build_model(options)
    return Recipe(model, make_loss(model, options.bound), watch=make_watch(model, options))


def main(exp_dir: Path) -> None:
    """Train an experiment, or go on with it.

    Args:
        exp_dir: the experiment's folder, with its config.yaml
    """
    options = Experiment(exp_dir).options(Options)
    corpus = corpus_of(options)

    def load(
        name: str, recipe: Recipe, **order: int
    ) -> tuple[SequenceLoader, Callable[[], SequenceBatch]]:
        sequences = SequenceSet(corpus.root / name)
        loader = SequenceLoader(sequences, options.loading, train=name == TRAIN, **order)
        first = range(min(WATCHED, len(sequences)))
        return loader, lambda: make_batch(sequences[i] for i in first)

    fit(exp_dir, options, build, corpus.dev_set(), load)


if __name__ == "__main__":
    cli(main)
