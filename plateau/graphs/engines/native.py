"""The engine of our own: exact, on CPU, compiled by numba when it is first used.

Each utterance is computed by one thread, so results do not depend on how many there are. Scores on
another device are brought to the CPU, and gradients back.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plateau.graphs.engines import kernels
from plateau.graphs.engines.layout import Layout, layout_of
from plateau.graphs.graph import END, Graphs

WORTH_THREADS = 500_000  # arcs, of all frames together: less is done before threads have started


def totals(
    scores: Tensor, lengths: Tensor, graphs: Graphs, viterbi: float, delay_penalty: float
) -> Tensor:
    """See `plateau.graphs.engines.Engine`."""
    total = 0.0
    if viterbi < 1:
        total = (1 - viterbi) * _FullSum.apply(
            scores, graphs.weights, lengths, graphs, delay_penalty
        )
    if viterbi > 0:
        total = total + viterbi * _best_scores(scores, lengths, graphs, delay_penalty)
    return total


def best_paths(
    scores: Tensor, lengths: Tensor, graphs: Graphs, search_beam: float
) -> list[tuple[list[int], list[int]]]:
    """See `plateau.graphs.engines.Engine`."""
    n, _, arcs, _ = _best_arcs(scores, lengths, graphs, 0.0, search_beam)
    counts = torch.bincount(n, minlength=len(lengths)).tolist()
    labels, outputs = (values[arcs].split(counts) for values in (graphs.labels, graphs.outputs))
    return [(x.tolist(), y.tolist()) for x, y in zip(labels, outputs, strict=True)]


class _FullSum(torch.autograd.Function):
    """The log of the sum over paths (N,); γ is computed with it, as nearly always it is wanted."""

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        weights: Tensor,
        lengths: Tensor,
        graphs: Graphs,
        delay_penalty: float,
    ) -> Tensor:
        layout = layout_of(graphs, delay_penalty != 0)
        values = _array(scores)
        num_columns = int(np.diff(layout.column_splits).max(initial=0))
        gamma = np.empty((*values.shape[:2], num_columns), values.dtype)  # (N, T, C)
        arc_gamma = np.zeros(len(layout.weights) if ctx.needs_input_grad[1] else 0)
        end_gamma = np.zeros(len(layout.end_weights))
        sums = np.empty(len(graphs))
        arguments = (
            layout, values, lengths.numpy(), delay_penalty, gamma, arc_gamma, end_gamma, sums
        )  # fmt: skip
        _run(kernels.scaled_sums, np.arange(len(graphs)), *arguments)
        _run(kernels.exact_sums, np.isnan(sums).nonzero()[0], *arguments)
        ctx.arrays = layout, lengths, gamma, arc_gamma, end_gamma
        ctx.shape, ctx.labels, ctx.graph_of_arc = values.shape, graphs.labels, graphs.graph_of_arc
        return torch.from_numpy(sums).to(scores.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factors: Tensor) -> tuple[Tensor | None, ...]:
        layout, lengths, gamma, arc_gamma, end_gamma = ctx.arrays
        device, factors = factors.device, factors.cpu()
        of_scores = of_weights = None
        if ctx.needs_input_grad[0]:
            gradient = np.zeros(ctx.shape, gamma.dtype)  # (N, T, V)
            which = np.arange(len(lengths))
            _run(kernels.spread, which, layout, gamma, lengths.numpy(), factors.numpy(), gradient)
            of_scores = torch.from_numpy(gradient).to(device)
        if ctx.needs_input_grad[1]:
            of_weights = factors[ctx.graph_of_arc]
            reads = ctx.labels != END
            of_weights[reads] *= torch.from_numpy(arc_gamma)
            of_weights[~reads] *= torch.from_numpy(end_gamma)
        return of_scores, of_weights, None, None, None


def _best_scores(scores: Tensor, lengths: Tensor, graphs: Graphs, delay_penalty: float) -> Tensor:
    """Scores of the best paths (N,), by autograd differentiable; -inf where there is none."""
    n, t, arcs, ends = _best_arcs(scores, lengths, graphs, delay_penalty, np.inf)
    device, fits = scores.device, ends >= 0
    frames = n.to(device), t.to(device), graphs.labels[arcs].long().to(device)
    weights = graphs.weights.to(device)
    on_path = scores[frames].double() + weights[arcs].double()
    if delay_penalty:
        early = (lengths[n] - 1) / 2 - t
        on_path = on_path + (delay_penalty * early * (graphs.outputs[arcs] > 0)).to(device)
    total = torch.where(fits, 0.0, -torch.inf).double().to(device)  # (N,)
    total = total.index_add(0, fits.nonzero()[:, 0].to(device), weights[ends[fits]].double())
    return total.index_add(0, frames[0], on_path)


def _best_arcs(
    scores: Tensor, lengths: Tensor, graphs: Graphs, delay_penalty: float, beam: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best paths: of each frame its utterance, its number and its arc, one after the other.

    And the arcs that end the paths (N,), -1 where none fits.
    """
    layout = layout_of(graphs, delay_penalty != 0)
    paths = np.empty(scores.shape[:2], np.int64)
    last = np.empty(len(scores), np.int64)
    arguments = layout, _array(scores), lengths.numpy(), delay_penalty, beam, paths, last
    _run(kernels.best_paths, np.arange(len(scores)), *arguments)
    paths, ends = torch.from_numpy(paths), torch.from_numpy(last)
    fits = ends >= 0
    within = torch.arange(scores.shape[1]) < lengths[:, None]  # (N, T)
    n, t = (within & fits[:, None]).nonzero().t()
    # The kernels number arcs that read a frame, and those that end, each for themselves.
    reads = graphs.labels != END
    ends[fits] = (~reads).nonzero()[:, 0][ends[fits]]
    return n, t, reads.nonzero()[:, 0][paths[n, t]], ends


def _array(scores: Tensor) -> np.ndarray:
    """Scores (N, T, V) for the kernels, as float32 if they are neither that nor double."""
    scores = scores.detach().cpu()
    return (scores if scores.dtype == torch.float64 else scores.float()).contiguous().numpy()


def _run(kernel: Callable[..., None], which: np.ndarray, layout: Layout, *arguments: Any) -> None:
    """Call a kernel for some utterances, in as many threads as torch has."""
    threads = min(torch.get_num_threads(), len(which))
    num_frames = arguments[0].shape[1]
    if threads > 1 and len(layout.sources) * num_frames >= WORTH_THREADS:
        with ThreadPoolExecutor(threads) as pool:
            parts = [which[part::threads] for part in range(threads)]
            for _ in pool.map(lambda part: kernel(part, layout, *arguments), parts):
                pass
    elif len(which):
        kernel(which, layout, *arguments)
