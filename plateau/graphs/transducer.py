"""Transducer losses, by k2: pruned and full sums over alignments.

Three topologies say what an alignment of U labels to T frames is:

- ``rnnt``: a frame may have any number of labels; blank goes to the next frame (Graves 2012; k2's
  ``regular``);
- ``rna``: a label takes a frame, as blank does, so T ≥ U is needed (recurrent neural aligner, Sak
  et al. 2017; the main topology of Zeyer et al. 2020, arXiv:2005.09319; k2's ``modified``);
- ``constrained``: as ``rna``, but a frame with a label has the blank after it, too (k2's
  ``constrained``).

Scores are float32, whatever autocast says: in half precision sums over alignments overflow.

An utterance without an alignment has the loss +inf and the gradient zero, and leaves the others as
they are, as in `plateau.graphs.dense`. That is T < U for ``rna`` and ``constrained``, and, in
`pruned_loss` only, T·(s − 1) < U for ``rnnt``: s positions let pass s − 1 labels a frame.
"""

from collections.abc import Callable, Sequence

import k2
import torch
import torch.nn.functional as F
from torch import Tensor

from plateau.graphs.labels import BLANK, Topology, pad

K2_TYPES: dict[str, str] = {"rnnt": "regular", "rna": "modified", "constrained": "constrained"}


def simple_loss(
    am: Tensor,
    lm: Tensor,
    targets: Sequence[Sequence[int]],
    lengths: Tensor,
    topology: Topology = "rnnt",
    am_scale: float = 0.0,
    lm_scale: float = 0.25,
    delay_penalty: float = 0.0,
    prune_range: int = 5,
) -> tuple[Tensor, Tensor]:
    """The loss of a joiner that only adds, and which labels the real one need look at.

    Kuang et al. 2022, "Pruned RNN-T for fast, memory-efficient ASR training" (arXiv:2206.13236).

    Args:
        am: (N, T, V) label scores from the encoder alone.
        lm: (N, U + 1, V) from the predictor alone.
        targets: N label sequences without blank.
        lengths: (N,) frames.
        topology: see the module.
        am_scale: share a of ``am`` alone, see below.
        lm_scale: share l of ``lm`` alone.
        delay_penalty: λ ≥ 0, in nats. A label that is emitted at frame t = 0 … T − 1 of its
            utterance gains λ·((T − 1)/2 − t): each frame earlier is worth λ, and a label in the
            middle gains nothing (k2#955). The loss is then no probability and may be negative.
        prune_range: s ≥ 2, number of neighbouring label positions to keep for each frame.

    The smoothed score of label y at frame t, after u labels, is
    (1 − a − l)·log_softmax(am_t + lm_u)_y + l·log_softmax(lm_u)_y + a·log_softmax(am_t + log p)_y,
    where p is the mean of softmax(lm) over the whole batch, padding too. So with a > 0 the loss of
    an utterance depends on the others, and on nothing else but itself with a = 0.

    Returns:
        losses (N,) in nats, and for each frame the s positions to keep: (N, T, s). The last
        dimension is U + 1 where that is less; a T < U is padded to U, for k2.

    Raises:
        ValueError: ``prune_range`` is less than 2.
    """
    if prune_range < 2:
        raise ValueError(f"prune_range {prune_range} must be at least 2")
    symbols, boundary, fits = _problem(targets, lengths, topology, am.device)
    am, lm = _pad_to(am, 1, symbols.shape[1]), _pad_to(lm, 1, symbols.shape[1] + 1)
    with torch.autocast(am.device.type, enabled=False):
        px, py = _smoothed_scores(am.float(), lm.float(), symbols, am_scale, lm_scale)
        if topology == "constrained":
            px = px + py[:, 1:]
        frames = torch.arange(am.shape[1] + 1, device=am.device)
        last = boundary[:, 3, None, None] - 1  # (N, 1, 1), an utterance's last frame
        if delay_penalty > 0:
            px = px + delay_penalty * (last / 2 - frames[:-1])
        if topology == "rnnt":  # k2 tells the topologies by a frame more, where no label may be
            px = F.pad(px, (0, 1)).masked_fill(frames > last, -torch.inf)
        scores, (px_grad, py_grad) = k2.mutual_information_recursion(
            px, py, boundary, return_grad=True
        )
        if topology == "rna":
            # k2 counts for a frame what stays within its positions from the frame's start to its
            # end: blanks there, less what comes from below. That is RNN-T. Here a label is all of
            # its frame, as blank is; uncounted, a sure model's frames with a label would get any
            # positions, and with them all frames before. Every position's share is both.
            py_grad = py_grad + _pad_to(px_grad, 1, py_grad.shape[1])
            px_grad = torch.zeros_like(px_grad)
        elif topology == "constrained":
            # As RNN-T, where the blank after the label would be in py_grad.
            py_grad = py_grad + torch.cat([torch.zeros_like(px_grad[:, :1]), px_grad], dim=1)
        # k2 wants no more positions than there are.
        prune_range = min(prune_range, lm.shape[1])
        ranges = k2.get_rnnt_prune_ranges(px_grad, py_grad, boundary, prune_range)
    return (-scores).masked_fill(~fits, torch.inf), ranges


