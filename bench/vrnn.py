"""The recurrence of a VRNN beside torch's fused LSTM, forward and backward. Needs no data."""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from plateau.config import UserError, cli
from plateau.machine import machine
from plateau.models.bounds import elbo
from plateau.models.vrnn import Vrnn, VrnnOptions


class Shape(NamedTuple):
    """Sequences, their steps, units of the recurrence, of features, and latents."""

    N: int
    T: int
    H: int
    F: int
    Z: int


SHAPES = (Shape(64, 250, 200, 100, 20), Shape(64, 250, 300, 150, 32), Shape(64, 250, 400, 200, 50))
SLOWER = 2.0  # the aim: at most so many times the time of the fused LSTM
FUSED, RECURRENCE = "fused LSTM", "recurrence of a VRNN"


class Problem:
    """A model, a batch, and a fused LSTM with the inputs and units of the model's recurrence.

    Args:
        shape: sizes; the values are strokes.
    """

    def __init__(self, shape: Shape) -> None:
        torch.manual_seed(0)
        N, T, H, F, Z = shape
        options = VrnnOptions("vrnn", "lstm", H, Z, feature_dim=F, latent_feature_dim=F)
        self.model = Vrnn(3, options)
        self.without_latents = Vrnn(3, VrnnOptions("rnn", "lstm", H, Z, feature_dim=F))
        self.lstm = nn.LSTM(2 * F, H, batch_first=True)
        self.inputs = torch.randn(N, T, 2 * F)  # φ_x and φ_z
        self.noise = torch.randn(N, T, Z)
        self.x = torch.randn(N, T, 3)
        self.x[..., 2] = self.x[..., 2].gt(1).float()
        self.lengths = torch.full((N,), T)


def fused(problem: Problem) -> Tensor:
    """All steps in one call, as it can be where the inputs of all steps are known."""
    return problem.lstm(problem.inputs)[0].sum()


def recurrence(problem: Problem) -> Tensor:
    """Encoder, draw, φ_z and cell, step by step, as the model does it."""
    x_features = problem.inputs[..., : problem.inputs.shape[2] // 2]
    past, posterior, _, z_features, _ = problem.model.read(x_features, problem.noise)
    return past.sum() + z_features.sum() + posterior.mean.sum() + posterior.stddev.sum()


def whole(problem: Problem) -> Tensor:
    """The bound of a VRNN."""
    return elbo(problem.model(problem.x, problem.lengths, problem.noise)).sum()


def whole_without_latents(problem: Problem) -> Tensor:
    """The likelihood of an RNN, whose recurrence is the fused one."""
    return elbo(problem.without_latents(problem.x, problem.lengths)).sum()


METHODS: dict[str, Callable[[Problem], Tensor]] = {
    FUSED: fused,
    RECURRENCE: recurrence,
    "VRNN, all of it": whole,
    "RNN, all of it": whole_without_latents,
}


def step(method: Callable[[Problem], Tensor], problem: Problem) -> tuple[float, float]:
    """Seconds forward and backward."""
    start = time.perf_counter()
    total = method(problem)
    between = time.perf_counter()
    total.backward()
    return between - start, time.perf_counter() - between


def measure(problem: Problem, repetitions: int) -> dict[str, list[tuple[float, float]]]:
    """All methods in turns, after one turn to warm up."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
    for repetition in range(repetitions + 1):
        for name, method in METHODS.items():
            taken = step(method, problem)
            if repetition:
                seconds[name].append(taken)
    return seconds


def slower(seconds: dict[str, list[tuple[float, float]]], name: str) -> float:
    """Time of a method over that of the fused LSTM, the median over the repetitions."""
    pairs = zip(seconds[name], seconds[FUSED], strict=True)
    return median(sum(one) / sum(other) for one, other in pairs)


def main(repetitions: int = 5) -> None:
    """Print what the loop over time costs.

    Args:
        repetitions: how often everything is timed; medians are printed
    """
    if repetitions < 1:
        raise UserError("--repetitions must be at least 1")
    print(machine())
    print(f"float32, strokes, a mixture of 20; {repetitions} repetitions, medians\n")
    print(f"{'':22}{'forward':>9}{'backward':>10}{'ratio':>8}{'sequences':>11}")
    print(f"{'':22}{'ms':>9}{'ms':>10}{'':8}{'a second':>11}")
    for shape in SHAPES:
        print(f"\nN, T, H, F, Z = {', '.join(map(str, shape))}")
        seconds = measure(Problem(shape), repetitions)
        for name, taken in seconds.items():
            forward, backward = (1000 * median(part) for part in zip(*taken, strict=True))
            rate = shape.N / median(map(sum, taken))
            ratio = slower(seconds, name)
            print(f"{name:22}{forward:9.0f}{backward:10.0f}{ratio:8.2f}{rate:11.1f}")
        met = "met" if slower(seconds, RECURRENCE) <= SLOWER else "not met"
        print(f"recurrence ≤ {SLOWER:g} × the time of the fused LSTM: {met}")


if __name__ == "__main__":
    cli(main)
