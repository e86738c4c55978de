"""Scores of frames against graphs: full sum and Viterbi, by way of `k2.intersect_dense`.

A graph is an FSA whose arcs read one frame label each.
"""

from collections.abc import Callable
from typing import Any

import k2
import torch
from torch import Tensor

# `k2.intersect_dense` drops arcs whose best path lies further than this many nats below the best of
# all. With 40 the losses of flat and of peaky posteriors (64 to 600 frames) were equal to those
# without pruning, and gradients to 1e-10. 10, a usual choice, was wrong by up to 4 nats, and
# by 0.9 in a gradient that lies within -1..0, on flat posteriors such as those of early training.
OUTPUT_BEAM = 40.0


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


def mixed_loss(
    log_probs: Tensor,
    lengths: Tensor,
    graphs: k2.Fsa,
    viterbi: float = 0.0,
    delay_penalty: float = 0.0,
) -> Tensor:
    """``(1 - viterbi)`` times `full_sum_loss` plus ``viterbi`` times `viterbi_loss`: (N,), nats.

    Both are taken from one lattice, so a mix costs little more than one of them.

    Args:
        log_probs: (N, T, V) scores, normalised or not; V must exceed every label.
        lengths: (N,) frames that count, 1..T.
        graphs: FsaVec of N graphs, in the order of the utterances.
        viterbi: share of the best path's loss, 0 to 1.
        delay_penalty: λ: a token that begins at frame t (from 0) of T gains λ ((T - 1) / 2 - t)
            nats. The graphs' ``aux_labels`` tell where tokens begin. Kang et al. 2022,
            "Delay-penalized transducer", arXiv:2211.00490.

    Scores are float32 within k2, sums are float64; the result has the type of ``log_probs``.

    An utterance that no path of its graph fits (too few frames) has the loss +inf and the gradient
    zero, and leaves the other gradients as they are. A mean over the batch would still be +inf:
    leave such utterances out beforehand.
    """
    dense, order = dense_fsa_vec(log_probs, lengths)
    graphs = k2.index_fsa(graphs, order.to(torch.int32))
    frames = {"frame_idx_name": "frame"} if delay_penalty else {}
    lattices = k2.intersect_dense(graphs, dense, output_beam=OUTPUT_BEAM, **frames)
    if delay_penalty:
        # An arc with an output begins a token.
        arcs = lattices.arcs.shape().remove_axis(1).row_ids(1).long()  # of which utterance
        middle = (lengths[order.cpu()].to(log_probs.device) - 1) / 2  # (N,)
        gain = delay_penalty * (middle[arcs] - lattices.frame)
        lattices.scores = lattices.scores + gain.where(lattices.aux_labels > 0, gain.new_zeros(()))
    total = 0.0
    for log_semiring, share in ((True, 1 - viterbi), (False, viterbi)):
        if share:  # what has no share is not computed, and 0 · inf is not a number
            total = total + share * lattices.get_tot_scores(
                log_semiring=log_semiring, use_double_scores=True
            )  # (N,)
    return -total[order.argsort()].to(log_probs.dtype)


def full_sum_loss(
    log_probs: Tensor, lengths: Tensor, graphs: k2.Fsa, delay_penalty: float = 0.0
) -> Tensor:
    """Minus the log of the summed weight of all paths, in nats: (N,). See `mixed_loss`."""
    return mixed_loss(log_probs, lengths, graphs, 0.0, delay_penalty)


def viterbi_loss(
    log_probs: Tensor, lengths: Tensor, graphs: k2.Fsa, delay_penalty: float = 0.0
) -> Tensor:
    """Minus the score of the best path, in nats: (N,). See `mixed_loss`.

    Of paths that score the same, one alone gets the gradient: the one that k2 meets first. Which
    one is the same at every call with these scores, and else undefined.
    """
    return mixed_loss(log_probs, lengths, graphs, 1.0, delay_penalty)


def emission_scores(
    log_probs: Tensor,
    log_prior: Tensor | None = None,
    prior_scale: float = 1.0,
    acoustic_scale: float = 1.0,
) -> Tensor:
    """``acoustic_scale * log_probs - prior_scale * log_prior``: (N, T, V), for any loss here.

    Posteriors over priors are likelihoods but for a factor: what hybrid models give to an HMM
    (Bourlard, Morgan 1994, "Connectionist speech recognition", section 7.3).

    Args:
        log_probs: (N, T, V).
        log_prior: (V,), or what broadcasts to ``log_probs``.
        prior_scale: exponent of the prior.
        acoustic_scale: exponent of the posteriors.
    """
    scores = log_probs if acoustic_scale == 1 else acoustic_scale * log_probs
    if log_prior is None or prior_scale == 0:
        return scores
    return scores - prior_scale * log_prior.to(scores.dtype)


def soft_alignment(
    scores: Tensor, lengths: Tensor, targets: Any, loss: Callable[..., Tensor] = full_sum_loss
) -> tuple[Tensor, Tensor]:
    """Losses (N,), and how much of each frame falls to each label: γ, (N, T, V).

    ``targets`` are whatever ``loss(scores, lengths, targets)`` takes: graphs, or transcripts with
    `plateau.graphs.loss.graph_loss`.

    γ_t(s) = -∂ loss / ∂ scores_t(s): the posterior of label s at frame t given the graph (that of
    Baum and Welch), or a one for the label of the best path, with `viterbi_loss`. Its rows sum to
    1, and to 0 beyond an utterance's length. Both results are without gradient.
    """
    leaf = scores.detach().requires_grad_()
    losses = loss(leaf, lengths, targets)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), -gradient


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
    paths = _shortest_paths(log_probs, lengths, graphs, search_beam)
    return _by_utterance(paths, paths.labels)


def best_paths_and_outputs(
    log_probs: Tensor, lengths: Tensor, graphs: k2.Fsa, search_beam: float = 20.0
) -> list[tuple[list[int], list[int]]]:
    """Frame labels as `best_paths` finds them, and for each frame the output of its arc.

    Outputs are the graphs' ``aux_labels``: the token where one begins, and else 0.
    """
    paths = _shortest_paths(log_probs, lengths, graphs, search_beam)
    labels, outputs = (_by_utterance(paths, x) for x in (paths.labels, paths.aux_labels))
    return list(zip(labels, outputs, strict=True))


def _shortest_paths(
    log_probs: Tensor, lengths: Tensor, graphs: k2.Fsa, search_beam: float
) -> k2.Fsa:
    """FsaVec of N linear FSAs, in input order; one without arcs where no path fits."""
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
    return k2.index_fsa(paths, order.argsort().to(torch.int32))


def _by_utterance(paths: k2.Fsa, values: Tensor) -> list[list[int]]:
    """What linear FSAs have on their arcs but the last, which has label -1 and reads no frame."""
    ragged = k2.RaggedTensor(paths.arcs.shape().remove_axis(1), values.contiguous())
    return [row[:-1] for row in ragged.tolist()]
