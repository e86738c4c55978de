"""Scores of frames against graphs: full sum and Viterbi, by `plateau.graphs.engines`."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plateau.graphs.engines import engine_for
from plateau.graphs.graph import Graphs


def mixed_loss(
    log_probs: Tensor,
    lengths: Tensor,
    graphs: Graphs,
    viterbi: float = 0.0,
    delay_penalty: float = 0.0,
) -> Tensor:
    """``(1 - viterbi)`` times `full_sum_loss` plus ``viterbi`` times `viterbi_loss`: (N,), nats.

    Args:
        log_probs: (N, T, V) scores, normalised or not; V must exceed every label.
        lengths: (N,) frames that count, 1..T.
        graphs: N, in the order of the utterances.
        viterbi: share of the best path's loss, 0 to 1.
        delay_penalty: λ: a token that begins at frame t (from 0) of T gains λ ((T - 1) / 2 - t)
            nats. The graphs' outputs tell where tokens begin. Kang et al. 2022,
            "Delay-penalized transducer", arXiv:2211.00490.

    Sums are float64; k2 takes scores as float32. The result has the type of ``log_probs``, and
    gradients by the scores and by the graphs' weights.

    An utterance that no path of its graph fits (too few frames) has the loss +inf and the gradient
    zero, and leaves the other gradients as they are. A mean over the batch would still be +inf:
    leave such utterances out beforehand.

    Raises:
        ValueError: a length is not in 1..T, a label is not in 0..V - 1, or there are not N graphs.
    """
    lengths = _checked(log_probs, lengths, graphs)
    if len(graphs) != len(lengths):
        raise ValueError(f"{len(lengths)} utterances, {len(graphs)} graphs")
    engine = engine_for(log_probs.device)
    total = engine.totals(log_probs, lengths, graphs, viterbi, delay_penalty)
    return -total.to(log_probs.dtype)


def full_sum_loss(
    log_probs: Tensor, lengths: Tensor, graphs: Graphs, delay_penalty: float = 0.0
) -> Tensor:
    """Minus the log of the summed weight of all paths, in nats: (N,). See `mixed_loss`."""
    return mixed_loss(log_probs, lengths, graphs, 0.0, delay_penalty)


def viterbi_loss(
    log_probs: Tensor, lengths: Tensor, graphs: Graphs, delay_penalty: float = 0.0
) -> Tensor:
    """Minus the score of the best path, in nats: (N,). See `mixed_loss`.

    Of paths that score the same, one alone gets the gradient: the one that the engine meets first.
    Which one is the same at every call with these scores, and else undefined.
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
    log_probs: Tensor, lengths: Tensor, graphs: Graphs, search_beam: float = math.inf
) -> list[list[int]]:
    """Frame labels of the best path of each utterance (Viterbi), in input order.

    Args:
        log_probs: (N, T, V) scores.
        lengths: (N,) frames that count, 1..T.
        graphs: N; or one graph that all utterances share.
        search_beam: states that lie further than this many nats below the frame's best are dropped.
            Infinite: none is, the search is exact.

    Returns:
        N lists, the n-th as long as ``lengths[n]``; empty where no path fits.
    """
    return [labels for labels, _ in best_paths_and_outputs(log_probs, lengths, graphs, search_beam)]


def best_paths_and_outputs(
    log_probs: Tensor, lengths: Tensor, graphs: Graphs, search_beam: float = math.inf
) -> list[tuple[list[int], list[int]]]:
    """Frame labels as `best_paths` finds them, and for each frame the output of its arc.

    An output is the token where one begins, and else 0.
    """
    lengths = _checked(log_probs, lengths, graphs)
    if len(graphs) not in (1, len(lengths)):
        raise ValueError(f"{len(lengths)} utterances, {len(graphs)} graphs")
    engine = engine_for(log_probs.device)
    return engine.best_paths(log_probs.detach(), lengths, graphs, search_beam)


def _checked(scores: Tensor, lengths: Tensor, graphs: Graphs) -> Tensor:
    """The lengths, on the CPU.

    Raises:
        ValueError: a length or a label is out of range.
    """
    _, num_frames, vocab_size = scores.shape
    lengths = lengths.cpu()
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= num_frames:
        raise ValueError(f"lengths must be in 1..{num_frames}, got {lengths.tolist()}")
    if len(graphs.labels) and int(graphs.labels.max()) >= vocab_size:
        raise ValueError(f"labels must be below {vocab_size}, got {int(graphs.labels.max())}")
    return lengths
