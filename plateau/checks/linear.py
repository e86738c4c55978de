"""Models set by hand to a linear-Gaussian truth, whose log-likelihood is known exactly."""

import math

import numpy as np
import torch
from scipy.linalg import solve_discrete_are
from torch import Tensor, nn

from plateau.checks.exact import LinearGaussian
from plateau.models.distributions import OutputOptions
from plateau.models.vae import Vae, VaeOptions, VaeOutputOptions
from plateau.models.vrnn import Vrnn, VrnnOptions

A, Q = 0.8, 0.5  # of the state
SMALL = 1e-5  # an LSTM is linear in what is small
OPEN, FLOOR = 50.0, 1e-3  # logit of an open gate; the smallest sigma


def double(values: list) -> Tensor:
    """A tensor of these numbers."""
    return torch.tensor(values, dtype=torch.double)


def steady(emission: list[float], noise: list[float]) -> LinearGaussian:
    """A state of one number, from the start as uncertain as it ever gets; x of D numbers.

    Args:
        emission: C, (D,).
        noise: diagonal of R, (D,).
    """
    C, R = np.array(emission)[:, None], np.diag(noise)
    P = solve_discrete_are(np.array([[A]]), C.T, np.array([[Q]]), R)
    return LinearGaussian(double([[A]]), double([[Q]]), double(C), double(R), double(P))


def raw(sigma: float) -> float:
    """What a softplus with the floor makes sigma of."""
    return math.log(math.expm1(sigma - FLOOR))


def set_linear(layer: nn.Linear, weight: list, bias: list) -> None:
    """Put these numbers into a layer."""
    with torch.no_grad():
        layer.weight.copy_(double(weight))
        layer.bias.copy_(double(bias))


def vrnn_of(truth: LinearGaussian, kind: str = "vrnn") -> Vrnn:
    """A VRNN that is this state space, with its exact posterior; h is the mean of z_t before x_t.

    The filter's recurrence is m' = A (m + K (x - C m)) = A (1 - K C) m + A K x. The latent of
    ``vrnn`` is the state, that of ``vrnn_i`` how far it lies from m, in standard deviations;
    ``rnn`` has the predictive distribution, of one value.
    """
    dim = len(truth.emission)
    output = OutputOptions("gaussian", min_sigma=FLOOR)
    options = VrnnOptions(kind, "lstm", 1, 1, num_layers=0, min_sigma=FLOOR, output=output)
    model = Vrnn(dim, options).double()
    C, P = truth.emission[:, 0], truth.initial.item()
    S = P * torch.outer(C, C) + truth.emission_noise
    K = P * C @ S.inverse()
    rest = 1 - (K @ C).item()
    unused = [] if kind == "rnn" else [0.0]  # of z: the filter sees x only
    set_recurrence(model, A * rest, [*(A * K).tolist(), *unused])
    sigmas = truth.emission_noise.diagonal().sqrt().tolist()
    if kind == "rnn":
        rows, sigmas = [[C.item() / SMALL]], S.diagonal().sqrt().tolist()
    else:  # of z and h
        unit, centre = (
            (1.0, 0.0) if kind == "vrnn" else (P**0.5, 1.0)
        )  # z = (state - centre m)/unit
        inputs = [*(K / unit).tolist(), (rest - centre) / unit / SMALL]
        set_linear(
            model.encoder[1].linear,
            [inputs, [0] * (dim + 1)],
            [0, raw((rest * P) ** 0.5 / unit)],
        )
        rows = [[c * unit, c * centre / SMALL] for c in C.tolist()]
    if kind == "vrnn":
        set_linear(model.prior[1].linear, [[1 / SMALL], [0]], [0, raw(P**0.5)])
    set_gaussian(model.output.parameters_of, rows, [0.0] * dim, sigmas)
    return model


def set_recurrence(model: Vrnn, forget: float, inputs: list[float]) -> None:
    """h' = forget · h + inputs · (x, z)."""
    w_ih, w_hh, b_ih, b_hh = model.recurrence.all_weights[0]
    with torch.no_grad():
        for weights in (w_ih, w_hh, b_ih, b_hh):
            weights.zero_()
        b_ih[0], b_ih[1], b_ih[3] = OPEN, math.log(forget / (1 - forget)), OPEN  # i, f, o
        w_ih[2] = SMALL * double(inputs)  # g


def set_gaussian(layer: nn.Linear, rows: list, means: list, sigmas: list) -> None:
    """Let a layer give Gaussians: means by these rows and constants, sigmas always the same."""
    weight = [row for mean in rows for row in (mean, [0.0] * len(mean))]
    bias = [v for mean, s in zip(means, sigmas, strict=True) for v in (mean, raw(s))]
    set_linear(layer, weight, bias)


def vae_of(weight: Tensor, mean: Tensor, sigma: float) -> Vae:
    """A VAE that is this probabilistic PCA, with its exact posterior.

    Tipping, Bishop 1999, eq. 7; its arguments are those of `ppca_log_likelihood`.

    Args:
        weight: W, (D, Z), whose columns are orthogonal: the posterior's covariance is diagonal.
        mean: (D,).
        sigma: standard deviation of the noise.
    """
    dim, latent = weight.shape
    output = VaeOutputOptions("gaussian", min_sigma=FLOOR)
    options = VaeOptions("mlp", latent, num_layers=0, min_sigma=FLOOR, output=output)
    model = Vae(dim, options).double()
    M = weight.T @ weight + sigma**2 * torch.eye(latent)
    inverse = M.inverse() @ weight.T
    deviations = (sigma / M.diagonal().sqrt()).tolist()
    bias = [*(-inverse @ mean).tolist(), *(raw(s) for s in deviations)]
    set_linear(model.posterior.linear, [*inverse.tolist(), *[[0] * dim] * latent], bias)
    set_gaussian(model.output.parameters_of, weight.tolist(), mean.tolist(), [sigma] * dim)
    return model