def pruned_loss(
    encoder: Tensor,
    predictor: Tensor,
    joiner: Callable[[Tensor, Tensor], Tensor],
    ranges: Tensor,
    targets: Sequence[Sequence[int]],
    lengths: Tensor,
    topology: Topology = "rnnt",
    delay_penalty: float = 0.0,
) -> Tensor:
    """The full sum over alignments within ``ranges``: losses (N,) in nats.

    Args:
        encoder: (N, T, J).
        predictor: (N, U + 1, J).
        joiner: from (N, T, s, J) twice to log-probabilities (N, T, s, V).
        ranges: of `simple_loss`.
        targets: N label sequences without blank.
        lengths: (N,) frames.
        topology: see the module.
        delay_penalty: see `simple_loss`.
    """
    prune_range = ranges.shape[2]
    symbols, boundary, fits = _problem(targets, lengths, topology, encoder.device, prune_range)
    encoder = _pad_to(encoder, 1, symbols.shape[1]).unsqueeze(2)  # (N, T, 1, J)
    predictor = _pad_to(predictor, 1, symbols.shape[1] + 1)
    # As k2.do_rnnt_pruning, whose gradient takes memory for (N, T, U + 1, J).
    rows = torch.arange(len(ranges), device=ranges.device) * predictor.shape[1]
    predictor = F.embedding(ranges + rows[:, None, None], predictor.flatten(0, 1))  # (N, T, s, J)
    log_probs = joiner(encoder.expand_as(predictor), predictor)  # (N, T, s, V)
    with torch.autocast(encoder.device.type, enabled=False):
        losses = k2.rnnt_loss_pruned(
            log_probs.float(),
            symbols,
            ranges,
            BLANK,
            boundary,
            rnnt_type=K2_TYPES[topology],
            delay_penalty=delay_penalty,
            reduction="none",
        )
    return losses.masked_fill(~fits, torch.inf)


def full_loss(
    log_probs: Tensor,
    targets: Sequence[Sequence[int]],
    lengths: Tensor,
    topology: Topology = "rnnt",
    delay_penalty: float = 0.0,
) -> Tensor:
    """The full sum over all alignments: losses (N,) in nats, of log_probs (N, T, U + 1, V)."""
    symbols, boundary, fits = _problem(targets, lengths, topology, log_probs.device)
    log_probs = _pad_to(_pad_to(log_probs, 1, symbols.shape[1]), 2, symbols.shape[1] + 1)
    with torch.autocast(log_probs.device.type, enabled=False):
        losses = k2.rnnt_loss(
            log_probs.float(),
            symbols,
            BLANK,
            boundary,
            rnnt_type=K2_TYPES[topology],
            delay_penalty=delay_penalty,
            reduction="none",
        )
    return losses.masked_fill(~fits, torch.inf)


