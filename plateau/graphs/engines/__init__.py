"""What computes on graphs: full sums with their gradients, and best paths.

Each engine is a module with the functions of `Engine`:

- ``native``: ours, on CPU. It sums over all paths, and needs numba alone.
- ``k2``: k2's intersection with a dense FSA, on CPU and CUDA. It prunes (`OUTPUT_BEAM`).
"""

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, Protocol

import torch
from torch import Tensor

from plateau.errors import UserError
from plateau.graphs.graph import Graphs
from plateau.ranges import check_options

EngineName = Literal["native", "k2"]
NEEDS: dict[EngineName, str] = {"native": "numba", "k2": "k2"}  # the package of each

_chosen: EngineName | None = None  # None: whichever suits the device


@dataclass(frozen=True)
class GraphOptions:
    """How losses, alignments and searches on graphs are computed.

    Args:
        engine:
            - auto: native on CPU, k2 on CUDA; the other one where that is not installed
            - native: ours; exact, compiled at the first use. On CUDA, scores go by way of the CPU
            - k2: k2, where it is installed
    """

    engine: Literal["auto", "native", "k2"] = "auto"

    def __post_init__(self) -> None:
        check_options(self, "graphs")


class Engine(Protocol):
    """What an engine has; arguments are checked already."""

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


def use_engine(options: GraphOptions) -> None:
    """Choose the engine of this process.

    Raises:
        UserError: it is not installed.
    """
    global _chosen
    if options.engine == "auto":
        _chosen = None
        return
    if find_spec(NEEDS[options.engine]) is None:
        raise UserError(
            f"graphs.engine={options.engine}: {NEEDS[options.engine]} is not installed here; "
            "take graphs.engine=auto"
        )
    _chosen = options.engine


def engine_name(device: torch.device | str) -> EngineName:
    """The engine for scores on this device.

    Raises:
        UserError: there is none.
    """
    if _chosen is not None:
        return _chosen
    order = ("native", "k2") if torch.device(device).type == "cpu" else ("k2", "native")
    for name in order:
        if find_spec(NEEDS[name]) is not None:
            return name
    raise UserError("losses and searches on graphs need numba or k2, and neither is installed here")


def engine_for(device: torch.device | str) -> Engine:
    """The engine for scores on this device."""
    return importlib.import_module(f"plateau.graphs.engines.{engine_name(device)}")
