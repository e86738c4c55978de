"""Stage 8: write report/index.html, which shows an experiment, and what its model makes."""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from plateau.config import UserError, cli
from plateau.data.corpus import Corpus
from plateau.data.sequence_loading import SequenceBatch, SequenceLoader
from plateau.data.sequences import TRAIN, About, SequenceSet, read_about
from plateau.models.vae import Vae
from plateau.report import facts
from plateau.report.pictures import bars
from plateau.report.sections import write_page
from plateau.report.sequences import STYLE, Shown, beside, grid
from plateau.training.checkpoint import set_seed
from plateau.training.experiment import Experiment
from plateau.training.recipe import load_final
from vrnn.model import SequenceModel, build_model, corpus_of
from vrnn.options import Options
from vrnn.sample import usual_length
from vrnn.watch import ACTIVE, kl_per_dim

MAX_VALUES = 1_000_000  # of all sequences of the page; as sound they make 2.7 MB
LONGEST = 600  # steps that are shown of a sequence
MEASURED = 64  # sequences that the KL of each dimension is of
PRIMED, CONTINUATIONS = 2, 3  # sequences that are gone on with, and how often
ROWS, COLUMNS = 8, 3  # latent dimensions that are held: of images, and of sequences
HELD = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # where; of sequences every other
RANDOM = "All else is drawn, with the same random numbers each time"
FILES = {
    "sequences.tsv": "bound and KL of each sequence, in nats",
    "writers.tsv": "bound of each writer in nats a step, the worst first",
}
CURVES = {  # of log/epochs.jsonl: name, and unit
    "loss": ("loss: minus the bound, with the KL as it counted by then", "nats a step"),
    "bound": ("bound", "nats a step"),
    "log_prob": ("log-probability of the data given latents", "nats a step"),
    "kl": ("KL of the latents", "nats a step"),
}


