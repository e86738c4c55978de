"""Densities that `torch.distributions` does not have, in its manner.

None of them checks its arguments: they are made anew for every batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Normal


class BivariateNormal(Distribution):
    """Two values with a correlation (Graves 2013, arXiv 1308.0850, eqs. 24 and 25).

    Computed as p(x_0) p(x_1 | x_0), which is the same and needs no matrices.

    Args:
        mean: (…, 2).
        sigma: standard deviations (…, 2), above 0.
        correlation: (…), between -1 and 1.
    """

    def __init__(self, mean: Tensor, sigma: Tensor, correlation: Tensor) -> None:
        self.location, self.sigma, self.correlation = mean, sigma, correlation
        super().__init__(correlation.shape, mean.shape[-1:], validate_args=False)

    def _second(self, first: Tensor) -> Normal:
        """p(x_1 | x_0) of x_0 in standard deviations from its mean."""
        rest = ((1 - self.correlation) * (1 + self.correlation)).sqrt()
        mean, sigma = self.location[..., 1], self.sigma[..., 1]
        return Normal(mean + self.correlation * sigma * first, sigma * rest, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of values (…, 2), in nats: (…)."""
        x, y = value.unbind(-1)
        first = (x - self.location[..., 0]) / self.sigma[..., 0]
        log_prob = -0.5 * (first.square() + math.log(2 * math.pi)) - self.sigma[..., 0].log()
        return log_prob + self._second(first).log_prob(y)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw (*sample_shape, …, 2)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        first = torch.randn(shape, dtype=self.location.dtype, device=self.location.device)
        x = self.location[..., 0] + self.sigma[..., 0] * first
        return torch.stack([x, self._second(first).sample()], dim=-1)

    @property
    def mean(self) -> Tensor:
        """(…, 2)."""
        return self.location


class DiscretisedLogistic(Distribution):
    """Probabilities of bins on [-1, 1] by a logistic (Salimans et al. 2017, eq. 2).

    The bins' centres are -1, -1 + 2 / (bins - 1), …, 1. The first and the last bin have the tails,
    so that the probabilities of all sum to 1. A value is of the bin whose centre is nearest.

    Args:
        mean: (…), of the logistic.
        scale: (…), above 0; the standard deviation is π / √3 of it.
        bins: how many, 2 or more.
    """

    def __init__(self, mean: Tensor, scale: Tensor, bins: int) -> None:
        self.location, self.scale, self.bins = mean, scale, bins
        super().__init__(mean.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of the bins of values (…), in nats."""
        index = self._nearest(value)
        half = 1 / (self.bins - 1)
        centred = index * (2 * half) - 1 - self.location
        low, high = (centred - half) / self.scale, (centred + half) / self.scale
        # σ(high) - σ(low) = σ(high) σ(-low) (1 - exp(low - high)): no difference that could vanish.
        below_high = F.logsigmoid(high).where(index < self.bins - 1, torch.zeros_like(high))
        above_low = F.logsigmoid(-low).where(index > 0, torch.zeros_like(low))
        inner = (index > 0) & (index < self.bins - 1)
        both = torch.log(-torch.expm1(-2 * half / self.scale))
        return below_high + above_low + both.where(inner, torch.zeros_like(both))

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw centres of bins, (*sample_shape, …)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        uniform = torch.rand(shape, dtype=self.scale.dtype, device=self.scale.device)
        tiny = torch.finfo(uniform.dtype).eps / 2
        x = self.location + self.scale * uniform.clamp(tiny, 1 - tiny).logit()
        return self._nearest(x) * (2 / (self.bins - 1)) - 1

    @property
    def mean(self) -> Tensor:
        """Of the logistic whose tails lie on the edges, at most half a bin from the exact one."""
        # The integral of x dF, by parts: 1 - ∫ F(x) dx from -1 to 1.
        edges = [self.scale * F.softplus((e - self.location) / self.scale) for e in (1, -1)]
        return 1 - edges[0] + edges[1]

    def _nearest(self, value: Tensor) -> Tensor:
        last = self.bins - 1
        return ((value + 1) / 2 * last).round().clamp(0, last)


class Product(Distribution):
    """Independent distributions of consecutive values, as one distribution over all of them.

    Args:
        parts: of event shapes (D_1,), (D_2,), …, and of one batch shape.
    """

    def __init__(self, *parts: Distribution) -> None:
        self.parts = parts
        self._sizes = [part.event_shape[0] for part in parts]
        super().__init__(parts[0].batch_shape, (sum(self._sizes),), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of values (…, D_1 + D_2 + …), in nats: (…)."""
        values = value.split(self._sizes, dim=-1)
        return sum(part.log_prob(x) for part, x in zip(self.parts, values, strict=True))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw (*sample_shape, …, D_1 + D_2 + …)."""
        return torch.cat([part.sample(sample_shape) for part in self.parts], dim=-1)

    @property
    def mean(self) -> Tensor:
        """(…, D_1 + D_2 + …)."""
        return torch.cat([part.mean for part in self.parts], dim=-1)
