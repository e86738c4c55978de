"""Models set by hand to a linear-Gaussian truth, which a Kalman filter knows exactly."""

import math

import numpy as np
import torch
from scipy.linalg import solve_discrete_are

from plateau.checks.exact import LinearGaussian
from plateau.models.distributions import OutputOptions
from plateau.models.vrnn import Vrnn, VrnnOptions

A, Q = 0.8, 0.5
SMALL = 1e-5  # an LSTM is linear in what is small
OPEN, FLOOR = 50.0, 1e-3  # logit of an open gate; the smallest sigma


def double(values):
    return torch.tensor(values, dtype=torch.double)


def steady(emission, noise):
    """A state of one number, from the start as uncertain as it ever gets; values (D,)."""
    C, R = np.array(emission)[:, None], np.diag(noise)
    P = solve_discrete_are(np.array([[A]]), C.T, np.array([[Q]]), R)
    return LinearGaussian(double([[A]]), double([[Q]]), double(C), double(R), double(P))


def raw(sigma):
    """What a softplus with the floor makes sigma of."""
    return math.log(math.expm1(sigma - FLOOR))


def set_linear(layer, weight, bias):
    with torch.no_grad():
        layer.weight.copy_(double(weight))
        layer.bias.copy_(double(bias))


def vrnn_of(truth, kind="vrnn"):
    """A VRNN that is this state space, with its exact posterior; h is the mean of z_t before x_t.

    The filter's recurrence is m' = A (m + K (x - C m)) = A (1 - K C) m + A K x.
    """
    dim = len(truth.emission)
    output = OutputOptions("gaussian", min_sigma=FLOOR)
    options = VrnnOptions(kind, "lstm", 1, 1, num_layers=0, min_sigma=FLOOR, output=output)
    model = Vrnn(dim, options).double()
    C, P = truth.emission[:, 0], truth.initial.item()
    S = P * torch.outer(C, C) + truth.emission_noise
    K = P * C @ S.inverse()
    rest = 1 - (K @ C).item()
    set_recurrence(
        model, A * rest, [*(A * K).tolist(), 0.0] if kind == "vrnn" else (A * K).tolist()
    )
    if kind == "vrnn":
        set_linear(model.prior[1].linear, [[1 / SMALL], [0]], [0, raw(P**0.5)])
        inputs = [[*K.tolist(), rest / SMALL], [0] * (dim + 1)]
        set_linear(model.encoder[1].linear, inputs, [0, raw((rest * P) ** 0.5)])
        rows = [[[c, 0.0], [0.0, 0.0]] for c in C.tolist()]  # of z and h: mean, sigma
        sigmas = truth.emission_noise.diagonal().sqrt().tolist()
    else:  # without latents there is the predictive distribution of one value
        rows, sigmas = [[[C.item() / SMALL], [0.0]]], S.diagonal().sqrt().tolist()
    bias = [value for sigma in sigmas for value in (0.0, raw(sigma))]
    set_linear(model.output.parameters_of, [row for pair in rows for row in pair], bias)
    return model


def set_recurrence(model, forget, inputs):
    """h' = forget · h + inputs · (x, z)."""
    w_ih, w_hh, b_ih, b_hh = model.recurrence.all_weights[0]
    with torch.no_grad():
        for weights in (w_ih, w_hh, b_ih, b_hh):
            weights.zero_()
        b_ih[0], b_ih[1], b_ih[3] = OPEN, math.log(forget / (1 - forget)), OPEN  # i, f, o
        w_ih[2] = SMALL * double(inputs)  # g
