"""Alignments of transducers in plain torch: best path, full sum, and training on an alignment.

A path walks over the lattice (t, u), t frames and u labels, from (0, 0) to (T, U). Its arcs are, by
topology (plateau/graphs/transducer.py says where these come from):

============  ====================  ==================================================
topology      blank at (t, u)       label u at (t, u)
============  ====================  ==================================================
rnnt          to (t + 1, u)         to (t, u + 1)
rna           to (t + 1, u)         to (t + 1, u + 1)
constrained   to (t + 1, u)         to (t + 1, u + 1), and has the blank of (t, u + 1) in it
============  ====================  ==================================================

Every arc of ``rna`` takes a frame, so the recursion goes frame by frame, over all u at once.
``constrained`` is the same with other scores. ``rnnt`` is too, on the anti-diagonals t + u: each of
its arcs goes from one to the next.

Blank is label 0. Scores are in nats.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from plateau.alignment.files import Alignment
from plateau.graphs.labels import BLANK, Topology, pad
from plateau.models.joiner import Joiner
from plateau.models.subsampling import padding_mask
from plateau.models.transducer import TransducerModel, TransducerOutput

PADDING = -1  # of frames

# Score of what cannot be. It is finite, because −∞ − (−∞) makes NaN of gradients.
_NEVER = -1e30
# Scores of the joiner that are there at once, 64 MiB in float32.
_CHUNK_SCORES = 2**24


def blank_and_label(log_probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What a lattice needs of log_probs (N, T, U + 1, V): blank (N, T, U + 1), label (N, T, U).

    ``targets`` is (N, U), padded with any label.
    """
    index = targets[:, None, :, None].expand(-1, log_probs.shape[1], -1, -1)  # (N, T, U, 1)
    label = log_probs[:, :, :-1].gather(3, index).squeeze(3)
    # A copy: a view would keep all V scores in memory.
    return log_probs[..., BLANK].clone(), label


