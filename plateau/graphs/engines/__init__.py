"""What computes on graphs: full sums with their gradients, and best paths.

Each engine is a module with the functions of `Engine`: ``k2``, by k2's intersection with a dense
FSA.
"""

import importlib
from typing import Protocol

import torch
from torch import Tensor

from plateau.graphs.graph import Graphs


class Engine(Protocol):
    """What an engine has; arguments are checked already."""

    NAME: str

    def totals(
        self, scores: Tensor, lengths: Tensor, graphs: Graphs, viterbi: float, delay_penalty: float
    ) -> Tensor:
        """(N,) float64: ``1 - viterbi`` times the log of the sum over paths, plus ``viterbi`` times
        the score of the best one; -inf where no path fits.

        Differentiable by the scores and by the graphs' weights.

        Args:
            scores: (N, T, V), nats.
            lengths: (N,), on the CPU.
            graphs: N.
            viterbi: 0 to 1.
            delay_penalty: see `plateau.graphs.dense.mixed_loss`.
        """

    def best_paths(
        self, scores: Tensor, lengths: Tensor, graphs: Graphs, search_beam: float
    ) -> list[tuple[list[int], list[int]]]:
        """Labels and outputs of the best paths, see `plateau.graphs.dense.best_paths`."""


def engine_for(device: torch.device) -> Engine:
    """The engine for scores on this device."""
    return importlib.import_module("plateau.graphs.engines.k2")
