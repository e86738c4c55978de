"""What stage 4 looks for in a model with latent variables before hours are spent on training.

Each check is for a mistake that looks like slow progress: a bound that is none, a part that no
gradient reaches, a validation that trains, padding that counts. Output distributions are looked at
in `plateau.checks.outputs`, data in `plateau.checks.sequences`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from plateau.checks.exact import ppca_log_likelihood, within_bound
from plateau.checks.linear import double, steady, vae_of, vrnn_of
from plateau.config import UserError
from plateau.data.sequence_loading import SequenceBatch
from plateau.models.bounds import elbo, importance_weighted
from plateau.models.distributions import OutputOptions
from plateau.models.latent import LatentModel
from plateau.training.interfaces import Loss, LossFunction
from plateau.training.monitor import is_silent

PATTERNS, BATCH, STEPS = 8, 16, 6  # of the identity that is learnt
UPDATES, ENOUGH = 600, 0.2
SCALE = 1 / 1024  # by which rounding stays the same
PADDING = 100


def check_exact(kind: str) -> None:
    """The bound of a linear model, whose log-likelihood is known, is as it must be.

    Args:
        kind: vae, or one of `VrnnOptions.kind`.

    Raises:
        UserError: it is not.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model, x, exact = _known(kind)
        lengths = torch.full((len(x),), x.shape[1])
        where = f"a {kind} set by hand to a linear-Gaussian truth: "
        terms = model(x, lengths)
        off = (terms.log_weight - exact).abs().max().item()
        if not off < 1e-4:  # its posterior is exact, so it is so whatever is drawn
            raise UserError(
                f"{where}log p(x, z) - log q(z | x) is {off:.4g} nats from the log-likelihood\n"
                "look at log_prob and log_ratio in plateau/models/latent.py"
            )
        _check_below(f"{where}the bound with the KL in closed form", elbo(terms), exact)
        if not model.latent_dim:
            return
        layer = model.posterior if kind == "vae" else model.encoder[-1]
        mean, sigma = layer.linear.bias.chunk(2)
        mean += 0.3  # a posterior that is too wide and lies beside
        sigma += 0.5
        bounds = [importance_weighted(model, x, lengths, k) for k in (1, 10, 100)]
    means = [bound.mean().item() for bound in bounds]
    if not all(a < b for a, b in pairwise(means)):
        raise UserError(
            f"{where}the importance-weighted bound of 1, 10, 100 samples is "
            f"{', '.join(f'{mean:.4f}' for mean in means)} nats; it must grow\n"
            "look at importance_weighted in plateau/models/bounds.py"
        )
    for bound in bounds:
        _check_below(f"{where}the importance-weighted bound", bound, exact)


