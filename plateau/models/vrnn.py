"""Variational recurrent networks.

Chung et al. 2015, "A recurrent latent variable model for sequential data" (arXiv 1506.02216); the
equations' numbers below are theirs.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from plateau.models.distributions import OutputOptions, make_output
from plateau.models.latent import (
    GaussianLayer,
    Held,
    LatentModel,
    Terms,
    draw_latents,
    make_terms,
    mlp,
)
from plateau.models.subsampling import padding_mask
from plateau.ranges import SIZE, above, at_least, check_options

State = tuple[Tensor, ...]  # of a cell: h, and an LSTM's c, each (N, H)


@dataclass(frozen=True)
class VrnnOptions:
    """Which model, and its size.

    Args:
        kind: vrnn: the prior of the latents is computed from the past. vrnn_i: it is N(0, I). rnn:
            there are no latents
        cell: of the recurrence
        hidden_dim: H, of the recurrence
        latent_dim: Z
        feature_dim: units of each layer of φ_x and of the decoder
        latent_feature_dim: units of each layer of φ_z, encoder and prior
        num_layers: layers of each of these networks; 0: they are what is linear in them
        min_sigma: the smallest standard deviation of latents
        output: the distribution of x
    """

    kind: Literal["vrnn", "vrnn_i", "rnn"] = "vrnn"
    cell: Literal["lstm", "gru"] = "lstm"
    hidden_dim: int = 300
    latent_dim: int = 32
    feature_dim: int = 150
    latent_feature_dim: int = 150
    num_layers: int = 1
    min_sigma: float = 1e-3
    output: OutputOptions = OutputOptions()

    def __post_init__(self) -> None:
        check_options(
            self,
            "vrnn",
            hidden_dim=SIZE,
            latent_dim=SIZE,
            feature_dim=SIZE,
            latent_feature_dim=SIZE,
            num_layers=at_least(0, 100),
            min_sigma=above(0, 1000),
        )


class Vrnn(LatentModel):
    """See the module.

    Args:
        dim: D, values of a step.
        options: kind and size.
    """

    def __init__(self, dim: int, options: VrnnOptions) -> None:
        super().__init__()
        self.dim, self.kind = dim, options.kind
        self.hidden_dim = hidden = options.hidden_dim
        self.latent_dim = latent = 0 if options.kind == "rnn" else options.latent_dim
        wide = [options.feature_dim] * options.num_layers
        narrow = [options.latent_feature_dim] * options.num_layers

        of_x, of_z = [dim, *wide], [latent, *narrow] if latent else [0]
        self.phi_x, self.phi_z = mlp(of_x), mlp(of_z)
        if latent:
            self.encoder = _gaussian_mlp([of_x[-1] + hidden, *narrow], options)
        if options.kind == "vrnn":
            self.prior = _gaussian_mlp([hidden, *narrow], options)
        decoder = [of_z[-1] + hidden, *wide]
        self.decoder = mlp(decoder)
        self.output = make_output(decoder[-1], dim, options.output)
        recurrence = nn.LSTM if options.cell == "lstm" else nn.GRU
        self.recurrence = recurrence(of_x[-1] + of_z[-1], hidden, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor, noise: Tensor | None = None) -> Terms:
        """See `LatentModel`."""
        x = x.masked_fill(padding_mask(lengths, x.shape[1]).unsqueeze(2), 0.0)
        if noise is None:
            noise = x.new_empty(*x.shape[:2], self.latent_dim).normal_()
        past, posterior, latents, z_features, _ = self.read(self.phi_x(x), noise)
        hidden = self.decoder(torch.cat([z_features, past], dim=2))  # (N, T, H')
        log_prob = self.output.log_prob(hidden, x)  # eq. 6
        return make_terms(log_prob, posterior, self._prior(past), latents, hidden, lengths)

    @torch.no_grad()
    def sample(
        self, num: int, steps: int, prime: Tensor | None = None, held: Held | None = None
    ) -> Tensor:
        """Draw sequences (num, steps, D).

        Args:
            num: how many.
            steps: of each.
            prime: (T, D), what they go on with.
            held: a latent dimension that is not drawn.
        """
        parameter = next(self.parameters())
        state = self._start(num, parameter)
        if prime is not None:
            prime = prime.to(parameter).expand(num, *prime.shape)
            noise = torch.randn(num, prime.shape[1], self.latent_dim).to(parameter)
            state = self.read(self.phi_x(prime), noise)[-1]
        drawn = []
        for _ in range(steps):
            past = state[0]
            z_feature = self.phi_z(draw_latents(self._prior(past), held))
            x = self.output.sample(self.decoder(torch.cat([z_feature, past], dim=1)))
            state = self._recur(self.phi_x(x), z_feature, state)
            drawn.append(x)
        return torch.stack(drawn, dim=1)

    def read(
        self, x_features: Tensor, noise: Tensor
    ) -> tuple[Tensor, Normal, Tensor, Tensor, State]:
        """Go through sequences: the loop over time, with nothing in it that can be outside.

        Args:
            x_features: φ_x(x_t) for all t, (N, T, F).
            noise: (N, T, Z).

        Returns:
            h_{t-1} (N, T, H), q(z_t | x_{≤t}, z_{<t}), z_t and φ_z(z_t) of all t, and the state
            after the last.
        """
        if not self.latent_dim:
            return self._read_without_latents(x_features, noise)
        state, steps = self._start(len(x_features), x_features), []
        for x_feature, eps in zip(x_features.unbind(1), noise.unbind(1), strict=True):
            past = state[0]
            mean, sigma = self.encoder(torch.cat([x_feature, past], dim=1))  # eq. 9
            z = mean + sigma * eps
            z_feature = self.phi_z(z)
            state = self._recur(x_feature, z_feature, state)
            steps.append((past, mean, sigma, z, z_feature))
        past, mean, sigma, z, z_features = (
            torch.stack(parts, dim=1) for parts in zip(*steps, strict=True)
        )
        return past, Normal(mean, sigma, validate_args=False), z, z_features, state

    def _read_without_latents(
        self, x_features: Tensor, none: Tensor
    ) -> tuple[Tensor, Normal, Tensor, Tensor, State]:
        """The same in one call, as no step needs what was drawn in one before."""
        outputs, last = self.recurrence(x_features)
        past = F.pad(outputs[:, :-1], (0, 0, 1, 0))
        state = last if isinstance(last, tuple) else (last,)
        return past, self._prior(past), none, none, tuple(part[0] for part in state)

    def _recur(self, x_feature: Tensor, z_feature: Tensor, state: State) -> State:
        """h_t = f(φ_x(x_t), φ_z(z_t), h_{t-1}), eq. 7."""
        inputs, weights = torch.cat([x_feature, z_feature], dim=1), self.recurrence.all_weights[0]
        if len(state) == 2:
            return torch.lstm_cell(inputs, state, *weights)
        return (torch.gru_cell(inputs, state[0], *weights),)

    def _prior(self, past: Tensor) -> Normal:
        """p(z_t | x_{<t}, z_{<t}) of h_{t-1} (…, H), eq. 5."""
        if self.kind == "vrnn":
            return Normal(*self.prior(past), validate_args=False)
        zeros = past.new_zeros(*past.shape[:-1], self.latent_dim)
        return Normal(zeros, torch.ones_like(zeros), validate_args=False)

    def _start(self, num: int, like: Tensor) -> State:
        zeros = like.new_zeros(num, self.hidden_dim)
        return (zeros, zeros) if isinstance(self.recurrence, nn.LSTM) else (zeros,)


def _gaussian_mlp(sizes: list[int], options: VrnnOptions) -> nn.Sequential:
    return nn.Sequential(
        mlp(sizes), GaussianLayer(sizes[-1], options.latent_dim, options.min_sigma)
    )
