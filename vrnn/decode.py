"""Stage 6: bounds on the log-likelihood of every test set, by the final model."""

import dataclasses
from collections import defaultdict
from pathlib import Path

import torch
from tqdm import tqdm

from plateau.config import cli
from plateau.data.loading import enough_memory
from plateau.data.sequence_loading import SequenceLoader
from plateau.data.sequences import SequenceSet
from plateau.io import write_json, write_text
from plateau.models.bounds import averages, elbo, importance_weighted
from plateau.results import make_records
from plateau.training.checkpoint import set_seed
from plateau.training.experiment import Experiment
from plateau.training.recipe import load_final
from vrnn.model import SequenceModel, build_model, corpus_of
from vrnn.options import EvaluationOptions, Options

METHOD = "bound"


@torch.no_grad()
def evaluate(
    model: SequenceModel, sequences: SequenceSet, options: Options, decoding: EvaluationOptions
) -> tuple[dict[str, float], list[tuple[str, str, int, float, float]]]:
    """The figures of a set, and of each sequence: id, writer, steps, bound and KL in nats.

    All are in the units of the data.
    """
    device = next(model.parameters()).device
    loading = dataclasses.replace(options.loading, batch_size=decoding.batch_size)
    first = decoding.importance_sequences or len(sequences)
    chosen = set(sequences.ids[:first]) if decoding.importance_samples else set()
    writers = dict(zip(sequences.ids, sequences.writers, strict=True))
    rows, gains = [], {}
    for batch in tqdm(SequenceLoader(sequences, loading).batches(), disable=None, leave=False):
        batch = batch.to(device)
        scale = batch.lengths * model.log_scale
        with enough_memory(batch, "decoding.batch_size"):
            terms = model(batch.values, batch.lengths)
            bounds = (elbo(terms) - scale).tolist()
            for n, id in enumerate(batch.ids):
                if id in chosen:
                    length = batch.lengths[n : n + 1]
                    values = model.norm(batch.values[n : n + 1, : length.item()])
                    better = importance_weighted(
                        model.core, values, length, decoding.importance_samples
                    )
                    gains[id] = better.item() - scale[n].item() - bounds[n]
        kl = terms.kl.sum(1).tolist()
        for row in zip(batch.ids, batch.lengths.tolist(), bounds, kl, strict=True):
            rows.append((row[0], writers[row[0]], *row[1:]))
    lengths, bounds, kls = (torch.tensor(column) for column in list(zip(*rows, strict=True))[2:])
    bound, kl = averages(bounds, lengths, sequences.dim), averages(kls, lengths, sequences.dim)
    figures = {
        "bound_nats_per_sequence": bound.per_sequence,
        "bound_nats_per_step": bound.per_step,
        "bound_bits_per_dim": bound.bits.per_dim,
        "kl_nats_per_step": kl.per_step,
    }
    if gains:
        figures["importance_weighted_gain_nats"] = sum(gains.values()) / len(gains)
    return figures, rows


def main(exp_dir: Path) -> None:
    """Evaluate every test set of the experiment's corpus.

    Args:
        exp_dir: the experiment's folder, trained
    """
    experiment = Experiment(exp_dir)
    options, model = load_final(experiment, Options, build_model)
    decoding = experiment.options(Options).decoding  # which may have changed since
    corpus = corpus_of(options)
    tests = corpus.test_sets()
    folders = {experiment.decode_dir(name, METHOD) for name in tests}
    experiment.set_aside(path for path in exp_dir.glob("decode_*") if path not in folders)
    for name in tests:
        set_seed(options.training.seed)  # the same draws whatever was evaluated before
        figures, rows = evaluate(model, SequenceSet(corpus.root / name), options, decoding)
        folder = experiment.decode_dir(name, METHOD)
        header = "id\twriter\tsteps\tbound_nats\tkl_nats\n"
        lines = (f"{i}\t{w}\t{n}\t{b:.3f}\t{k:.3f}\n" for i, w, n, b, k in rows)
        write_text(folder / "sequences.tsv", header + "".join(lines))
        write_text(folder / "writers.tsv", _per_writer(rows))
        write_json(folder / "metrics.json", make_records(name, METHOD, **figures))


def _per_writer(rows: list[tuple[str, str, int, float, float]]) -> str:
    """A line for each writer, the worst first: sequences, steps, bound in nats a step."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for _, writer, steps, bound, _ in rows:
        for place, value in enumerate((1, steps, bound)):
            sums[writer][place] += value
    ordered = sorted(sums.items(), key=lambda item: item[1][2] / item[1][1])
    lines = [f"{w}\t{n}\t{steps}\t{bound / steps:.4f}\n" for w, (n, steps, bound) in ordered]
    return "writer\tsequences\tsteps\tbound_nats_per_step\n" + "".join(lines)


if __name__ == "__main__":
    cli(main)