def _smoothed_scores(
    am: Tensor, lm: Tensor, symbols: Tensor, am_scale: float, lm_scale: float
) -> tuple[Tensor, Tensor]:
    """The scores that `simple_loss` defines, of labels (N, U, T) and of blank (N, U + 1, T).

    The same as k2.get_rnnt_logprobs_smoothed, whose gradient takes memory for (N, U, T, V), which
    is what pruning is there to avoid.

    Args:
        am: (N, T, V), float32.
        lm: (N, U + 1, V), float32.
        symbols: (N, U).
        am_scale: see `simple_loss`.
        lm_scale: see `simple_loss`.
    """
    tiny = torch.finfo(am.dtype).tiny
    am_max, lm_max = am.amax(2, keepdim=True), lm.amax(2, keepdim=True)
    am_exp, lm_exp = (am - am_max).exp(), (lm - lm_max).exp()
    am_max = am_max.transpose(1, 2)  # (N, 1, T)
    unigram = lm.softmax(-1).mean(dim=(0, 1)) + tiny  # (V,)
    # Logarithms of sums over the V labels: (N, U + 1, T), (N, 1, T), (N, U + 1, 1).
    joint_sum = (lm_exp @ am_exp.transpose(1, 2) + tiny).log() + lm_max + am_max
    am_sum = (am_exp @ unigram).log().unsqueeze(1) + am_max
    lm_sum = lm.logsumexp(2, keepdim=True)

    def mix(am: Tensor, lm: Tensor, unigram: Tensor) -> Tensor:
        """Of a label's scores: (N, U or U + 1, T)."""
        positions = lm.shape[1]
        return (
            (1 - am_scale - lm_scale) * (am + lm - joint_sum[:, :positions])
            + lm_scale * (lm - lm_sum[:, :positions])
            + am_scale * (am + unigram.log() - am_sum)
        )

    U = symbols.shape[1]
    labels = mix(
        am.gather(2, symbols.unsqueeze(1).expand(-1, am.shape[1], -1)).transpose(1, 2),
        lm[:, :U].gather(2, symbols.unsqueeze(2)),
        unigram[symbols].unsqueeze(2),
    )
    blank = mix(am[:, :, BLANK].unsqueeze(1), lm[:, :, BLANK].unsqueeze(2), unigram[BLANK])
    return labels, blank


def _problem(
    targets: Sequence[Sequence[int]],
    lengths: Tensor,
    topology: Topology,
    device: torch.device,
    prune_range: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """What k2 needs to know of a batch.

    Returns:
        targets (N, U) with U ≥ 1, k2's boundary (N, 4): first label, first frame, U and T of each,
        and which utterances have an alignment (N,).
    """
    symbols = _pad_to(pad(targets, device=device), 1, 1)
    numbers = torch.tensor([len(target) for target in targets], device=device)
    lengths = lengths.to(device)
    if topology == "rnnt" and prune_range is None:
        fits = torch.ones_like(numbers, dtype=torch.bool)
    else:
        fits = numbers <= lengths * (prune_range - 1 if topology == "rnnt" else 1)
    # Where there is no alignment, k2 warns on the screen, and its gradients are garbage. There it
    # gets an utterance without labels, whose loss is then replaced.
    numbers = numbers * fits
    zeros = torch.zeros_like(numbers)
    return symbols, torch.stack([zeros, zeros, numbers, lengths], dim=1), fits


def _pad_to(x: Tensor, dim: int, size: int) -> Tensor:
    """Zeros after x, up to a size of a dimension: k2 wants U ≥ 1 and T ≥ U in every batch."""
    missing = size - x.shape[dim]
    if missing <= 0:
        return x
    return torch.cat([x, x.new_zeros(*x.shape[:dim], missing, *x.shape[dim + 1 :])], dim=dim)