def _known(kind: str) -> tuple[LatentModel, Tensor, Tensor]:
    """A model, data of its own (N, T, D), and their exact log-likelihoods (N,)."""
    if kind == "vae":
        weight, mean = double([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), double([0.5, -1.0, 2.0])
        x = torch.randn(300, 1, 2).double() @ weight.T + mean + 0.6 * torch.randn(300, 1, 3)
        return vae_of(weight, mean, 0.6), x, ppca_log_likelihood(x, weight, mean, 0.6).sum(1)
    truth = steady([1.3], [0.4]) if kind == "rnn" else steady([1.0, -0.5], [0.3, 0.8])
    x = truth.sample(300, 6, torch.Generator().manual_seed(0))
    return vrnn_of(truth, kind), x, truth.log_likelihood(x).sum(1)


def _check_below(what: str, bound: Tensor, exact: Tensor) -> None:
    if not within_bound(bound, exact):
        excess = bound - exact
        error = excess.std().item() / math.sqrt(len(excess))
        raise UserError(
            f"{what} is {excess.mean():.4f} ± {error:.4f} nats a sequence above the "
            "log-likelihood\nlook at the KL in plateau/models/latent.py and bounds.py"
        )


def check_identity(core: LatentModel, options: OutputOptions, dim: int) -> None:
    """With latents at their means and the KL left out, a model learns to repeat its input.

    Its output's means do, by their squared error. Steps are of few patterns in a random order, so
    that what a step is comes through the latents only; a model without latents has them in a fixed
    order, and learns which is next. Of an autoregressive output the first value is looked at, which
    is not told by others.

    Args:
        core: small; it is trained.
        options: of its output.
        dim: D.

    Raises:
        UserError: a part has no gradient, or the input is not repeated.
    """
    generator = torch.Generator().manual_seed(0)
    patterns = _patterns(options.kind, dim, generator)
    lengths, noise = torch.full((BATCH,), STEPS), torch.zeros(BATCH, STEPS, core.latent_dim)
    first = 0 if core.latent_dim else 1  # which nothing foretells
    seen = slice(0, 1 if options.autoregressive else dim)
    variance = patterns[:, seen].var(0, unbiased=False).sum()
    optimizer = torch.optim.Adam(core.parameters(), 5e-3)
    core.train()
    for update in range(UPDATES):
        order = torch.randint(PATTERNS, (BATCH, STEPS), generator=generator)
        if not core.latent_dim:
            order = (order[:, :1] + torch.arange(STEPS)) % PATTERNS
        x = patterns[order]  # (N, T, D)
        if update == 0:
            _check_gradients(core, x, lengths)
        means = core.output.distribution(core(x, lengths, noise).hidden, x).mean
        error = (means - x)[:, first:, seen].square().sum(2).mean()
        if error < ENOUGH * variance:
            return
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(core.parameters(), 5.0)
        optimizer.step()
    what = "repeat its input" if core.latent_dim else "tell the next step"
    raise UserError(
        f"a small model of these options does not learn to {what} in {UPDATES} updates without KL "
        f"and noise: the squared error is {error / variance:.0%} of the variance, not {ENOUGH:.0%}"
        "\nlook at what the encoder, the decoder and the recurrence are given"
    )


def _check_gradients(core: LatentModel, x: Tensor, lengths: Tensor) -> None:
    one = core(x[:, :1], torch.ones_like(lengths))
    terms = core(x, lengths)
    cases = [  # what is a function of which parts
        ("log p(x | z)", terms.log_prob.sum(), ("prior.",)),
        ("the bound", elbo(terms).sum(), ()),
    ]
    if core.latent_dim:  # in later steps, latents have effects through the recurrence, too
        cases += [("log p(x | z) of a first step", one.log_prob.sum(), ("prior.", "recurrence."))]
    for name, term, others in cases:
        core.zero_grad()
        term.backward(retain_graph=True)
        missing = [
            n for n, p in core.named_parameters() if not n.startswith(others) and is_silent(p)
        ]
        if missing:
            raise UserError(
                f"no gradient of {name} reaches {', '.join(missing)}\n"
                "look for a detach, a wrong input or a part that is not used"
            )


def _patterns(kind: str, dim: int, generator: torch.Generator) -> Tensor:
    """(PATTERNS, D), of values that an output of this kind may have."""
    drawn = torch.randn(PATTERNS, dim, generator=generator)
    if kind == "bernoulli":
        return drawn.gt(0).float()
    if kind == "logistics":
        return drawn.tanh()
    if kind == "strokes":
        drawn[:, 2] = drawn[:, 2].gt(0).float()
    return drawn


@contextmanager
def unchanged(model: nn.Module, what: str) -> Iterator[None]:
    """See that a model is, bit for bit, what it was.

    Raises:
        UserError: it is not; it names the parameters and buffers.
    """
    before = {name: value.clone() for name, value in model.state_dict().items()}
    yield
    after = model.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    if changed:
        raise UserError(f"{what} changes {', '.join(changed)}; it must not train")


def check_batch(model: nn.Module, loss_function: LossFunction, batch: SequenceBatch) -> None:
    """A batch's loss is that of its sequences alone, by their steps, and padding has no part in it.

    Args:
        model: called with values (N, T, D), lengths (N,) and noise (N, T, Z); in double precision
        loss_function: its loss
        batch: sequences of different lengths, in double precision

    Raises:
        UserError: it is not so.
    """
    n, steps, _ = batch.values.shape
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, steps + PADDING, model.core.latent_dim, generator=generator).double()

    def loss_of(values: Tensor, which: slice) -> Loss:
        part = SequenceBatch(values[which], batch.lengths[which], batch.ids[which])
        drawn = noise[which, : values.shape[1]]
        return loss_function(partial(model, noise=drawn), part)

    model.eval()
    with unchanged(model, "the loss in validation"):
        together = loss_of(batch.values, slice(None))
    if not together.total.isfinite():
        raise UserError(f"an untrained model's loss is {together.total} on {batch.ids}")
    alone = [
        loss_of(batch.values[:, :length], slice(i, i + 1))
        for i, length in enumerate(batch.lengths.tolist())
    ]
    mean = together.total.item() / together.tokens
    by_hand = sum(loss.total.item() for loss in alone) / int(batch.lengths.sum())
    if not math.isclose(mean, by_hand, rel_tol=1e-6, abs_tol=1e-6):
        raise UserError(
            f"the loss of {batch.ids} is {mean:.6f} nats a step in one batch, and {by_hand:.6f} "
            "from each alone, weighed by their lengths\n"
            "look at what is averaged, and for a wrong dimension or a missing padding mask"
        )
    padding = torch.full((n, PADDING, batch.values.shape[2]), math.nan).double()
    padded = loss_of(torch.cat([batch.values, padding], 1), slice(None)).total.item()
    if not math.isclose(padded, together.total.item(), rel_tol=1e-6, abs_tol=1e-6):
        raise UserError(
            f"the loss of {batch.ids} is {together.total.item():.4f}, and {padded:.4f} with "
            f"{PADDING} more steps of padding; look for a missing padding mask"
        )


def check_units(model: nn.Module, loss_function: LossFunction, batch: SequenceBatch) -> None:
    """Densities are in the units of the data: in other units, they change by the units' volume.

    Args:
        model: normalises with ``model.norm``, where values that are left alone (mean 0, standard
            deviation 1) have no units; in double precision
        loss_function: its loss, minus a bound in nats
        batch: in double precision

    Raises:
        UserError: the bound of data scaled by c does not change by -log c for each value of a step.
    """
    norm = model.norm
    scaled = (norm.mean != 0) | (norm.std != 1)
    factor = torch.where(scaled, SCALE, 1.0).double()

    def loss_of(values: Tensor) -> float:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            found = SequenceBatch(values, batch.lengths, batch.ids)
            return loss_function(model, found).total.item()

    model.eval()
    before, mean, std = loss_of(batch.values), norm.mean.clone(), norm.std.clone()
    norm.set_statistics(mean * factor, std * factor)
    after = loss_of(batch.values * factor)
    norm.set_statistics(mean, std)
    dims, steps = int(scaled.sum()), int(batch.lengths.sum())
    found, expected = (before - after) / steps, -dims * math.log(SCALE)
    if not math.isclose(found, expected, abs_tol=1e-6):
        raise UserError(
            f"the bound of data scaled by {SCALE:g} is {found:.4f} nats a step larger; of "
            f"{dims} values it must be {expected:.4f}\nlook at the log-scale of the normaliser, in "
            "the loss and in the model"
        )
