"""Pruned and full transducer losses: time and memory, forward and backward. Needs no data."""

import importlib.util
import multiprocessing
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from plateau.alignment.transducer import blank_and_label, full_sum, lattice_log_probs
from plateau.config import UserError, cli
from plateau.graphs.transducer import full_loss, pruned_loss, simple_loss
from plateau.machine import machine
from plateau.models.joiner import Joiner, JoinerOptions
from plateau.models.transducer import TransducerOutput


class Shape(NamedTuple):
    """Utterances, frames, labels of each, and labels that there are, with blank."""

    N: int
    T: int
    U: int
    V: int


JOINER_DIM = 512  # J
PRUNE_RANGE = 5  # s
SHAPES = (
    Shape(8, 100, 20, 500),
    Shape(8, 200, 50, 500),
    Shape(8, 400, 100, 500),
    Shape(8, 400, 100, 5000),
)
TARGET_SHAPE, FASTER, SMALLER = SHAPES[1], 4.0, 5.0
# How many tensors of all scores there are at once, about: scores, their logarithms, gradients.
COPIES = 7
# Losses are sums over thousands of frames in float32, in different orders.
TOLERANCE = 1e-4


class Problem(nn.Module):
    """What a model hands to its loss: everything of it has a gradient.

    Args:
        shape: the batch; every utterance has T frames and U labels.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        torch.manual_seed(0)
        N, T, U, V = shape
        self.encoder = nn.Parameter(torch.randn(N, T, JOINER_DIM))
        self.predictor = nn.Parameter(torch.randn(N, U + 1, JOINER_DIM))
        self.joiner = Joiner(JOINER_DIM, JOINER_DIM, V, JoinerOptions(dim=JOINER_DIM))
        self.am = nn.Linear(JOINER_DIM, V)
        self.lm = nn.Linear(JOINER_DIM, V)
        self.targets = torch.randint(1, V, (N, U))
        self.lengths, self.target_lengths = torch.full((N,), T), torch.full((N,), U)

    def log_probs(self) -> Tensor:
        """Of all labels at every frame and position: (N, T, U + 1, V)."""
        return self.joiner(self.encoder.unsqueeze(2), self.predictor.unsqueeze(1))


def pruned(problem: Problem) -> Tensor:
    """The simple loss, which finds what to keep, and the pruned one."""
    targets, lengths = problem.targets.tolist(), problem.lengths
    am, lm = problem.am(problem.encoder), problem.lm(problem.predictor)
    simple, ranges = simple_loss(am, lm, targets, lengths, prune_range=PRUNE_RANGE)
    return simple + pruned_loss(
        problem.encoder, problem.predictor, problem.joiner, ranges, targets, lengths
    )


def full_k2(problem: Problem) -> Tensor:
    """k2's, of all scores."""
    return full_loss(problem.log_probs(), problem.targets.tolist(), problem.lengths)


def full_torchaudio(problem: Problem) -> Tensor:
    """torchaudio's, of all scores."""
    from torchaudio.functional import rnnt_loss  # not on every machine

    numbers = (problem.targets, problem.lengths, problem.target_lengths)
    return rnnt_loss(problem.log_probs(), *(x.int() for x in numbers), blank=0, reduction="none")


def full_torch(problem: Problem) -> Tensor:
    """In plain torch, of all scores."""
    scores = blank_and_label(problem.log_probs(), problem.targets)
    return full_sum(*scores, problem.lengths, problem.target_lengths)


def full_torch_pieces(problem: Problem) -> Tensor:
    """In plain torch, with the scores of some frames at a time, and again for gradients."""
    output = TransducerOutput(
        lengths=problem.lengths,
        encoder=problem.encoder,
        predictor=problem.predictor,
        am=problem.am(problem.encoder),
        lm=problem.lm(problem.predictor),
        ctc={},
    )
    scores = lattice_log_probs(problem, output, problem.targets)
    return full_sum(*scores, problem.lengths, problem.target_lengths)


@dataclass(frozen=True)
class Method:
    """A way to compute a loss.

    Args:
        loss: from a problem to losses (N,).
        all_scores: whether it has the joiner's output (N, T, U + 1, V) in memory.
        module: that it needs.
    """

    loss: Callable[[Problem], Tensor]
    all_scores: bool = True
    module: str = "torch"

    @property
    def installed(self) -> bool:
        """Whether its module is there."""
        return importlib.util.find_spec(self.module) is not None

    def gib(self, shape: Shape) -> float:
        """Memory that it needs, about."""
        N, T, U, V = shape
        return COPIES * N * T * (U + 1 if self.all_scores else PRUNE_RANGE) * V * 4 / 2**30


FULL, PRUNED = "full, k2", "pruned, k2"
METHODS = {
    FULL: Method(full_k2),
    PRUNED: Method(pruned, all_scores=False),
    "full, torchaudio": Method(full_torchaudio, module="torchaudio"),
    "full, plain torch": Method(full_torch),
    "the same, in pieces": Method(full_torch_pieces, all_scores=False),
}


