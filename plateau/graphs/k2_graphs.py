"""Graphs from and for k2: the one place that knows both forms."""

import k2
import torch

from plateau.graphs.graph import Graphs, splits_of


def to_k2(graphs: Graphs, device: torch.device | str = "cpu") -> k2.Fsa:
    """An FsaVec of N; weights are ``scores``, with their gradient, outputs ``aux_labels``.

    As everywhere in k2, arcs with label -1 have the output -1.
    """
    arcs = torch.stack([*graphs.of_arcs[:3], torch.zeros_like(graphs.labels)], dim=1)  # (A, 4)
    states = splits_of(graphs.num_states).int()
    # k2's form of an FsaVec in one tensor: N, 0, first states and first arcs of graphs, the arcs.
    head = torch.tensor([len(graphs), 0], dtype=torch.int32)
    fsas = k2.Fsa(torch.cat([head, states, graphs.splits.int(), arcs.flatten()]).to(device))
    fsas.scores = graphs.weights.to(device, torch.float32)
    fsas.aux_labels = graphs.outputs.where(graphs.labels >= 0, graphs.labels).to(device)
    return fsas


def from_k2(fsas: k2.Fsa) -> Graphs:
    """The graphs of an FsaVec, or of a single FSA, whose arcs k2 has by source."""
    if len(fsas.shape) == 2:
        fsas = k2.create_fsa_vec([fsas])
    sources, targets, labels, _ = fsas.arcs.values().cpu().t().contiguous()
    splits = fsas.arcs.shape().remove_axis(1).row_splits(1).cpu().long()
    outputs = getattr(fsas, "aux_labels", torch.zeros_like(labels))
    return Graphs(
        sources, targets, labels, fsas.scores.cpu(), outputs.cpu().int().clamp(min=0), splits
    )
