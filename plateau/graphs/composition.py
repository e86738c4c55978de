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

import k2
import torch
from torch import Tensor


def bias_graph(bias: Tensor) -> k2.Fsa:
    """N graphs of one state, with a loop per label that scores ``bias[n, label]``: (N, V)."""
    num_labels = bias.shape[1]
    arcs = [f"0 0 {label} 0" for label in range(num_labels)]
    # The arc to the final state is each graph's last, and scores 0.
    scores = torch.cat([bias, bias.new_zeros(len(bias), 1)], dim=1)  # (N, V + 1)
    return _graphs([*arcs, "0 1 -1 0", "1"], scores)


def memory_graph(logits: Tensor) -> k2.Fsa:
    """N chains of T + 1 states; from t to t + 1 an arc per label scores ``logits[n, t, label]``.

    Args:
        logits: (N, T, V).
    """
    num_runs, num_frames, num_labels = logits.shape
    arcs = [f"{t} {t + 1} {label} 0" for t in range(num_frames) for label in range(num_labels)]
    ending = [f"{num_frames} {num_frames + 1} -1 0", str(num_frames + 1)]
    scores = torch.cat([logits.flatten(1), logits.new_zeros(num_runs, 1)], dim=1)  # (N, T V + 1)
    return _graphs([*arcs, *ending], scores)


def clock(num_runs: int, num_frames: int, num_labels: int) -> k2.Fsa:
    """N graphs that accept any T labels for nothing: composed with a model, they cut it to T."""
    return memory_graph(torch.zeros(num_runs, num_frames, num_labels))


def prior_graph(log_prior: Tensor, scale: float = 1.0) -> k2.Fsa:
    """N graphs that divide by a prior (N, V): a bias model of ``-scale * log_prior``."""
    return bias_graph(-scale * log_prior)


def compose(*graphs: k2.Fsa) -> k2.Fsa:
    """The graph whose paths are those that all graphs have, and whose scores add up.

    The first must be acyclic. Labels start at 0: none is an epsilon, unlike in `k2.compose`.
    """
    composed, *others = graphs
    for graph in others:
        composed = k2.connect(
            k2.intersect(k2.arc_sort(composed), k2.arc_sort(graph), treat_epsilons_specially=False)
        )
    return composed


def total(graphs: k2.Fsa, log_semiring: bool = True) -> Tensor:
    """The log of the summed weight of all paths, or the weight of the best, in nats: (N,)."""
    return k2.top_sort(graphs).get_tot_scores(log_semiring=log_semiring, use_double_scores=True)


def _graphs(lines: list[str], scores: Tensor) -> k2.Fsa:
    """N graphs of the same arcs, ``lines``, with their scores (N, number of arcs)."""
    graph = k2.Fsa.from_str("\n".join(lines), acceptor=True)
    graphs = k2.create_fsa_vec([graph] * len(scores))
    graphs.scores = scores.flatten().to(torch.float32)
    return graphs