def lattice_log_probs(
    model: TransducerModel, output: TransducerOutput, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of blank (N, T, U + 1) and of the next label (N, T, U), by the joiner.

    The V scores of each point exist for a piece of the frames at a time. With gradients, the
    backward pass computes each piece once more.

    Args:
        model: whose joiner to use.
        output: of that model, for these targets.
        targets: (N, U), padded with any label.
    """

    def piece(encoder: Tensor, predictor: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = model.joiner(encoder.unsqueeze(2), predictor.unsqueeze(1))  # (N, t, U + 1, V)
        return blank_and_label(log_probs, targets)

    n, positions, _ = output.predictor.shape
    scores_of_a_frame = n * positions * output.lm.shape[-1]
    encoders = output.encoder.split(max(1, _CHUNK_SCORES // scores_of_a_frame), dim=1)  # (N, t, J)
    if len(encoders) > 1 and torch.is_grad_enabled():
        # The joiner draws nothing at random, so no random state is to be kept.
        piece = partial(checkpoint, piece, use_reentrant=False, preserve_rng_state=False)
    pieces = [piece(encoder, output.predictor) for encoder in encoders]
    blank, label = (torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))
    return blank, label


def full_sum(
    log_probs_blank: Tensor,
    log_probs_label: Tensor,
    lengths: Tensor,
    target_lengths: Tensor,
    topology: Topology = "rnnt",
) -> Tensor:
    """The full sum over all paths (Graves 2012): losses (N,) in nats, by autograd differentiable.

    The loss is inf, with gradients of zero, where no path fits (T < U in ``rna`` and
    ``constrained``). It is computed in the type of the scores; half precision becomes float32.

    Args:
        log_probs_blank: (N, T, U + 1).
        log_probs_label: (N, T, U), of each label after those before it.
        lengths: (N,) frames.
        target_lengths: (N,) labels.
        topology: see the module.
    """
    blank, label = _arcs(log_probs_blank, log_probs_label, lengths, target_lengths, topology)
    scores = _start(blank)  # (N, U + 1)
    for blank_of_step, label_of_step in zip(blank.unbind(0), label.unbind(0), strict=True):
        scores = torch.logaddexp(
            scores + blank_of_step, _after_label(scores[:, :-1] + label_of_step)
        )
    losses = -_at(scores, target_lengths)
    return torch.where(losses > -_NEVER / 2, torch.full_like(losses, float("inf")), losses)


@torch.no_grad()
def best_path(
    log_probs_blank: Tensor,
    log_probs_label: Tensor,
    lengths: Tensor,
    target_lengths: Tensor,
    topology: Topology = "rnnt",
) -> tuple[Tensor, Tensor]:
    """The best path (Viterbi), exact. Of equal ones it is one with early labels.

    Arguments as for `full_sum`.

    Returns:
        frames (N, U), int64, of each label, `PADDING` beyond an utterance's labels; and scores
        (N,). Where no path fits, the score is -inf and all frames are `PADDING`.
    """
    blank, label = _arcs(log_probs_blank, log_probs_label, lengths, target_lengths, topology)
    scores = _start(blank)  # (N, U + 1)
    came_by_label = []
    for blank_of_step, label_of_step in zip(blank, label, strict=True):
        by_blank = scores + blank_of_step
        by_label = _after_label(scores[:, :-1] + label_of_step)
        came_by_label.append(by_label > by_blank)
        scores = torch.maximum(by_blank, by_label)
    score = _at(scores, target_lengths)
    impossible = score < _NEVER / 2

    n, positions = scores.shape
    # The last column is for position U, where a path that is at its end already takes no label.
    steps = torch.full((n, positions), PADDING, device=score.device)
    position = target_lengths.to(score.device)  # (N,)
    for step in reversed(range(len(came_by_label))):
        is_label = _at(came_by_label[step], position)
        position = position - is_label.long()
        before = _at(steps, position)
        now = torch.where(is_label, torch.full_like(before, step), before)
        steps = steps.scatter(1, position.unsqueeze(1), now.unsqueeze(1))
    steps = steps[:, :-1]
    labels = torch.arange(positions - 1, device=score.device)
    frames = steps - labels if topology == "rnnt" else steps
    frames = frames.masked_fill((steps == PADDING) | impossible.unsqueeze(1), PADDING)
    return frames, score.masked_fill(impossible, -float("inf"))


@torch.no_grad()
def align(
    model: TransducerModel,
    features: Tensor,
    lengths: Tensor,
    targets: Sequence[Sequence[int]],
    topology: Topology = "rnnt",
) -> list[Alignment]:
    """Forced alignment: the best path of each transcript.

    The model is used as it is: call ``model.eval()`` before.

    Args:
        model: the transducer.
        features: (N, T, F).
        lengths: (N,) ≥ 1, feature frames.
        targets: N token sequences.
        topology: see the module.
    """
    tokens = pad(targets, device=features.device)  # (N, U)
    output = model(features, lengths, tokens)
    target_lengths = torch.tensor([len(target) for target in targets], device=features.device)
    blank, label = lattice_log_probs(model, output, tokens)
    frames, scores = best_path(blank, label, output.lengths, target_lengths, topology)  # (N, U)
    # Of each token where it is emitted, (N, U).
    log_posteriors = label.gather(1, frames.clamp(min=0).unsqueeze(1)).squeeze(1)
    alignments = []
    for target, row, row_posteriors, score, num_frames in zip(
        targets,
        frames.tolist(),
        log_posteriors.tolist(),
        scores.tolist(),
        output.lengths.tolist(),
        strict=True,
    ):
        size = len(target) if score > -float("inf") else 0
        alignments.append(
            Alignment(
                tuple(row[:size]), score, num_frames, log_posteriors=tuple(row_posteriors[:size])
            )
        )
    return alignments


def alignment_loss(
    joiner: Joiner,
    output: TransducerOutput,
    targets: Tensor,
    frames: Tensor,
    topology: Topology = "rnnt",
    focal: float = 0.0,
    label_smoothing: float = 0.0,
    chunk: int | None = None,
) -> Tensor:
    """Viterbi training: cross entropy along a given path, summed over its steps: (N,), in nats.

    A path has T + U steps (in ``rna`` T). At each of them the joiner sees the frame and the labels
    so far, and is to say the path's label or blank. Without the options below, the loss is minus
    the path's score. The joiner sees the path only: its scores are (N, steps, V). (Zeyer et al.
    2020, "A new training pipeline for an improved neural transducer", arXiv:2005.09319.)

    Args:
        joiner: of the model.
        output: of the model, for these targets.
        targets: (N, U), padded with `BLANK`.
        frames: (N, U), the encoder's frame of each label, padded with `PADDING`.
        topology: that of the alignment.
        focal: γ ≥ 0. The loss of a step is multiplied by (1 − p)^γ, where p is the probability of
            what the step is to say (Lin et al. 2017, arXiv:1708.02002).
        label_smoothing: ε. Where a step is to say a label, this share of the probability goes to
            all labels but blank, in equal parts; the label itself is one of them. Where it is to
            say blank, nothing is smoothed: smoothing would spread labels over all frames.
        chunk: learn from so many frames of an utterance at most. It is cut into ⌈T / chunk⌉ pieces
            as equal as can be, of which one is drawn at random; the loss is multiplied by the
            number of pieces, so that its mean is that of the whole path. The encoder sees all.

    Raises:
        ValueError: frames that are no path for these targets and ``output.lengths``.
    """
    lengths = output.lengths
    _check_path(targets, frames, lengths, topology)
    # Step of each label, and label of each step. A label of rna takes a frame, as blank does.
    aligned = frames != PADDING  # (N, U)
    labels_before = torch.arange(frames.shape[1], device=frames.device)
    label_steps = frames if topology == "rna" else frames + labels_before  # (N, U)
    num_steps = lengths if topology == "rna" else lengths + aligned.sum(1)  # (N,)
    size = int(num_steps.max())
    labels = frames.new_zeros(len(frames), size + 1)  # the last column takes the padding
    labels = labels.scatter(1, label_steps.masked_fill(~aligned, size), targets)[:, :-1]  # (N, S)
    is_label = (labels != BLANK).long()
    position = is_label.cumsum(1) - is_label  # (N, S), u
    step = torch.arange(size, device=frames.device)
    frame = step.expand_as(labels) if topology == "rna" else step - position  # (N, S), t
    within = step < num_steps.unsqueeze(1)  # (N, S)
    num_pieces = torch.ones_like(lengths)

    if chunk is not None:
        num_pieces = torch.div(lengths + chunk - 1, chunk, rounding_mode="floor").clamp(min=1)
        # Drawn on the CPU, so that every device draws the same.
        drawn = (torch.rand(len(lengths)).to(lengths.device) * num_pieces).long()  # (N,)
        first = torch.div(drawn * lengths, num_pieces, rounding_mode="floor").unsqueeze(1)
        end = torch.div((drawn + 1) * lengths, num_pieces, rounding_mode="floor").unsqueeze(1)
        within = within & (frame >= first) & (frame < end)
        # A piece's steps are neighbours: take them alone.
        width = within.sum(1, keepdim=True)  # (N, 1)
        offset = torch.arange(int(width.max()), device=frames.device)
        taken = (within.long().argmax(1, keepdim=True) + offset).clamp(max=size - 1)
        labels, position, frame = (x.gather(1, taken) for x in (labels, position, frame))
        within = offset < width

    log_probs = joiner(
        _rows(output.encoder, frame.masked_fill(~within, 0)),
        _rows(output.predictor, position.masked_fill(~within, 0)),
    )  # (N, S, V)
    log_p = log_probs.gather(2, labels.unsqueeze(2)).squeeze(2)  # (N, S)
    losses = -log_p
    if label_smoothing:
        uniform = -log_probs[..., BLANK + 1 :].mean(2)
        smoothed = (1 - label_smoothing) * losses + label_smoothing * uniform
        losses = torch.where(labels != BLANK, smoothed, losses)
    if focal:
        # Not 0: there the slope of a power below 1 is infinite.
        losses = losses * (-torch.expm1(log_p)).clamp(min=1e-12) ** focal
    return torch.where(within, losses, torch.zeros_like(losses)).sum(1) * num_pieces


def _arcs(
    blank: Tensor, label: Tensor, lengths: Tensor, target_lengths: Tensor, topology: Topology
) -> tuple[Tensor, Tensor]:
    """Scores of S steps, of one recursion for all topologies: blank (S, N, U + 1), label (S, N, U).

    At a step a path goes from position u on by blank, or to u + 1 by the label. Beyond an
    utterance's frames blank costs nothing: every path ends at the last step. The values of padding
    are not looked at.
    """
    _, num_frames, positions = blank.shape
    if blank.dtype in (torch.float16, torch.bfloat16):
        blank, label = blank.float(), label.float()
    lengths, target_lengths = lengths.to(blank.device), target_lengths.to(blank.device)
    if topology == "constrained":
        label = label + blank[:, :, 1:]
    no_frame = padding_mask(lengths, num_frames).unsqueeze(2)  # (N, T, 1)
    no_position = padding_mask(target_lengths + 1, positions).unsqueeze(1)  # (N, 1, U + 1)
    blank = blank.masked_fill(no_frame | no_position, 0).clamp(min=_NEVER)
    label = label.masked_fill(no_frame | no_position[:, :, 1:], _NEVER).clamp(min=_NEVER)
    if topology == "rnnt":
        num_steps = num_frames + positions - 1
        blank, label = _skew(blank, num_steps, 0), _skew(label, num_steps, _NEVER)
    return blank.transpose(0, 1), label.transpose(0, 1)


def _skew(scores: Tensor, num_steps: int, fill: float) -> Tensor:
    """From (N, T, K) to (N, S, K), whose step s has of position u the frame s − u, or ``fill``."""
    n, num_frames, positions = scores.shape
    steps = torch.arange(num_steps, device=scores.device).unsqueeze(1)
    frames = steps - torch.arange(positions, device=scores.device)  # (S, K)
    outside = (frames < 0) | (frames >= num_frames)
    index = frames.clamp(0, num_frames - 1).expand(n, -1, -1)
    return scores.gather(1, index).masked_fill(outside, fill)


def _start(blank: Tensor) -> Tensor:
    """Scores (N, U + 1) before the first step: all paths are at position 0."""
    start = torch.full_like(blank[0], _NEVER)
    start[:, 0] = 0
    return start


def _after_label(scores: Tensor) -> Tensor:
    """Scores (N, U) of labels, at the positions after them: (N, U + 1). None leads to the first."""
    return F.pad(scores, (1, 0), value=-float("inf"))


def _at(values: Tensor, position: Tensor) -> Tensor:
    """From each row of values (N, K) the one at its position (N,)."""
    return values.gather(1, position.to(values.device).unsqueeze(1)).squeeze(1)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """From each of x (N, K, J) the rows index (N, S): (N, S, J)."""
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))


def _check_path(targets: Tensor, frames: Tensor, lengths: Tensor, topology: Topology) -> None:
    aligned = frames != PADDING  # (N, U)
    apart = 0 if topology == "rnnt" else 1  # frames between neighbours, at least
    right = (aligned == (targets != BLANK)) & (frames < lengths.unsqueeze(1))
    in_order = (frames[:, 1:] - frames[:, :-1] >= apart) | ~aligned[:, 1:]
    rows = right.all(1) & in_order.all(1)
    if not rows.all():
        row = int((~rows).long().argmax())
        raise ValueError(
            f"utterance {row} of the batch: frames {frames[row].tolist()} are no path of "
            f"{topology} for targets {targets[row].tolist()} in {int(lengths[row])} frames"
        )