class Pictures:
    """What the page shows of a model and of some sequences.

    Args:
        model: trained.
        batch: sequences; the KL is of all of them.
        texts: what they say, by id.
        about: what they are.
        num: so many of them are shown, and drawn.
        steps: of a sequence that is drawn.
        seed: of the random numbers that sequences have in common.
    """

    def __init__(
        self,
        model: SequenceModel,
        batch: SequenceBatch,
        texts: Mapping[str, str],
        about: About,
        num: int,
        steps: int,
        seed: int,
    ) -> None:
        self._model, self._batch, self._about = model, batch, about
        self._steps, self._seed = steps, seed
        num = min(num, len(batch.ids))
        self._chosen = [n * len(batch.ids) // num for n in range(num)]
        self._real = []
        for n in self._chosen:
            id, length = batch.ids[n], int(batch.lengths[n])
            caption = f"{id}: {texts[id]}" if texts[id] else id
            self._real.append(Shown(caption, batch.values[n, :length]))
        self._is_vae = isinstance(model.core, Vae)

    def sections(self) -> Iterator[str]:
        """Lines of HTML."""
        yield from self._generated()
        yield from self._reconstructions()
        yield from self._traversal()
        yield from self._continuations()
        yield from self._kl()

    def _generated(self) -> Iterator[str]:
        yield "<h2>Real and generated</h2>"
        drawn = self._model.sample(len(self._real), self._steps)
        generated = [Shown(f"drawn {n}", values) for n, values in enumerate(drawn, start=1)]
        yield from beside({"real": self._real, "drawn, nothing given": generated}, self._about)

    def _reconstructions(self) -> Iterator[str]:
        yield "<h2>Reconstructions</h2>"
        if not self._model.core.latent_dim:
            yield "<p>None: this model has no latents that a sequence could be made of again.</p>"
            return
        before = "" if self._is_vae else ", and of the true steps before"
        yield f"<p>Of each step the mean, given the means of its latents{before}.</p>"
        made = self._model.reconstructed(self._batch.values, self._batch.lengths)
        again = [
            Shown(self._batch.ids[n], made[n, : len(real.values)])
            for n, real in zip(self._chosen, self._real, strict=True)
        ]
        yield from beside({"original": self._real, "reconstruction": again}, self._about)

    def _traversal(self) -> Iterator[str]:
        images, per_dim = self._about.kind == "images", self._kl_per_dim
        used = int((per_dim > ACTIVE).sum())
        most = per_dim.argsort(descending=True)[: min(ROWS if images else COLUMNS, used)].tolist()
        yield "<h2>Latent traversal</h2>"
        if not most:
            silent = f"no dimension says more than {ACTIVE:g} nats a step"
            yield f"<p>None: {silent if len(per_dim) else 'this model has no latents'}.</p>"
            return
        held = HELD if images else HELD[::2]
        rest = "All else is at its mean" if self._is_vae and images else RANDOM
        yield (
            f"<p>The dimensions that say the most, {len(most)} of {used} that are used. Each is "
            f"held, in every step, at {held[0]:g} to {held[-1]:g} standard deviations from its "
            f"prior's mean. {rest}.</p>"
        )
        shown = {}
        for dim in most:
            values = self._model.traversed(dim, held, self._steps, self._seed)
            captions = (f"{dim} at {value:g}" for value in held)
            shown[f"dimension {dim}"] = list(map(Shown, captions, values))
        if not images:
            yield from beside(shown, self._about)
            return
        for row in shown.values():
            yield from grid(row, self._about, columns=len(held))

    def _continuations(self) -> Iterator[str]:
        primes = [real for real in self._real if len(real.values) > 1][:PRIMED]
        if self._is_vae or not primes:
            return
        yield "<h2>Continuations</h2>"
        yield "<p>The first half, in colour, is given; the model draws the rest.</p>"
        for prime in primes:
            given = len(prime.values) // 2
            rest = len(prime.values) - given
            drawn = self._model.continued(prime.values[:given], CONTINUATIONS, rest)
            continued = [Shown("continued by the model", values, given) for values in drawn]
            yield from grid([dataclasses.replace(prime, given=given), *continued], self._about)

    def _kl(self) -> Iterator[str]:
        values = self._kl_per_dim.sort(descending=True).values.tolist()
        if not values:
            return
        yield "<h2>Latent dimensions</h2>"
        used = sum(value > ACTIVE for value in values)
        yield (
            f"<p>{used} of {len(values)} say more than {ACTIVE:g} nats a step. KL of each, over "
            f"{len(self._batch.ids)} sequences, the largest first.</p>"
        )
        yield bars("latent dimensions", "KL, nats a step", values)

    @cached_property
    def _kl_per_dim(self) -> Tensor:
        return kl_per_dim(self._model(self._batch.values, self._batch.lengths))


def describe(experiment: Experiment, options: Options, model: SequenceModel) -> facts.About:
    """What is known of a trained experiment; see `plateau.report.facts.about`."""
    epochs = facts.read_epochs(experiment.path)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    name = options.vrnn.kind if options.model == "vrnn" else f"vae of kind {options.vae.kind}"
    alone = ", autoregressive within a step" if options.output.autoregressive else ""
    latents = model.core.latent_dim or "no"
    found = {
        "model": f"{name}, {millions:.2f} million parameters, {latents} latent dimensions",
        "output": f"{options.output.kind}{alone}",
        "training": facts.training(epochs),
    }
    return facts.About(found | _sizes(corpus_of(options)), facts.list_options(options), "", epochs)


def _sizes(corpus: Corpus) -> dict[str, str]:
    """Sequences, steps and writers of the sets that are used, the training set first."""
    sizes = {}
    for name in corpus.used_sets():
        sequences = SequenceSet(corpus.root / name)
        writers = len(set(filter(None, sequences.writers)))
        by = f", by {writers}" if writers else ""
        sizes[name] = f"{len(sequences):,} sequences, {sum(sequences.lengths):,} steps{by}"
    return sizes


@torch.no_grad()
def main(exp_dir: Path, set: str = "", num: int = 8, seed: int = 1) -> None:
    """Write report/index.html in an experiment's folder: one file, to be opened in a browser.

    Args:
        exp_dir: the experiment's folder, decoded
        set: the set whose sequences are shown; without it, the first that is evaluated
        num: how many of them, and how many are drawn
        seed: every seed draws others, the same ones each time
    """
    if not 1 <= num <= MEASURED:
        raise UserError(f"--num {num}: show 1 to {MEASURED} sequences")
    experiment = Experiment(exp_dir)
    options, model = load_final(experiment, Options, build_model)
    decoding = experiment.options(type(options.decoding), "decoding")  # may be newer than the model
    options = dataclasses.replace(options, decoding=decoding)
    corpus = corpus_of(options)
    if set and set not in corpus.sets():
        raise UserError(f"--set {set}: there are {', '.join(corpus.sets())}")
    if not corpus.test_sets():
        raise corpus.nothing_to_decode()
    set = set or corpus.test_sets()[0]
    sequences, train = SequenceSet(corpus.root / set), SequenceSet(corpus.root / TRAIN)
    # Each is shown up to four times, and continuations and a traversal come to it.
    more = PRIMED * (1 + CONTINUATIONS) + COLUMNS * len(HELD[::2])
    longest = max(1, min(LONGEST, MAX_VALUES // (sequences.dim * (4 * num + more))))
    batch = SequenceLoader(sequences, options.loading).some(MEASURED, longest)
    set_seed(seed)
    pictures = Pictures(
        model,
        batch.to(next(model.parameters()).device),
        dict(zip(sequences.ids, sequences.texts, strict=True)),
        read_about(options.sequences),
        num,
        min(longest, usual_length(train)),
        seed,
    )
    about = describe(experiment, options, model)
    path = write_page(exp_dir, about, pictures.sections(), files=FILES, curves=CURVES, style=STYLE)
    print(f"report: {path}, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    cli(main)
