"""Lower bounds on log p(x), and what is minimised, from the terms that models give.

ELBO: Kingma, Welling 2013 (arXiv 1312.6114); the importance-weighted bound: Burda et al. 2016
(arXiv 1509.00519).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from plateau.models.latent import LatentModel, Terms
from plateau.ranges import COUNT, at_least, check_options


@dataclass(frozen=True)
class BoundOptions:
    """How the KL counts while training; evaluation takes the bound as it is.

    Args:
        kl_weight: factor of the KL, or what it grows to
        kl_schedule: none: it is that from the first step on. linear: it grows from 0. cyclic: it
            grows from 0 again and again, in the first half of each cycle (Fu et al. 2019, arXiv
            1903.10145)
        kl_steps: steps over which it grows, or of a cycle
        free_nats: KL of a latent dimension, in the mean over a batch's steps, that costs nothing
            (Kingma et al. 2016, arXiv 1606.04934, "free bits")
        free_nats_steps: steps over which free_nats goes to 0; 0: it stays. Where it was gone within
            2,000, latents collapsed in published runs
        analytic_kl: the KL in closed form, else log q - log p of the latents that are drawn
    """

    kl_weight: float = 1.0
    kl_schedule: Literal["none", "linear", "cyclic"] = "none"
    kl_steps: int = 10000
    free_nats: float = 0.0
    free_nats_steps: int = 20000
    analytic_kl: bool = True

    def __post_init__(self) -> None:
        check_options(
            self,
            "bound",
            kl_weight=at_least(0, 1000),
            kl_steps=at_least(1, 10**9),
            free_nats=at_least(0, 1000),
            free_nats_steps=COUNT,
        )

    def check_steps(self, steps: int) -> list[str]:
        """What comes after the end of a training of so many steps."""
        if self.kl_schedule == "linear" and self.kl_steps > steps:
            return [
                f"bound.kl_steps is {self.kl_steps}, and the training has {steps} steps: the "
                f"factor of the KL ends at {self.weight_at(steps):.3g}"
            ]
        return []

    def weight_at(self, step: int) -> float:
        """Factor of the KL at a step of training, from 0."""
        if self.kl_schedule == "none":
            return self.kl_weight
        if self.kl_schedule == "linear":
            return self.kl_weight * min(1.0, step / self.kl_steps)
        return self.kl_weight * min(1.0, 2 * (step % self.kl_steps) / self.kl_steps)

    def free_nats_at(self, step: int) -> float:
        """Free nats of a latent dimension at a step of training, from 0."""
        if not self.free_nats_steps:
            return self.free_nats
        return self.free_nats * max(0.0, 1 - step / self.free_nats_steps)


def objective(terms: Terms, options: BoundOptions, step: int) -> Tensor:
    """What training maximises: the bound, summed over a batch, with the KL as it counts at a step.

    Scalar, in nats. Without schedule and free nats it is ``elbo(…).sum()``.
    """
    kl = _kl_per_dim(terms, options.analytic_kl)
    if free := options.free_nats_at(step):
        steps = terms.lengths.sum()
        kl_sum = (kl.sum((0, 1)) / steps).clamp(min=free).sum() * steps
    else:
        kl_sum = kl.sum()
    return terms.log_prob.sum() - options.weight_at(step) * kl_sum


def elbo(terms: Terms, analytic_kl: bool = True) -> Tensor:
    """The evidence lower bound of each sequence, (N,), in nats (Chung et al. 2015, eq. 11)."""
    return terms.log_prob.sum(1) - _kl_per_dim(terms, analytic_kl).sum((1, 2))


@torch.no_grad()
def importance_weighted(
    model: LatentModel, x: Tensor, lengths: Tensor, num_samples: int, chunk: int = 64
) -> Tensor:
    """The importance-weighted bound of each sequence, (N,), in nats (Burda et al. 2016, eq. 8).

    Args:
        model: gives the weights.
        x: (N, T, D).
        lengths: (N,).
        num_samples: K; the bound grows with it, to log p(x).
        chunk: samples that are drawn at a time, for each sequence; memory grows with it.
    """
    sizes = [min(chunk, num_samples - done) for done in range(0, num_samples, chunk)]
    weights = torch.cat([model.log_weights(x, lengths, size) for size in sizes], dim=1)  # (N, K)
    return weights.logsumexp(1) - math.log(num_samples)


@dataclass(frozen=True)
class Averages:
    """A bound in the mean over sequences, over all their steps, and over all values of these."""

    per_sequence: float
    per_step: float
    per_dim: float

    @property
    def bits(self) -> "Averages":
        """The same in bits, of one in nats."""
        nats = (self.per_sequence, self.per_step, self.per_dim)
        return Averages(*(value / math.log(2) for value in nats))


def averages(bound: Tensor, lengths: Tensor, dim: int) -> Averages:
    """Average a bound (N,) of sequences with lengths (N,); every step counts alike, of D values."""
    total, steps = bound.double().sum().item(), int(lengths.sum())
    return Averages(total / len(bound), total / steps, total / steps / dim)


def _kl_per_dim(terms: Terms, analytic: bool) -> Tensor:
    return terms.kl_per_dim if analytic else terms.log_ratio
