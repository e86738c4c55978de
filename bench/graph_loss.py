"""Graph losses by each engine, and torch's ctc_loss: time, forward and backward. Needs no data."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from plateau.config import UserError, cli
from plateau.graphs.engines import NEEDS, EngineName, GraphOptions, use_engine
from plateau.graphs.loss import graph_loss
from plateau.machine import machine


class Shape(NamedTuple):
    """Utterances, frames, labels of each, and labels that there are, with blank."""

    N: int
    T: int
    U: int
    V: int


SHAPES = (
    Shape(16, 400, 50, 500),
    Shape(16, 400, 50, 40),
    Shape(30, 300, 60, 40),
    Shape(200, 100, 1, 2),
)
TOPOLOGIES = ("ctc", "silence", "hmm")  # the last with a prior
WORD = 5  # labels of one
SURE = 12.0  # logit of an alignment's label, as a trained model's
TORCH = "torch"
# Of native's time, what the others should take at least.
AIMS = {(TORCH, "flat"): 4.0, (TORCH, "sure"): 4.0, ("k2", "flat"): 15.0, ("k2", "sure"): 5.0}
TOLERANCE = 1e-4  # float32 sums, over hundreds of frames


class Problem:
    """Transcripts and log-probabilities of a shape.

    Args:
        shape: every utterance has T frames and U labels.
        sure: logits that are sure of an alignment, not flat ones.
    """

    def __init__(self, shape: Shape, sure: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        N, T, U, V = shape
        # Neighbours differ: equal ones would need a frame more in some topologies.
        steps = torch.randint(1, max(V - 1, 2), (N, U), generator=generator)
        self.targets = 1 + steps.cumsum(1) % (V - 1)  # (N, U)
        self.transcripts = [
            [row[i : i + WORD] for i in range(0, U, WORD)] for row in self.targets.tolist()
        ]
        self.lengths, self.sizes = torch.full((N,), T), torch.full((N,), U)
        logits = 0.1 * torch.randn(N, T, V, generator=generator)
        if sure:  # each label for its share of the frames
            owners = torch.arange(T) * U // T  # (T,)
            logits.scatter_add_(2, self.targets[:, owners, None], torch.full((N, T, 1), SURE))
        self.log_probs = logits.log_softmax(2).requires_grad_()  # (N, T, V)
        self.log_prior = torch.randn(V, generator=generator).log_softmax(0)


def by_engine(problem: Problem, topology: str) -> Tensor:
    """Losses (N,) by the engine that is in use, from transcripts on."""
    return graph_loss(
        problem.log_probs,
        problem.lengths,
        problem.transcripts,
        topology,
        log_prior=problem.log_prior if topology == "hmm" else None,
        prior_scale=0.5,
    )


def by_torch(problem: Problem, topology: str) -> Tensor:
    """Losses (N,) of torch, which knows the topology of CTC alone."""
    log_probs = problem.log_probs.transpose(0, 1)  # (T, N, V)
    return torch.nn.functional.ctc_loss(
        log_probs, problem.targets, problem.lengths, problem.sizes, reduction="none"
    )


class Taken(NamedTuple):
    """Seconds of one loss with its gradient."""

    wall: float
    cpu: float  # of all threads


def measure(loss: Callable[[Problem, str], Tensor], problem: Problem, topology: str) -> Taken:
    """The time of a loss, from transcripts and log-probabilities on, forward and backward."""
    problem.log_probs.grad = None
    wall, cpu = time.perf_counter(), time.process_time()
    loss(problem, topology).sum().backward()
    return Taken(time.perf_counter() - wall, time.process_time() - cpu)


def methods() -> dict[str, Callable[[Problem, str], Tensor]]:
    """By name: the engines that are installed, and torch."""

    def with_engine(name: EngineName) -> Callable[[Problem, str], Tensor]:
        def loss(problem: Problem, topology: str) -> Tensor:
            use_engine(GraphOptions(engine=name))
            return by_engine(problem, topology)

        return loss

    found = {name: with_engine(name) for name in NEEDS if find_spec(NEEDS[name]) is not None}
    return {**found, TORCH: by_torch}


def check_same(problem: Problem, topology: str) -> None:
    """See that all methods have the same losses.

    Raises:
        UserError: they have not.
    """
    with torch.no_grad():
        losses = {
            name: loss(problem, topology)
            for name, loss in methods().items()
            if name != TORCH or topology == "ctc"
        }
    (first, expected), *others = losses.items()
    for name, values in others:
        if not torch.allclose(values, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise UserError(f"{topology}: the losses of {first} and {name} differ")


def main(repetitions: int = 5, threads: int = 1) -> None:
    """Print a table for each shape.

    Args:
        repetitions: of each measurement; medians are taken
        threads: of torch, and of our engine
    """
    if repetitions < 1 or threads < 1:
        raise UserError("--repetitions and --threads must be at least 1")
    torch.set_num_threads(threads)
    print(f"{machine()}; {repetitions} repetitions, medians")
    for shape in SHAPES:
        print(f"\n(N, T, U, V) = {tuple(shape)}\n{'':24}  ms  CPU ms  ratio")
        for sure in (False, True):
            problem = Problem(shape, sure)
            kind = "sure" if sure else "flat"
            for topology in TOPOLOGIES:
                check_same(problem, topology)
                for loss in methods().values():
                    measure(loss, problem, topology)  # compiles, too
                taken: dict[str, list[Taken]] = {name: [] for name in methods()}
                for _ in range(repetitions):
                    for name, loss in methods().items():
                        taken[name].append(measure(loss, problem, topology))
                base = next(iter(taken))
                for name, times in taken.items():
                    ratio = median(
                        one.cpu / of_base.cpu
                        for one, of_base in zip(times, taken[base], strict=True)
                    )
                    aim = AIMS.get((name, kind))
                    print(
                        f"{topology:8} {kind} {name:8}"
                        f"{1000 * median(t.wall for t in times):8.1f}"
                        f"{1000 * median(t.cpu for t in times):8.1f}{ratio:7.2f}"
                        + (f"  {'ok' if ratio >= aim else f'below {aim:g}'}" if aim else "")
                    )


if __name__ == "__main__":
    cli(main)
