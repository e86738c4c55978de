"""Output distributions against what is known of them: their integral, and scipy's densities."""

import dataclasses
import math
from collections.abc import Mapping
from itertools import product

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import bernoulli, logistic, multivariate_normal, norm
from torch import Tensor

from plateau.config import T, UserError
from plateau.models.distributions import OutputOptions, make_output
from plateau.models.latent import LatentModel
from plateau.models.subsampling import padding_mask

HIDDEN = 5  # values that a distribution is computed from
SMALL = {"components": 5, "bins": 64, "masked_dim": 16, "masked_layers": 2}
COMPARED = 8  # steps whose densities scipy computes
HALF_LOG_TAU = 0.5 * math.log(math.tau)  # what each dimension of a Gaussian has in its normaliser


def shrunk(options: T, most: Mapping[str, float]) -> T:
    """The options with those named in ``most`` no larger than there."""
    found = {name: min(getattr(options, name), value) for name, value in most.items()}
    return dataclasses.replace(options, **found)


def check_integral(options: OutputOptions) -> None:
    """All probability of an output is 1, by quadrature or, of what is discrete, as a sum.

    Raises:
        UserError: it is not.
    """
    options = shrunk(options, SMALL)
    dim = 3 if options.kind == "strokes" else 2
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        output = make_output(HIDDEN, dim, options).double()
        hidden = torch.randn(HIDDEN).double()
        points, volume = support(options)
        log_prob = output.log_prob(hidden.expand(len(points), HIDDEN), points)
    total = log_prob.logsumexp(0).item() + math.log(volume)
    if not math.isclose(total, 0, abs_tol=1e-5):
        raise UserError(
            f"{options.section}: the probabilities of all values of a {options.kind} output of "
            f"{dim} values sum to exp({in_normalisers(total)}), not to 1\n"
            "look at the normaliser in plateau/models/distributions.py and densities.py"
        )


def support(options: OutputOptions) -> tuple[Tensor, float]:
    """Points (M, D) all over the values, and how much each stands for."""
    pen = torch.tensor([0.0, 1.0]).double()
    if options.kind == "bernoulli":
        return torch.cartesian_prod(pen, pen), 1.0
    if options.kind == "logistics":
        grid = torch.linspace(-1, 1, options.bins).double()
        return torch.cartesian_prod(grid, grid), 1.0
    unit = 1 + options.min_sigma  # about the largest sigma; half of the smallest is a step's length
    step = 0.15 * unit
    grid = torch.arange(-20 * unit, 20 * unit, step).double()
    values = (grid, grid, pen) if options.kind == "strokes" else (grid, grid)
    return torch.cartesian_prod(*values), step**2


def check_log_prob(core: LatentModel, options: OutputOptions, x: Tensor, lengths: Tensor) -> None:
    """The model's log p(x_t | …) is scipy's density of the same parameters.

    Args:
        core: in double precision; its output is ``core.output``.
        options: of its output.
        x: (N, T, D), double.
        lengths: (N,).

    Raises:
        UserError: it is not.
    """
    with torch.no_grad():
        terms = core(x, lengths)
        steps = ~padding_mask(lengths, x.shape[1])
        hidden, values, found = (
            part[steps][:COMPARED] for part in (terms.hidden, x, terms.log_prob)
        )
        statistics = core.output.statistics(hidden, values)
    expected = scipy_log_prob(options, statistics, values)
    if not np.allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6):
        off = found[0].item() - expected[0]
        raise UserError(
            f"{options.section}: log p(x) of a step is {found[0]:.4f} by the model, and by scipy "
            f"{expected[0]:.4f} with the same {', '.join(statistics)}; between them are "
            f"{in_normalisers(off)}\nlook at the normaliser: a step has {x.shape[2]} values"
        )


def in_normalisers(nats: float) -> str:
    """Nats, and how many dimensions of a Gaussian's normaliser they would be."""
    return f"{nats:.4f} nats = {nats / HALF_LOG_TAU:.3f} · ½ ln 2π"


def scipy_log_prob(
    options: OutputOptions, statistics: Mapping[str, Tensor], x: Tensor
) -> np.ndarray:
    """log p(x) (M,) of x (M, D) in nats, from the parameters that `Output.statistics` names."""
    s = {name: value.double().numpy() for name, value in statistics.items()}
    x = x.double().numpy()
    if options.kind == "gaussian":
        return norm.logpdf(x, s["mean"], s["sigma"]).sum(1)
    if options.kind == "bernoulli":
        return bernoulli.logpmf(x, s["probability"]).sum(1)
    if options.kind == "logistics":
        return _of_bins(x[..., None], s, options.bins).sum(1)
    if options.kind == "mixture":
        return _of_values(x, s) if options.autoregressive else _joint(x, s)
    pen = bernoulli.logpmf(x[:, 2], s["probability"][:, 0])
    return pen + (_of_values if options.autoregressive else _bivariate)(x[:, :2], s)


def _of_values(x: np.ndarray, s: Mapping[str, np.ndarray]) -> np.ndarray:
    """A mixture for each value; parameters are (M, D, k)."""
    components = norm.logpdf(x[..., None], s["mean"], s["sigma"])
    return logsumexp(components, axis=2, b=s["weight"]).sum(1)


def _joint(x: np.ndarray, s: Mapping[str, np.ndarray]) -> np.ndarray:
    """A mixture over all values; parameters are (M, k, D), weights (M, k)."""
    components = norm.logpdf(x[:, None], s["mean"], s["sigma"]).sum(2)
    return logsumexp(components, axis=1, b=s["weight"])


def _bivariate(x: np.ndarray, s: Mapping[str, np.ndarray]) -> np.ndarray:
    """A mixture over two values with correlations (M, k)."""
    densities = np.empty(s["weight"].shape)
    for m, k in product(*map(range, densities.shape)):
        (a, b), rho = s["sigma"][m, k], s["correlation"][m, k]
        covariance = [[a * a, rho * a * b], [rho * a * b, b * b]]
        densities[m, k] = multivariate_normal.logpdf(x[m], s["mean"][m, k], covariance)
    return logsumexp(densities, axis=1, b=s["weight"])


def _of_bins(x: np.ndarray, s: Mapping[str, np.ndarray], bins: int) -> np.ndarray:
    """Of the bins in which x (M, D, 1) are; parameters are (M, D, k)."""
    half = 1 / (bins - 1)
    bin = ((x + 1) / (2 * half)).round().clip(0, bins - 1)
    centre = 2 * half * bin - 1
    low = np.where(bin == 0, -math.inf, centre - half)
    high = np.where(bin == bins - 1, math.inf, centre + half)
    below, above = (logistic.cdf(edge, s["mean"], s["scale"]) for edge in (low, high))
    return np.log((s["weight"] * (above - below)).sum(2))
