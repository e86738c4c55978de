"""Variational autoencoders (Kingma, Welling 2013, "Auto-encoding variational Bayes").

Every step of a sequence is an image of its own; images alone are sequences of one step.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from plateau.config import UserError
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


@dataclass(frozen=True)
class VaeOutputOptions(OutputOptions):
    """`OutputOptions` as images have them."""

    kind: Literal["gaussian", "mixture", "strokes", "bernoulli", "logistics"] = "bernoulli"
    section: ClassVar[str] = "vae.output"


@dataclass(frozen=True)
class VaeOptions:
    """Size of a variational autoencoder.

    Args:
        kind: mlp: linear layers with ReLUs. conv: convolutions, twice by steps of 2
        latent_dim: Z
        hidden_dim: units of each layer of an mlp
        num_layers: layers of each mlp; 0: encoder and decoder are linear
        channels: of the first convolution; the second has twice as many
        min_sigma: the smallest standard deviation of latents
        output: the distribution of an image's values
    """

    kind: Literal["mlp", "conv"] = "mlp"
    latent_dim: int = 20
    hidden_dim: int = 400
    num_layers: int = 2
    channels: int = 16
    min_sigma: float = 1e-3
    output: VaeOutputOptions = VaeOutputOptions()

    def __post_init__(self) -> None:
        check_options(
            self,
            "vae",
            latent_dim=SIZE,
            hidden_dim=SIZE,
            num_layers=at_least(0, 100),
            channels=SIZE,
            min_sigma=above(0, 1000),
        )


class Vae(LatentModel):
    """See the module.

    Args:
        dim: D, values of an image.
        options: kind and size.
        shape: rows and columns of an image, whose product is D; an mlp does without.

    Raises:
        UserError: convolutions of what is no image.
    """

    def __init__(self, dim: int, options: VaeOptions, shape: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.latent_dim = latent = options.latent_dim
        if options.kind == "conv":
            if shape[0] * shape[1] != dim:
                raise UserError(
                    f"vae.kind is conv, for images; the data have {dim} values a step, which are "
                    "no rows and columns\nset vae.kind=mlp"
                )
            self.encoder, encoded = _convolutions(shape, options.channels)
            self.decoder = _upsampling(shape, latent, options.channels)
            decoded = dim
        else:
            hidden = [options.hidden_dim] * options.num_layers
            self.encoder, encoded = mlp([dim, *hidden]), [dim, *hidden][-1]
            self.decoder, decoded = mlp([latent, *hidden]), [latent, *hidden][-1]
        self.posterior = GaussianLayer(encoded, latent, options.min_sigma)
        self.output = make_output(decoded, dim, options.output)

    def forward(self, x: Tensor, lengths: Tensor, noise: Tensor | None = None) -> Terms:
        """See `LatentModel`."""
        x = x.masked_fill(padding_mask(lengths, x.shape[1]).unsqueeze(2), 0.0)
        mean, sigma = self.posterior(self.encoder(x.flatten(0, 1)))
        mean, sigma = (part.unflatten(0, x.shape[:2]) for part in (mean, sigma))  # (N, T, Z)
        noise = torch.randn_like(mean) if noise is None else noise
        latents = mean + sigma * noise
        hidden = self.decode(latents)
        posterior = Normal(mean, sigma, validate_args=False)
        prior = Normal(torch.zeros_like(mean), torch.ones_like(mean), validate_args=False)
        log_prob = self.output.log_prob(hidden, x)
        return make_terms(log_prob, posterior, prior, latents, hidden, lengths)

    @torch.no_grad()
    def sample(self, num: int, steps: int = 1, held: Held | None = None) -> Tensor:
        """Draw images (num, steps, D), with a latent dimension ``held`` if that is given."""
        zeros = next(self.parameters()).new_zeros(num, steps, self.latent_dim)
        latents = draw_latents(Normal(zeros, torch.ones_like(zeros)), held)
        return self.output.sample(self.decode(latents))

    @torch.no_grad()
    def interpolate(self, first: Tensor, last: Tensor, num: int) -> Tensor:
        """Images (num, D), by their means, on a line from one image (D,) to another in latents."""
        ends, _ = self.posterior(self.encoder(torch.stack([first, last])))  # (2, Z)
        share = torch.linspace(0, 1, num).to(ends).unsqueeze(1)
        return self.output.mean(self.decode(torch.lerp(ends[:1], ends[1:], share)))

    def decode(self, latents: Tensor) -> Tensor:
        """(…, Z) → (…, H), what the output is given."""
        decoded = self.decoder(latents.flatten(0, -2))
        return decoded.unflatten(0, latents.shape[:-1])


def _halved(shape: tuple[int, int]) -> tuple[int, int]:
    return (shape[0] + 1) // 2, (shape[1] + 1) // 2


def _convolutions(shape: tuple[int, int], channels: int) -> tuple[nn.Sequential, int]:
    """From images (N, D) to features, and how many these are."""
    rows, columns = _halved(_halved(shape))
    layers = nn.Sequential(
        nn.Unflatten(1, (1, *shape)),
        nn.Conv2d(1, channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
    )
    return layers, 2 * channels * rows * columns


def _upsampling(shape: tuple[int, int], latent_dim: int, channels: int) -> nn.Sequential:
    """From latents (N, Z) to a value for each pixel (N, D)."""
    smallest = _halved(_halved(shape))
    return nn.Sequential(
        nn.Linear(latent_dim, 2 * channels * smallest[0] * smallest[1]),
        nn.ReLU(),
        nn.Unflatten(1, (2 * channels, *smallest)),
        nn.Upsample(_halved(shape)),
        nn.Conv2d(2 * channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.Upsample(shape),
        nn.Conv2d(channels, 1, 3, padding=1),
        nn.Flatten(),
    )
