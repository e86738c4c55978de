"""Stage 4: look for mistakes in data, options and model before hours are spent on training."""

import dataclasses
import math
import tempfile
from pathlib import Path

import torch

from plateau.checks.changes import check_changes
from plateau.checks.latent import check_batch, check_exact, check_identity, check_units, unchanged
from plateau.checks.outputs import check_integral, check_log_prob, shrunk
from plateau.checks.preflight import check_memory, check_training, model_in_memory
from plateau.checks.sequences import check_sets, check_values, longest_batch
from plateau.config import UserError, cli
from plateau.data.sequence_loading import SequenceBatch, SequenceLoader
from plateau.data.sequences import TRAIN, SequenceSet, read_about, write_set
from plateau.models.distributions import OutputOptions
from plateau.models.latent import LatentModel
from plateau.models.vae import Vae
from plateau.models.vrnn import Vrnn
from plateau.training.checkpoint import set_seed
from plateau.training.experiment import Experiment
from plateau.training.recipe import Recipe
from vrnn.decode import evaluate
from vrnn.model import DENSITIES, SequenceModel, corpus_of
from vrnn.options import Options
from vrnn.train import build

FEW, STEPS = 4, 40  # sequences that the model itself is checked with, and steps of the longest
SAMPLES = 16  # of an importance-weighted bound that is tried
DIM = 16  # the most values of a step that a small model has
OUTPUT = {"components": 5, "bins": 256, "min_sigma": 0.1}  # the most that its output has


def shortened(batch: SequenceBatch) -> SequenceBatch:
    """Its sequences with different lengths, where they are not of one step, in double precision."""
    most = torch.tensor([STEPS * (n + 1) // len(batch.ids) for n in range(len(batch.ids))])
    lengths = torch.minimum(batch.lengths, most)
    return SequenceBatch(batch.values[:, : int(lengths.max())].double(), lengths, batch.ids)


def small_model(options: Options, dim: int) -> tuple[LatentModel, OutputOptions, int]:
    """The model of the options with sizes by which it learns in seconds, its output, and its D."""
    output = shrunk(options.output, OUTPUT)
    layers = {"num_layers": 2, "min_sigma": 0.1}
    if options.model == "vae":
        sizes = {"latent_dim": 8, "hidden_dim": 64, "channels": 8, "output": output}
        vae = shrunk(dataclasses.replace(options.vae, **sizes), layers)
        shape = read_about(options.sequences).shape
        dim = dim if vae.kind == "conv" else max(2, min(dim, DIM))
        return Vae(dim, vae, shape), output, dim
    sizes = {"hidden_dim": 32, "latent_dim": 8, "feature_dim": 32, "latent_feature_dim": 32}
    vrnn = dataclasses.replace(options.vrnn, **sizes, output=output)
    dim = max(2, min(dim, DIM))
    return Vrnn(dim, shrunk(vrnn, layers)), output, dim


def check_model(recipe: Recipe, options: Options, batch: SequenceBatch) -> None:
    """The model and loss of the options, in double precision, on a few sequences.

    Raises:
        UserError: they are not what they must be.
    """
    model, output = recipe.model, options.output
    check_batch(model, recipe.loss_function, batch)
    values = batch.values.round() if output.kind == "bernoulli" else batch.values
    check_log_prob(model.core, output, model.norm(values), batch.lengths)
    if output.kind in DENSITIES:
        check_units(model, recipe.loss_function, batch)


def check_evaluation(model: SequenceModel, train: SequenceSet, options: Options) -> None:
    """Stage 6 on two short sequences: it leaves the model as it is, and its mean is over steps.

    Raises:
        UserError: it is not so.
    """
    samples = min(options.decoding.importance_samples, SAMPLES)
    decoding = dataclasses.replace(options.decoding, importance_samples=samples)
    order = sorted(range(len(train)), key=lambda i: train.lengths[i])
    other = next((i for i in order if train.lengths[i] > train.lengths[order[0]]), order[-1])
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder), (train[i] for i in dict.fromkeys((order[0], other))))
        with unchanged(model, "the evaluation"):
            figures, rows = evaluate(model.eval(), SequenceSet(Path(folder)), options, decoding)
    by_hand = sum(row[3] for row in rows) / sum(row[2] for row in rows)
    found = figures["bound_nats_per_step"]
    if not math.isclose(found, by_hand, rel_tol=1e-5, abs_tol=1e-5):
        raise UserError(
            f"the evaluation says {found:.6f} nats a step of {', '.join(r[0] for r in rows)}; the "
            f"sum of their bounds over that of their steps is {by_hand:.6f}"
        )


def main(exp_dir: Path) -> None:
    """Check an experiment; notes do not stop it, errors do.

    Args:
        exp_dir: the experiment's folder, with its config.yaml
    """
    options = Experiment(exp_dir).options(Options)
    corpus = corpus_of(options)
    if not corpus.test_sets():
        raise corpus.nothing_to_decode()
    sets = {name: SequenceSet(corpus.root / name) for name in corpus.used_sets()}
    train = sets[TRAIN]
    few = dataclasses.replace(options.loading, batch_size=FEW)
    batch = shortened(next(SequenceLoader(train, few, train=True).batches()))
    loader = SequenceLoader(train, options.loading, train=True)
    steps = options.training.epochs * loader.num_batches()
    notes = check_sets(sets, options.model == "vrnn") + check_values(batch, options.output)
    notes += check_training(options.training, steps) + options.bound.check_steps(steps)

    check_exact("vae" if options.model == "vae" else options.vrnn.kind)
    check_integral(options.output)
    set_seed(options.training.seed)
    check_identity(*small_model(options, train.dim))
    with model_in_memory("vrnn.…, vae.…"):
        recipe = build(options)
    recipe.model.double()
    check_model(recipe, options, batch)
    recipe.model.float()
    check_evaluation(recipe.model, train, options)
    two = [
        SequenceBatch(batch.values[n::2].float(), batch.lengths[n::2], batch.ids[n::2])
        for n in range(min(2, len(batch.ids)))
    ]
    defaults = Experiment(exp_dir).defaults(Options)
    notes += check_changes(options, defaults, build, two, options.training.seed)
    longest = longest_batch(train, options.loading)
    check_memory(recipe.model, recipe.loss_function, longest, loader.memory_option)
    for note in notes:
        print(f"note: {note}")
    recipe_name = exp_dir.resolve().parent.name
    print(f"checked {len(train)} training sequences and {recipe_name}: ready to train")


if __name__ == "__main__":
    cli(main)
