"""Graphs as the kernels of the native engine take them."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from plateau.graphs.graph import Graphs

MOST = 20.0


class Layout(NamedTuple):
    """N graphs for the kernels. Columns are what of a frame's scores a graph reads, each once.

    States and columns are numbered within their graph, arcs throughout. Arcs that end have lists
    of their own.
    """

    state_splits: np.ndarray  # (N + 1,), first state of each graph, without final states
    column_splits: np.ndarray  # (N + 1,)
    end_splits: np.ndarray  # (N + 1,)
    labels: np.ndarray  # (C,), of each column
    begins: np.ndarray  # (C,), 1.0 where a token begins, else 0.0
    into: np.ndarray  # (S + 1,), places in `arcs_in` of the arcs into each state
    arcs_in: np.ndarray  # (A,), arcs by their target
    out_of: np.ndarray  # (S + 1,), first arc out of each state
    sources: np.ndarray  # (A,)
    targets: np.ndarray  # (A,)
    columns: np.ndarray  # (A,)
    weights: np.ndarray  # (A,), nats
    end_sources: np.ndarray  # (E,)
    end_weights: np.ndarray  # (E,), nats
    moderate: np.ndarray  # (N,), bool: whether there are arcs of both kinds, of MOST nats at most


@lru_cache(maxsize=4)  # the same graphs come again in decoding, and for a soft alignment
def layout_of(graphs: Graphs, with_beginnings: bool) -> Layout:
    """The layout of a batch.

    Args:
        graphs: N.
        with_beginnings: whether arcs with an output have columns of their own.

    Raises:
        ValueError: an arc with a label enters or leaves the final state.
    """
    sources, targets, labels, outputs = (
        x.numpy().astype(np.int64)
        for x in (graphs.sources, graphs.targets, graphs.labels, graphs.outputs)
    )
    weights = graphs.weights.detach().cpu().double().numpy()
    graph, reads = graphs.graph_of_arc.numpy(), labels >= 0
    sizes = np.maximum(graphs.num_states.numpy() - 1, 0)  # without the final state
    if (np.maximum(sources, targets)[reads] >= sizes[graph[reads]]).any():
        raise ValueError("an arc with a label must neither enter nor leave the final state")
    state_splits = np.append(0, sizes.cumsum())
    states = np.arange(state_splits[-1] + 1)
    of_graph = graph[reads]
    begins = (outputs[reads] > 0) & with_beginnings
    keys, columns = np.unique(of_graph << 33 | labels[reads] << 1 | begins, return_inverse=True)
    column_splits = np.searchsorted(keys, np.arange(len(graphs) + 1) << 33)
    largest = np.full((2, len(graphs)), -np.inf)
    np.maximum.at(largest, (reads.astype(np.int64), graph), weights)
    target = targets[reads] + state_splits[of_graph]
    arcs_in = target.argsort(kind="stable")
    return Layout(
        state_splits=state_splits,
        column_splits=column_splits,
        end_splits=np.append(0, np.bincount(graph[~reads], minlength=len(graphs)).cumsum()),
        labels=(keys >> 1 & 0xFFFFFFFF).astype(np.uint32),
        begins=(keys & 1).astype(np.float64),
        into=np.searchsorted(target[arcs_in], states),
        arcs_in=arcs_in,
        out_of=np.searchsorted(sources[reads] + state_splits[of_graph], states),
        sources=sources[reads].astype(np.uint32),
        targets=targets[reads].astype(np.uint32),
        columns=(columns - column_splits[of_graph]).astype(np.uint32),
        weights=weights[reads],
        end_sources=sources[~reads].astype(np.uint32),
        end_weights=weights[~reads],
        moderate=(np.isfinite(largest) & (largest <= MOST)).all(0),
    )