def step(method: Method, problem: Problem) -> tuple[float, float, Tensor]:
    """Seconds forward, seconds backward, and the losses (N,)."""
    problem.zero_grad(set_to_none=True)
    start = time.perf_counter()
    losses = method.loss(problem)
    between = time.perf_counter()
    losses.sum().backward()
    return between - start, time.perf_counter() - between, losses.detach()


def memory(name: str, shape: Shape, threads: int) -> float:
    """MiB that a step needs at its peak, beyond its inputs. The process should be a fresh one."""
    torch.set_num_threads(threads)
    step(METHODS[name], Problem(Shape(2, 20, 5, 50)))  # libraries are loaded
    problem = Problem(shape)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what there is
    before = _peak_mib()
    step(METHODS[name], problem)
    return _peak_mib() - before


def memory_in_a_fresh_process(name: str, shape: Shape) -> float:
    """What `memory` says there."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(memory, (name, shape, torch.get_num_threads()))


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 2**10


def check_same(losses: dict[str, Tensor]) -> None:
    """Full sums are the same by every method.

    Raises:
        RuntimeError: they are not, and their times cannot be compared.
    """
    expected = losses[FULL]
    for name, other in losses.items():
        difference = ((other - expected) / expected).abs().max().item()
        if name != PRUNED and not difference < TOLERANCE:
            raise RuntimeError(f"{name}: losses differ from those of {FULL} by {difference:.0e}")


@dataclass(frozen=True)
class Measured:
    """Seconds of each repetition, and the peak in MiB."""

    forward: list[float]
    backward: list[float]
    mib: float

    @property
    def both(self) -> list[float]:
        """Forward and backward."""
        return [a + b for a, b in zip(self.forward, self.backward, strict=True)]


def measure(names: list[str], shape: Shape, repetitions: int) -> dict[str, Measured]:
    """Some methods, in turns; memory afterwards, each in a process of its own."""
    problem = Problem(shape)
    losses = {name: step(METHODS[name], problem)[2] for name in names}  # to warm up
    if FULL in losses:
        check_same(losses)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(repetitions):
        for name in names:
            seconds[name].append(step(METHODS[name], problem)[:2])
    del problem, losses
    measured = {}
    for name in names:
        forward, backward = zip(*seconds[name], strict=True)
        mib = memory_in_a_fresh_process(name, shape)
        measured[name] = Measured(list(forward), list(backward), mib)
    return measured


def faster(measured: dict[str, Measured], name: str) -> float:
    """Time of the full loss over that of a method."""
    pairs = zip(measured[FULL].both, measured[name].both, strict=True)
    return median(full / other for full, other in pairs)


def smaller(measured: dict[str, Measured], name: str) -> float:
    """Memory of the full loss over that of a method."""
    return measured[FULL].mib / measured[name].mib


def print_rows(shape: Shape, measured: dict[str, Measured], max_gib: float) -> None:
    """The table's part for a shape."""
    print(f"\nN, T, U, V = {', '.join(map(str, shape))}")
    for name, method in METHODS.items():
        if not method.installed:
            print(f"{name:22}  {method.module} is not installed")
            continue
        if name not in measured:
            print(f"{name:22}  left out: about {method.gib(shape):.0f} GiB, more than {max_gib:g}")
            continue
        row = measured[name]
        ratios = f"{'–':>8}", f"{'–':>8}"
        if FULL in measured:
            ratios = f"{faster(measured, name):8.2f}", f"{smaller(measured, name):8.2f}"
        forward, backward = 1000 * median(row.forward), 1000 * median(row.backward)
        print(f"{name:22}{forward:9.0f}{backward:10.0f}{ratios[0]}{row.mib:10.0f}{ratios[1]}")


def main(repetitions: int = 5, max_gib: float = 8.0) -> None:
    """Print what transducer losses cost, beside k2's full one.

    Args:
        repetitions: how often everything is timed; medians are printed
        max_gib: what needs more memory is left out
    """
    if repetitions < 1 or max_gib <= 0:
        raise UserError("--repetitions must be at least 1, and --max-gib more than 0")
    print(machine())
    print(
        f"float32, J = {JOINER_DIM}, s = {PRUNE_RANGE}, RNN-T topology; "
        f"{repetitions} repetitions, medians\n"
    )
    print(f"{'':22}{'forward':>9}{'backward':>10}{'ratio':>8}{'memory':>10}{'ratio':>8}")
    print(f"{'':22}{'ms':>9}{'ms':>10}{'':8}{'MiB':>10}")
    for shape in SHAPES:
        fitting = [name for name, m in METHODS.items() if m.installed and m.gib(shape) <= max_gib]
        measured = measure(fitting, shape, repetitions)
        print_rows(shape, measured, max_gib)
        if shape == TARGET_SHAPE and {FULL, PRUNED} <= measured.keys():
            for ratio, limit, what in (
                (faster(measured, PRUNED), FASTER, "faster"),
                (smaller(measured, PRUNED), SMALLER, "smaller"),
            ):
                met = "met" if ratio >= limit else "not met"
                print(f"pruned ≥ {limit:g} × {what} than full: {met}")


if __name__ == "__main__":
    cli(main)
