"""Connectionist temporal classification with k2: label graphs, the full-sum loss, and Viterbi.

A graph is an FSA whose arcs read one frame label each; blank is label 0. Graphs are built apart
from the losses, so that another topology needs only another graph.
"""

from collections.abc import Mapping, Sequence

import k2
import torch
from torch import Tensor

# `k2.intersect_dense` drops arcs whose best path lies further than this many nats below the best of
# all. With 40 the losses of flat and of peaky posteriors (64 to 600 frames) were equal to those
# without pruning, and gradients to 1e-10. 10, a usual choice, was wrong by up to 4 nats, and
# by 0.9 in a gradient that lies within -1..0, on flat posteriors such as those of early training.
OUTPUT_BEAM = 40.0


def ctc_graphs(targets: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> k2.Fsa:
    """Training graphs: FsaVec in which graph n accepts the frame labels that mean ``targets[n]``.

    Targets hold no blanks and may be empty. Graves et al. 2006, section 3.
    """
    return k2.ctc_graph([list(target) for target in targets], device=device)


def ctc_topology(vocab_size: int, device: torch.device | str = "cpu") -> k2.Fsa:
    """One graph that accepts every sequence of frame labels; it has vocab_size² arcs.

    Its ``aux_labels`` are the tokens, 0 where a blank or a repetition gives none.
    """
    return k2.arc_sort(k2.ctc_topo(vocab_size - 1, device=device))


def lexicon_graph(words: Mapping[tuple[int, ...], float], vocab_size: int) -> k2.Fsa:
    """One graph that accepts the frame labels of any sequence of known words: H ∘ L.

    H is the CTC topology; L has, for each word, a chain of arcs from state 0 back to it (Mohri,
    Pereira, Riley 2002, section 3.1).

    Args:
        words: the tokens of each word, at least one, and the weight (nats) of saying it once, such
            as its log probability.
        vocab_size: V, number of labels with the blank.
    """
    arcs = []
    final = 1 + sum(len(tokens) - 1 for tokens in words)
    free = 1  # the next state that no chain has
    for tokens, weight in words.items():
        inner = range(free, free + len(tokens) - 1)
        free += len(inner)
        states = [0, *inner, 0]
        arcs += [
            (source, target, token, weight if i == 0 else 0.0)
            for i, (source, target, token) in enumerate(
                zip(states[:-1], states[1:], tokens, strict=True)
            )
        ]
    arcs.append((0, final, -1, 0.0))
    lines = [
        f"{source} {target} {label} {weight}" for source, target, label, weight in sorted(arcs)
    ]
    lexicon = k2.Fsa.from_str("\n".join([*lines, str(final)]), acceptor=True)
    return k2.connect(k2.compose(ctc_topology(vocab_size), k2.arc_sort(lexicon)))


def dense_fsa_vec(log_probs: Tensor, lengths: Tensor) -> tuple[k2.DenseFsaVec, Tensor]:
    """Wrap scores (N, T, V) for k2, longest utterance first, as `k2.intersect_dense` demands.

    Scores become float32, the only type that k2 takes.

    Returns:
        the DenseFsaVec and ``order`` (N,), on the device of the scores: its segment i is utterance
        ``order[i]`` of the input. ``order.argsort()`` leads back.

    Raises:
        ValueError: a length is not in 1..T.
    """
    lengths = lengths.cpu()
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= log_probs.shape[1]:
        raise ValueError(f"lengths must be in 1..{log_probs.shape[1]}, got {lengths.tolist()}")
    order = lengths.argsort(descending=True)
    segments = torch.stack([order, torch.zeros_like(order), lengths[order]], dim=1)  # (N, 3)
    dense = k2.DenseFsaVec(log_probs.float(), segments.to(torch.int32))
    return dense, order.to(log_probs.device)


def full_sum_loss(log_probs: Tensor, lengths: Tensor, graphs: k2.Fsa) -> Tensor:
    """Minus the log of the summed weight of all paths, in nats: (N,), in input order.

    Args:
        log_probs: (N, T, V) scores, normalised or not; V must exceed every label.
        lengths: (N,) frames that count, 1..T.
        graphs: FsaVec of N graphs, in the order of the utterances.

    Scores are float32 within k2, sums are float64; the result has the type of ``log_probs``.

    An utterance that no path of its graph fits (too few frames) has the loss +inf and the gradient
    zero, and leaves the other gradients as they are. A mean over the batch would still be +inf:
    leave such utterances out beforehand.
    """
    dense, order = dense_fsa_vec(log_probs, lengths)
    graphs = k2.index_fsa(graphs, order.to(torch.int32))
    lattices = k2.intersect_dense(graphs, dense, output_beam=OUTPUT_BEAM)
    totals = lattices.get_tot_scores(log_semiring=True, use_double_scores=True)  # (N,)
    return -totals[order.argsort()].to(log_probs.dtype)


def ctc_loss(log_probs: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """CTC loss in nats, one per utterance: `full_sum_loss` with `ctc_graphs`.

    The gradient is exact for scores that are not normalised too, unlike that of
    `torch.nn.functional.ctc_loss` (pytorch#52241).
    """
    return full_sum_loss(log_probs, lengths, ctc_graphs(targets, log_probs.device))


def best_paths(
    log_probs: Tensor, lengths: Tensor, graphs: k2.Fsa, search_beam: float = 20.0
) -> list[list[int]]:
    """Frame labels of the best path of each utterance (Viterbi), in input order.

    Args:
        log_probs: (N, T, V) scores.
        lengths: (N,) frames that count, 1..T.
        graphs: FsaVec of N graphs, searched exactly; or one graph that all utterances share.
        search_beam: with a shared graph, states that lie further than this many nats below the
            frame's best are dropped.

    Returns:
        N lists, the n-th as long as ``lengths[n]``; empty where no path fits.
    """
    dense, order = dense_fsa_vec(log_probs.detach(), lengths)
    if len(graphs.shape) == 2:
        lattices = k2.intersect_dense_pruned(
            graphs,
            dense,
            search_beam=search_beam,
            output_beam=1.0,  # only the best path is wanted
            min_active_states=1,
            max_active_states=10_000,
        )
    else:
        graphs = k2.index_fsa(graphs, order.to(torch.int32))
        lattices = k2.intersect_dense(graphs, dense, output_beam=1.0)
    paths = k2.shortest_path(lattices, use_double_scores=True)
    labels = k2.RaggedTensor(paths.arcs.shape().remove_axis(1), paths.labels.contiguous()).tolist()
    # The last arc of a path, label -1, reads no frame.
    return [labels[i][:-1] for i in order.argsort().tolist()]
