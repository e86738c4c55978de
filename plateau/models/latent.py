"""What models with latent variables share: the terms of their bound, and Gaussian layers."""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from plateau.models.subsampling import padding_mask

# A latent dimension, and how far it is kept from its prior's mean, in the prior's deviations.
Held = tuple[int, float]


@dataclass(frozen=True)
class Terms:
    """The terms of the bound for each step, with zeros as padding. Nats.

    Args:
        log_prob: log p(x_t | z_t, …), (N, T)
        kl_per_dim: KL(q(z_t) ‖ p(z_t)) in closed form, (N, T, Z)
        log_ratio: log q(z_t) - log p(z_t) of the latents that were drawn, (N, T, Z); its mean is
            the KL
        latents: z_t as they were drawn, (N, T, Z)
        hidden: what the output distribution is given, (N, T, H)
        lengths: steps of each sequence, (N,)
    """

    log_prob: Tensor
    kl_per_dim: Tensor
    log_ratio: Tensor
    latents: Tensor
    hidden: Tensor
    lengths: Tensor

    @property
    def kl(self) -> Tensor:
        """KL of all latent dimensions, (N, T)."""
        return self.kl_per_dim.sum(-1)

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z | x) of each sequence, (N,)."""
        return self.log_prob.sum(1) - self.log_ratio.sum((1, 2))


class LatentModel(nn.Module):
    """A model of x (N, T, D) with latents z (N, T, Z); see `Terms`."""

    latent_dim: int

    def forward(self, x: Tensor, lengths: Tensor, noise: Tensor | None = None) -> Terms:
        """The terms of the bound.

        Args:
            x: (N, T, D); what is in the padding does not matter.
            lengths: (N,), 1 or more.
            noise: (N, T, Z), by which latents lie from their posteriors' means, in standard
                deviations; drawn if not given.
        """
        raise NotImplementedError

    def log_weights(self, x: Tensor, lengths: Tensor, k: int) -> Tensor:
        """log p(x, z) - log q(z | x), (N, K), of K draws of z; x (N, T, D), lengths (N,)."""
        terms = self(x.repeat_interleave(k, 0), lengths.repeat_interleave(k, 0))
        return terms.log_weight.unflatten(0, (len(x), k))


class GaussianLayer(nn.Module):
    """A linear layer that gives mean and standard deviation of latents.

    Args:
        input_dim: of its input.
        latent_dim: Z.
        min_sigma: the smallest standard deviation.
    """

    def __init__(self, input_dim: int, latent_dim: int, min_sigma: float) -> None:
        super().__init__()
        self.linear = nn.Linear(input_dim, 2 * latent_dim)
        self.min_sigma = min_sigma

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(…, input) → mean (…, Z), sigma (…, Z)."""
        mean, raw = self.linear(x).chunk(2, dim=-1)
        return mean, F.softplus(raw) + self.min_sigma


def mlp(sizes: list[int]) -> nn.Sequential:
    """Linear layers of these sizes, each followed by a ReLU; of one size, what it is given."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers)


def draw_latents(prior: Normal, held: Held | None = None) -> Tensor:
    """Draw from a prior over (…, Z); what is held takes no random number from the others."""
    latents = prior.sample()
    if held:
        dim, deviations = held
        latents[..., dim] = prior.mean[..., dim] + deviations * prior.stddev[..., dim]
    return latents


def make_terms(
    log_prob: Tensor,
    posterior: Normal,
    prior: Normal,
    latents: Tensor,
    hidden: Tensor,
    lengths: Tensor,
) -> Terms:
    """The terms, masked, of distributions over latents (N, T, Z); see `Terms`."""
    padding = padding_mask(lengths, log_prob.shape[1])
    log_ratio = posterior.log_prob(latents) - prior.log_prob(latents)
    return Terms(
        log_prob.masked_fill(padding, 0.0),
        kl_divergence(posterior, prior).masked_fill(padding.unsqueeze(2), 0.0),
        log_ratio.masked_fill(padding.unsqueeze(2), 0.0),
        latents.masked_fill(padding.unsqueeze(2), 0.0),
        hidden.masked_fill(padding.unsqueeze(2), 0.0),
        lengths,
    )
