"""Models as graphs: a model's total over a target is the total of their composition.

The same losses as in `plateau.graphs.dense`, slower, from graphs alone. A model is a graph that
accepts every sequence of T labels, its arc scores are its logits:

- a bias model is one state with a loop per label (`bias_graph`), cut to T frames (`clock`);
- a memory model is a chain of T positions with an arc per label (`memory_graph`);
- both at once are their composition, as is a model with a further graph that divides by a prior.

Logits need no softmax: the model's own total normalises, -log p = total(model) - total(model ∘
target), since every position of a chain normalises by itself.

Gradients reach the logits through the arc scores. Graphs are batched over runs: FsaVec of N.
"""

import numpy as np
import torch
from torch import Tensor

from plateau.graphs.dense import mixed_loss
from plateau.graphs.graph import END, Arc, Graphs, connect, splits_of, stack, token_graph


def bias_graph(bias: Tensor) -> Graphs:
    """N graphs of one state, with a loop per label that scores ``bias[n, label]``: (N, V)."""
    arcs = [Arc(0, 0, label, 0.0) for label in range(bias.shape[1])]
    # The arc to the final state is each graph's last, and scores 0.
    scores = torch.cat([bias, bias.new_zeros(len(bias), 1)], dim=1)  # (N, V + 1)
    return _graphs([*arcs, Arc(0, 1, END, 0.0)], scores)


def memory_graph(logits: Tensor) -> Graphs:
    """N chains of T + 1 states; from t to t + 1 an arc per label scores ``logits[n, t, label]``.

    Args:
        logits: (N, T, V).
    """
    num_runs, num_frames, num_labels = logits.shape
    arcs = [Arc(t, t + 1, label, 0.0) for t in range(num_frames) for label in range(num_labels)]
    scores = torch.cat([logits.flatten(1), logits.new_zeros(num_runs, 1)], dim=1)  # (N, T V + 1)
    return _graphs([*arcs, Arc(num_frames, num_frames + 1, END, 0.0)], scores)


def clock(num_runs: int, num_frames: int, num_labels: int) -> Graphs:
    """N graphs that accept any T labels for nothing: composed with a model, they cut it to T."""
    return memory_graph(torch.zeros(num_runs, num_frames, num_labels))


def prior_graph(log_prior: Tensor, scale: float = 1.0) -> Graphs:
    """N graphs that divide by a prior (N, V): a bias model of ``-scale * log_prior``."""
    return bias_graph(-scale * log_prior)


def compose(*graphs: Graphs) -> Graphs:
    """The graph whose paths are those that all graphs have, and whose scores add up.

    All are batches of N. Labels start at 0: none is an epsilon.
    """
    composed, *others = graphs
    for other in others:
        composed = _intersect(composed, other)
    return composed


def total(graphs: Graphs, log_semiring: bool = True) -> Tensor:
    """The log of the summed weight of all paths, or the weight of the best, in nats: (N,).

    The graphs must be acyclic. It is -inf where there is no path.
    """
    # The full sum over frames that score 0: a path that is over waits in what was the final state.
    n = graphs.num_states.nonzero()[:, 0]
    final = graphs.num_states[n].int() - 1
    order = torch.cat([graphs.graph_of_arc, n, n]).argsort(stable=True)
    nothing = torch.zeros_like(final)
    columns = [
        (graphs.sources, final, final),
        (graphs.targets, final, final + 1),
        (torch.zeros_like(graphs.labels), nothing, nothing + END),
        (graphs.weights, nothing, nothing),
        (graphs.outputs, nothing, nothing),
    ]
    counts = graphs.splits.diff() + 2 * (graphs.num_states > 0)
    waiting = Graphs(*(torch.cat(column)[order] for column in columns), splits_of(counts))
    num_frames = max(1, int(graphs.num_states.max()))  # no path has as many labels
    frames = torch.zeros(len(graphs), num_frames, 1, dtype=torch.float64)
    lengths = torch.full((len(graphs),), num_frames)
    return -mixed_loss(frames, lengths, waiting, 0.0 if log_semiring else 1.0)


def _intersect(first: Graphs, second: Graphs) -> Graphs:
    """All pairs of arcs with the same label, as arcs between pairs of states."""
    keys = [(g.graph_of_arc * 2**32 + g.labels).numpy() for g in (first, second)]
    by_key = keys[1].argsort(kind="stable")
    low, high = (np.searchsorted(keys[1][by_key], keys[0], side) for side in ("left", "right"))
    counts = high - low
    one = np.repeat(np.arange(len(low)), counts)
    within = np.arange(len(one)) - np.repeat(counts.cumsum() - counts, counts)
    other = by_key[low[one] + within]
    graph = first.graph_of_arc[one]
    states = second.num_states[graph]
    sources = first.sources[one] * states + second.sources[other]
    targets = first.targets[one] * states + second.targets[other]
    order = np.lexsort((sources, graph))
    counts = torch.bincount(graph, minlength=len(first))
    return connect(
        Graphs(
            sources[order].int(),
            targets[order].int(),
            first.labels[one][order],
            (first.weights[one] + second.weights[other])[order],
            torch.zeros(len(order), dtype=torch.int32),
            splits_of(counts),
        )
    )


def _graphs(arcs: list[Arc], scores: Tensor) -> Graphs:
    """N graphs of the same arcs, by source, with their scores (N, number of arcs)."""
    return stack([token_graph(arcs)] * len(scores)).with_weights(scores.flatten())
