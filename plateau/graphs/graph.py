"""Graphs as plain data: batches of finite-state acceptors, each of whose arcs reads a frame.

State 0 of a graph starts, its largest state is the final one. Arcs with label -1 lead there, and
read no frame; all others read one, and have labels from 0 on: none is an epsilon.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order
from torch import Tensor

END = -1  # the label of arcs that lead to the final state


class Arc(NamedTuple):
    """One arc of a graph; ``label`` -1 leads to the final state and reads no frame."""

    source: int
    target: int
    label: int
    score: float  # log weight, nats


@dataclass(frozen=True, eq=False)
class Graphs:
    """N graphs, with all their A arcs one after the other, by graph and within it by source.

    Args:
        sources: (A,) int32, states within their graph.
        targets: (A,) int32.
        labels: (A,) int32, 0 … V - 1 of the frame that is read, or -1.
        weights: (A,) log weights, nats; losses have a gradient by them where they require one.
        outputs: (A,) int32, what begins with the frame, such as a token; 0 for nothing.
        splits: (N + 1,) int64; the arcs of graph n are ``splits[n]`` to ``splits[n + 1] - 1``.
    """

    sources: Tensor
    targets: Tensor
    labels: Tensor
    weights: Tensor
    outputs: Tensor
    splits: Tensor

    def __len__(self) -> int:
        return len(self.splits) - 1

    def __getitem__(self, which: int | slice) -> "Graphs":
        """A graph, or several next to each other, as a batch."""
        if isinstance(which, int):
            which = slice(which, which + 1 or None)
        first, last, step = which.indices(len(self))
        if step != 1:
            raise ValueError("graphs of a batch are taken in their order, without gaps")
        splits = self.splits[first : max(first, last) + 1]
        part = slice(int(splits[0]), int(splits[-1]))
        return Graphs(*(values[part] for values in self.of_arcs), splits - splits[0])

    @property
    def of_arcs(self) -> tuple[Tensor, ...]:
        """All that arcs have: sources, targets, labels, weights, outputs."""
        return self.sources, self.targets, self.labels, self.weights, self.outputs

    @property
    def num_states(self) -> Tensor:
        """States of each graph: (N,); 0 where it has no arcs."""
        sizes = torch.zeros(len(self), dtype=torch.int64)
        largest = torch.maximum(self.sources, self.targets).numpy()
        np.maximum.at(sizes.numpy(), self.graph_of_arc.numpy(), largest + 1)
        return sizes

    @property
    def graph_of_arc(self) -> Tensor:
        """The number of each arc's graph: (A,)."""
        return torch.arange(len(self)).repeat_interleave(self.splits.diff())

    def with_weights(self, weights: Tensor) -> "Graphs":
        """The same arcs with other weights (A,)."""
        return replace(self, weights=weights)


def splits_of(counts: Tensor) -> Tensor:
    """Where so many (N,) things of each begin, and the last end: (N + 1,)."""
    return F.pad(counts.cumsum(0), (1, 0))


def stack(graphs: Sequence[Graphs]) -> Graphs:
    """Batches as one batch."""
    counts = torch.cat([g.splits.diff() for g in graphs])
    values = zip(*(g.of_arcs for g in graphs), strict=True)
    return Graphs(*map(torch.cat, values), splits_of(counts))


def from_arcs(arcs: Sequence[Arc]) -> Graphs:
    """A graph of these arcs, without those that are on no path."""
    graph = token_graph(sorted(arcs))
    return connect(replace(graph, outputs=torch.zeros_like(graph.outputs)))


def token_graph(arcs: Sequence[tuple[int, int, int, float]]) -> Graphs:
    """A graph of arcs (source, target, label, weight) as they are; outputs are their labels."""
    arcs = sorted(arcs, key=lambda arc: arc[0])
    table = torch.tensor([arc[:3] for arc in arcs], dtype=torch.int32)  # (A, 3)
    weights = torch.tensor([arc[3] for arc in arcs])
    sources, targets, labels = table.t().contiguous()
    return Graphs(
        sources, targets, labels, weights, labels.clamp(min=0), torch.tensor([0, len(arcs)])
    )


def arcs_of(graph: Graphs) -> list[Arc]:
    """The arcs of a batch of one graph.

    Raises:
        ValueError: there are more graphs, or none.
    """
    if len(graph) != 1:
        raise ValueError(f"the arcs of one graph were wanted, of {len(graph)}")
    columns = (values.tolist() for values in graph.of_arcs[:4])
    return [Arc(*arc) for arc in zip(*columns, strict=True)]


def connect(graphs: Graphs) -> Graphs:
    """The same graphs without states that no path goes through; others keep their order."""
    sizes = graphs.num_states
    first = (sizes.cumsum(0) - sizes)[graphs.graph_of_arc].numpy()  # of an arc's graph
    total = int(sizes.sum())
    sources, targets = graphs.sources.numpy() + first, graphs.targets.numpy() + first
    starts = (sizes.cumsum(0) - sizes)[sizes > 0].numpy()
    finals = np.unique(targets[graphs.labels.numpy() == END])
    # From the initial states along the arcs, and from the final ones against them.
    kept = _reached(sources, targets, starts, total) & _reached(targets, sources, finals, total)
    numbers = kept.cumsum() - 1
    on_path = kept[sources] & kept[targets]
    index = torch.from_numpy(on_path.nonzero()[0])
    # Of a graph without a path no state is left, and there the first one's number means nothing.
    base = numbers[first[on_path]]
    counts = torch.bincount(graphs.graph_of_arc[index], minlength=len(graphs))
    return Graphs(
        torch.from_numpy((numbers[sources[on_path]] - base).astype(np.int32)),
        torch.from_numpy((numbers[targets[on_path]] - base).astype(np.int32)),
        graphs.labels[index],
        graphs.weights[index],
        graphs.outputs[index],
        splits_of(counts),
    )


def _reached(sources: np.ndarray, targets: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """Which of so many states arcs lead to, from some of them: (size,) bool."""
    outside = np.full(len(starts), size)  # a state more, from which arcs lead to the first ones
    rows, columns = np.concatenate([sources, outside]), np.concatenate([targets, starts])
    ways = csr_array((np.ones(len(rows)), (rows, columns)), shape=(size + 1, size + 1))
    reached = np.zeros(size + 1, dtype=bool)
    reached[breadth_first_order(ways, size, return_predecessors=False)] = True
    return reached[:size]


def draw(graph: Graphs, path: Path, title: str | None = None) -> None:
    """Write a graph in the language of Graphviz (``dot -Tsvg`` draws it)."""
    arcs = arcs_of(graph)
    final = max(arc.target for arc in arcs)
    heading = [] if title is None else [f"    label={_quoted(title)}; labelloc=t;"]
    lines = ["digraph {", "    rankdir=LR;", *heading]
    lines += [
        f"    {state} [shape={'doublecircle' if state == final else 'circle'}"
        f"{', style=bold' * (state == 0)}];"
        for state in range(final + 1)
    ]
    for arc in arcs:
        name = str(arc.label) if arc.score == 0 else f"{arc.label}/{arc.score:.7g}"
        lines.append(f"    {arc.source} -> {arc.target} [label={_quoted(name)}];")
    Path(path).write_text("\n".join([*lines, "}", ""]), encoding="utf-8")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
