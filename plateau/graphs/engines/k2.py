"""The engine of k2: `k2.intersect_dense`, on CPU and CUDA."""

import math

import k2
import torch
from torch import Tensor

from plateau.graphs.graph import Graphs
from plateau.graphs.k2_graphs import to_k2

# `k2.intersect_dense` drops arcs whose best path lies further than this many nats below the best of
# all. With 40 the losses of flat and of peaky posteriors (64 to 600 frames) were equal to those
# without pruning, and gradients to 1e-10. 10, a usual choice, was wrong by up to 4 nats, and
# by 0.9 in a gradient that lies within -1..0, on flat posteriors such as those of early training.
OUTPUT_BEAM = 40.0


def totals(
    scores: Tensor, lengths: Tensor, graphs: Graphs, viterbi: float, delay_penalty: float
) -> Tensor:
    """See `plateau.graphs.engines.Engine`. Full sum and best path are taken from one lattice."""
    dense, order = dense_fsa_vec(scores, lengths)
    fsas = k2.index_fsa(to_k2(graphs, scores.device), order.to(torch.int32))
    frames = {"frame_idx_name": "frame"} if delay_penalty else {}
    lattices = k2.intersect_dense(fsas, dense, output_beam=OUTPUT_BEAM, **frames)
    if delay_penalty:
        # An arc with an output begins a token.
        arcs = lattices.arcs.shape().remove_axis(1).row_ids(1).long()  # of which utterance
        middle = (lengths[order.cpu()].to(scores.device) - 1) / 2  # (N,)
        gain = delay_penalty * (middle[arcs] - lattices.frame)
        lattices.scores = lattices.scores + gain.where(lattices.aux_labels > 0, gain.new_zeros(()))
    total = 0.0
    for log_semiring, share in ((True, 1 - viterbi), (False, viterbi)):
        if share:  # what has no share is not computed, and 0 · inf is not a number
            total = total + share * lattices.get_tot_scores(
                log_semiring=log_semiring, use_double_scores=True
            )  # (N,)
    return total[order.argsort()]


def best_paths(
    scores: Tensor, lengths: Tensor, graphs: Graphs, search_beam: float
) -> list[tuple[list[int], list[int]]]:
    """See `plateau.graphs.engines.Engine`."""
    dense, order = dense_fsa_vec(scores.detach(), lengths)
    fsas = to_k2(graphs, scores.device)
    shared = len(graphs) == 1  # by all utterances
    if math.isinf(search_beam):
        fsas = k2.index_fsa(fsas, (order * (not shared)).to(torch.int32))
        lattices = k2.intersect_dense(fsas, dense, output_beam=1.0)  # only the best path is wanted
    else:
        lattices = k2.intersect_dense_pruned(
            fsas if shared else k2.index_fsa(fsas, order.to(torch.int32)),
            dense,
            search_beam=search_beam,
            output_beam=1.0,
            min_active_states=1,
            max_active_states=10_000,
        )
    paths = k2.shortest_path(lattices, use_double_scores=True)
    paths = k2.index_fsa(paths, order.argsort().to(torch.int32))
    labels, outputs = (_by_utterance(paths, x) for x in (paths.labels, paths.aux_labels))
    return list(zip(labels, outputs, strict=True))


def dense_fsa_vec(scores: Tensor, lengths: Tensor) -> tuple[k2.DenseFsaVec, Tensor]:
    """Wrap scores (N, T, V) for k2, longest utterance first, as `k2.intersect_dense` demands.

    Scores become float32, the only type that k2 takes.

    Returns:
        the DenseFsaVec and ``order`` (N,), on the device of the scores: its segment i is utterance
        ``order[i]`` of the input. ``order.argsort()`` leads back.
    """
    order = lengths.argsort(descending=True)
    segments = torch.stack([order, torch.zeros_like(order), lengths[order]], dim=1)  # (N, 3)
    dense = k2.DenseFsaVec(scores.float(), segments.to(torch.int32))
    return dense, order.to(scores.device)


def _by_utterance(paths: k2.Fsa, values: Tensor) -> list[list[int]]:
    """What linear FSAs have on their arcs but the last, which has label -1 and reads no frame."""
    ragged = k2.RaggedTensor(paths.arcs.shape().remove_axis(1), values.contiguous())
    return [row[:-1] for row in ragged.tolist()]
