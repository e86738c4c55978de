"""Output distributions: p(x | hidden) of a step's values x (…, D), given a hidden (…, H)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
)

from plateau.config import UserError
from plateau.models.densities import BivariateNormal, DiscretisedLogistic, Product
from plateau.models.made import MaskedNetwork
from plateau.ranges import SIZE, above, at_least, check_options

# A correlation of 1 is a density without bound; at this one a point may be 22 times as dense.
MAX_CORRELATION = 0.999


@dataclass(frozen=True)
class OutputOptions:
    """Which output distribution.

    Args:
        kind: what a step's values are

            - gaussian: Gaussians, one for each
            - mixture: a mixture of Gaussians that have a sigma for each value
            - strokes: dx and dy by a mixture of Gaussians with correlations, and whether the pen
              is lifted by a Bernoulli distribution; D is 3 (Graves 2013, arXiv 1308.0850)
            - bernoulli: each 0 or 1
            - logistics: a mixture of logistics for each, on the bins of a grid from -1 to 1
              (Salimans et al. 2017, arXiv 1701.05517)

        components: of a mixture; 1 with strokes is the "Gauss" of Chung et al. 2015
        autoregressive: a value of a step depends on those before it in the step, by a masked
            network (Lai, Dai et al. 2019, "Re-examination of the role of latent variables in
            sequence modeling"); the mixtures are then of each value alone
        masked_dim: units of a hidden layer of the masked network
        masked_layers: hidden layers of the masked network
        bins: of the grid of logistics
        min_sigma: the smallest standard deviation, or scale of a logistic, in units of the values
    """

    kind: Literal["gaussian", "mixture", "strokes", "bernoulli", "logistics"] = "strokes"
    components: int = 20
    autoregressive: bool = False
    masked_dim: int = 128
    masked_layers: int = 1
    bins: int = 256
    min_sigma: float = 1e-3

    section: ClassVar[str] = "vrnn.output"  # where they stand in a configuration

    def __post_init__(self) -> None:
        check_options(
            self,
            self.section,
            components=SIZE,
            masked_dim=SIZE,
            masked_layers=at_least(1, 100),
            bins=at_least(2, 65536),
            min_sigma=above(0, 1000),
        )


class Output(nn.Module):
    """A distribution over x (…, D), whose parameters a layer computes from hidden (…, H).

    Args:
        hidden_dim: H.
        dim: D.
        options: which distribution.

    Raises:
        UserError: strokes of other than three values.
    """

    def __init__(self, hidden_dim: int, dim: int, options: OutputOptions) -> None:
        super().__init__()
        self.dim, self.autoregressive = dim, options.autoregressive
        sizes, self._distribution = _family(dim, options)
        if self.autoregressive:
            self.parameters_of = MaskedNetwork(
                hidden_dim, sizes, options.masked_dim, options.masked_layers
            )
        else:
            self.parameters_of = nn.Linear(hidden_dim, sum(sizes))

    def distribution(self, hidden: Tensor, x: Tensor | None = None) -> Distribution:
        """p(x | hidden); an autoregressive one is that of each value given those before it in x."""
        arguments = (hidden, x) if self.autoregressive else (hidden,)
        return self._distribution(self.parameters_of(*arguments))

    def log_prob(self, hidden: Tensor, x: Tensor) -> Tensor:
        """Of x (…, D) in nats, (…): a density in the units of x, or a probability."""
        return self.distribution(hidden, x).log_prob(x)

    @torch.no_grad()
    def sample(self, hidden: Tensor) -> Tensor:
        """Draw x (…, D)."""
        return self._value_by_value(hidden, lambda d: d.sample())

    @torch.no_grad()
    def mean(self, hidden: Tensor) -> Tensor:
        """The mean (…, D); with an autoregressive output, of a value given the others' means."""
        return self._value_by_value(hidden, lambda d: d.mean)

    @torch.no_grad()
    def statistics(self, hidden: Tensor, x: Tensor | None = None) -> dict[str, Tensor]:
        """The distributions' parameters by name, for histograms.

        Args:
            hidden: (…, H).
            x: (…, D), what an autoregressive output is conditioned on; its mean if not given.
        """
        x = self.mean(hidden) if x is None and self.autoregressive else x
        return _statistics(self.distribution(hidden, x))

    def _value_by_value(self, hidden: Tensor, value: Callable[[Distribution], Tensor]) -> Tensor:
        if not self.autoregressive:
            return value(self.distribution(hidden))
        x = hidden.new_zeros(*hidden.shape[:-1], self.dim)
        for d in range(self.dim):
            x[..., d] = value(self.distribution(hidden, x))[..., d]
        return x


def make_output(hidden_dim: int, dim: int, options: OutputOptions) -> Output:
    """Make the output for D values given H hidden ones; see `Output`."""
    return Output(hidden_dim, dim, options)


def _family(dim: int, options: OutputOptions) -> tuple[list[int], Callable[[Tensor], Distribution]]:
    """How many parameters each value has, and the distribution of parameters (…, sum of these).

    Where the values share parameters, the sizes are of groups of them.
    """
    k, floor, alone = options.components, options.min_sigma, options.autoregressive
    if options.kind == "strokes" and dim != 3:
        raise UserError(
            f"{options.section}.kind is strokes, which have 3 values a step; the data have {dim}"
        )
    if options.kind == "gaussian":
        return [2] * dim, lambda p: Independent(_normal(p.unflatten(-1, (dim, 2)), floor), 1)
    if options.kind == "bernoulli":
        return [1] * dim, _bernoulli
    if options.kind == "logistics":
        return [3 * k] * dim, lambda p: Independent(
            _logistics(p.unflatten(-1, (dim, k, 3)), floor, options.bins), 1
        )
    if options.kind == "mixture" and alone:
        return [3 * k] * dim, lambda p: _mixtures(p, dim, k, floor)
    if options.kind == "mixture":
        return [k, 2 * k * dim], lambda p: _joint_mixture(p, dim, k, floor)
    if alone:
        return [3 * k, 3 * k, 1], lambda p: Product(
            _mixtures(p[..., :-1], 2, k, floor), _bernoulli(p[..., -1:])
        )
    return [6 * k, 1], lambda p: Product(
        _bivariate_mixture(p[..., :-1].unflatten(-1, (k, 6)), floor), _bernoulli(p[..., -1:])
    )


def _sigma(raw: Tensor, floor: float) -> Tensor:
    return F.softplus(raw) + floor


def _normal(parameters: Tensor, floor: float) -> Normal:
    """From mean and raw sigma (…, 2)."""
    mean, raw = parameters.unbind(-1)
    return Normal(mean, _sigma(raw, floor), validate_args=False)


def _bernoulli(logits: Tensor) -> Independent:
    """Of values (…, D)."""
    return Independent(Bernoulli(logits=logits, validate_args=False), 1)


def _mixture(log_weights: Tensor, components: Distribution) -> MixtureSameFamily:
    """Of components (…, k) with log-weights (…, k) that need not be normalised."""
    weights = Categorical(logits=log_weights, validate_args=False)
    return MixtureSameFamily(weights, components, validate_args=False)


def _mixtures(parameters: Tensor, dim: int, k: int, floor: float) -> Independent:
    """A mixture of Gaussians for each value, from (…, D · k · 3)."""
    parameters = parameters.unflatten(-1, (dim, k, 3))
    mixture = _mixture(parameters[..., 0], _normal(parameters[..., 1:], floor))
    return Independent(mixture, 1)


def _joint_mixture(parameters: Tensor, dim: int, k: int, floor: float) -> MixtureSameFamily:
    """A mixture of Gaussians over all values, from (…, k + k · D · 2)."""
    components = _normal(parameters[..., k:].unflatten(-1, (k, dim, 2)), floor)
    return _mixture(parameters[..., :k], Independent(components, 1))


def _bivariate_mixture(parameters: Tensor, floor: float) -> MixtureSameFamily:
    """Of dx and dy, from (…, k, 6) (Graves 2013, eqs. 19 to 23)."""
    log_weight, mean, raw, correlation = parameters.split([1, 2, 2, 1], dim=-1)
    correlation = MAX_CORRELATION * correlation.squeeze(-1).tanh()
    components = BivariateNormal(mean, _sigma(raw, floor), correlation)
    return _mixture(log_weight.squeeze(-1), components)


def _logistics(parameters: Tensor, floor: float, bins: int) -> MixtureSameFamily:
    """A mixture for each value, from (…, D, k, 3)."""
    log_weight, mean, raw = parameters.unbind(-1)
    return _mixture(log_weight, DiscretisedLogistic(mean, _sigma(raw, floor), bins))


def _statistics(distribution: Distribution) -> dict[str, Tensor]:
    match distribution:
        case Product():
            parts = [_statistics(part) for part in distribution.parts]
            return {name: value for part in parts for name, value in part.items()}
        case Independent():
            return _statistics(distribution.base_dist)
        case MixtureSameFamily():
            weights = distribution.mixture_distribution.probs
            return {"weight": weights, **_statistics(distribution.component_distribution)}
        case BivariateNormal():
            found = {"mean": distribution.mean, "sigma": distribution.sigma}
            return {**found, "correlation": distribution.correlation}
        case DiscretisedLogistic():
            return {"mean": distribution.location, "scale": distribution.scale}
        case Bernoulli():
            return {"probability": distribution.probs}
    return {"mean": distribution.mean, "sigma": distribution.stddev}
