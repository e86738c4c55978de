"""Models whose log-likelihood is known exactly: what a bound on it is compared with."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal


@dataclass(frozen=True)
class LinearGaussian:
    """A state space: z_1 ~ N(0, P), z_t = A z_{t-1} + N(0, Q), x_t = C z_t + N(0, R).

    Args:
        transition: A, (Z, Z)
        transition_noise: Q, (Z, Z)
        emission: C, (D, Z)
        emission_noise: R, (D, D)
        initial: P, (Z, Z)
    """

    transition: Tensor
    transition_noise: Tensor
    emission: Tensor
    emission_noise: Tensor
    initial: Tensor

    def sample(self, num: int, steps: int, generator: torch.Generator) -> Tensor:
        """Draw sequences (num, steps, D)."""
        z = self._noise(self.initial, num, generator)
        drawn = []
        for _ in range(steps):
            drawn.append(z @ self.emission.T + self._noise(self.emission_noise, num, generator))
            z = z @ self.transition.T + self._noise(self.transition_noise, num, generator)
        return torch.stack(drawn, dim=1)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p(x_t | x_{<t}) of sequences (N, T, D) in nats, (N, T), by a Kalman filter.

        Kalman 1960, "A new approach to linear filtering and prediction problems".
        """
        mean, covariance = x.new_zeros(len(x), len(self.initial)), self.initial
        log_probs = []
        for value in x.unbind(1):
            predicted = self.emission @ covariance @ self.emission.T + self.emission_noise
            log_probs.append(MultivariateNormal(mean @ self.emission.T, predicted).log_prob(value))
            gain = covariance @ self.emission.T @ predicted.inverse()  # (Z, D)
            mean = mean + (value - mean @ self.emission.T) @ gain.T
            covariance = covariance - gain @ self.emission @ covariance
            mean = mean @ self.transition.T
            covariance = self.transition @ covariance @ self.transition.T + self.transition_noise
        return torch.stack(log_probs, dim=1)

    @staticmethod
    def _noise(covariance: Tensor, num: int, generator: torch.Generator) -> Tensor:
        size = len(covariance)
        drawn = torch.randn(num, size, generator=generator, dtype=covariance.dtype)
        return drawn @ torch.linalg.cholesky(covariance).T


def ppca_log_likelihood(x: Tensor, weight: Tensor, mean: Tensor, sigma: float) -> Tensor:
    """Of x (…, D) in nats, (…), where x = W z + mean + N(0, sigma² I) with z ~ N(0, I).

    Tipping, Bishop 1999, "Probabilistic principal component analysis", eqs. 5 and 6.

    Args:
        x: (…, D).
        weight: W, (D, Z).
        mean: (D,).
        sigma: standard deviation of the noise.
    """
    covariance = weight @ weight.T + sigma**2 * torch.eye(len(mean), dtype=weight.dtype)
    return MultivariateNormal(mean, covariance).log_prob(x)


def within_bound(bound: Tensor, exact: Tensor) -> bool:
    """Whether a bound (N,) lies below the exact log-likelihoods (N,) of data from that model.

    Of a sequence another model may well say more; in the mean none does. Three standard errors of
    the mean difference are allowed.
    """
    excess = bound - exact
    return bool(excess.mean() <= 3 * excess.std() / math.sqrt(len(excess)))
