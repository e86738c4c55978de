"""CTC from scratch, in plain torch without k2: exact, and written to be read.

The training itself uses `plateau.graphs.ctc`. Numbers in brackets are the equations of A. Graves,
S. Fernández, F. Gomez, J. Schmidhuber, "Connectionist temporal classification", ICML 2006.

The probability of a target is the sum over all its alignments, label sequences as long as the
utterance that give the target when repetitions are merged and then blanks removed (3). There are
too many to list. But they are the paths through a chain of S = 2 U + 1 states, with a blank
before, between and behind the U labels:

    target [1, 2, 2]        s    0  1  2  3  4  5  6
                            l'   ·  1  ·  2  ·  2  ·        · is blank

A path starts in state 0 or 1 and ends in one of the last two. At each frame it stays, goes to the
next state, or leaves out the blank between two different labels. (Equal ones would be merged.)
Paths that meet in a state go on alike, so sums over them are made frame by frame:

    α_t(s)  all beginnings that end in state s at frame t, with the scores of frames 0 … t   (5–7)
    β_t(s)  all endings from state s at frame t on, with the scores of frames t + 1 … T − 1  (9–11)
    p       α_t(s) β_t(s), summed over the states, is the same at every frame t              (8, 14)
    γ_t(k)  the share of p that goes through label k at frame t: α β / p, summed over the states
            with this label                                                                  (15)

(Graves' β has the score of frame t, too, so that he divides by it in (14) and (15).) γ is the soft
alignment, and all that training needs: whether the scores ln y are normalised or not,

    ∂ −ln p / ∂ ln y_t(k) = −γ_t(k)

The usual y_t(k) − γ_t(k) (16) is the gradient by the logits, with the softmax in it;
`torch.nn.functional.ctc_loss` returns it for ln y, right only after a log-softmax (pytorch#52241).
Probabilities of many frames are too small for floats, hence logarithms, with ln 0 = −inf.

Mistakes that nearly everyone makes once; tests/graphs/test_reference.py makes them again:

- State 1 started with the blank's score. It has that of the first label: l'(1), not l'(0).
- The total read off as ``alpha[-2:, -1]``, the last state at two frames. It is the last two states
  at one frame, ``alpha[-1, -2:]``: the last label need not be followed by a blank.
- α divided by its sum at each frame, against underflow, and the sums forgotten. p is their product.
- α filled in place, ``alpha[t, s] = …``, while autograd needs what was there: a RuntimeError. With
  a `clone()` of the previous frame the gradient is right, but it is that of what was written: none
  of the above goes away. With a `detach()` the loss is right, and the gradient wrong in silence.
  (Check gradients in double. In float32, `gradcheck` finds fault with right ones.)
- A target without labels left out. It has one alignment, all blanks, and a loss like any other.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence


def ctc_loss(log_probs: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """CTC losses (N,) in nats: −ln p of each target (12).

    Args:
        log_probs: (N, T, V) scores, normalised or not. Blank is label 0.
        lengths: (N,) frames that count, 1..T. What is in the others has no effect.
        targets: labels of each utterance, 1..V - 1. There may be none.

    Sums are made in double; the losses have the type of ``log_probs``.
    A target that does not fit has the loss +inf and the gradient zero: with fewer frames than its
    labels and the blanks between equal ones there is no alignment, so p = 0 and nothing to share.

    Raises:
        ValueError: a length or a label is out of range, or there are not N of each.
    """
    return _CTCLoss.apply(log_probs, lengths, targets)


@torch.no_grad()
def soft_alignment(
    log_probs: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Losses (N,) and γ (N, T, V), without gradient; arguments are those of `ctc_loss`.

    γ sums to 1 at each frame that counts; it is 0 at others, and where the target does not fit.
    """
    _check(log_probs, lengths, targets)
    device, num_frames = log_probs.device, log_probs.shape[1]
    last = lengths.to(device)[:, None] - 1  # (N, 1)
    size = torch.tensor([len(target) for target in targets], device=device)[:, None]  # (N, 1)
    labels = pad_sequence([torch.tensor(target, dtype=torch.long) for target in targets], True)
    # A blank before each label, and one behind the last. Shorter targets are followed by states
    # that do not lead to their end.
    labels = pad(torch.stack([torch.zeros_like(labels), labels], dim=2).flatten(1), (0, 1))
    labels = labels.to(device)  # (N, S)
    state = torch.arange(labels.shape[1], device=device)  # (S,)

    # What is allowed has the weight ln 1 = 0, all else ln 0 = −inf.
    start = (state <= 1).double().log()  # (S,)
    end = ((state == 2 * size) | (state == 2 * size - 1)).double().log()  # (N, S)
    # Into s from s - 2. A blank has a blank there: one comparison for both conditions of (6).
    skip = (labels != pad(labels, (2, 0))[:, :-2]).double().log()  # (N, S)

    index = labels[:, None].expand(-1, num_frames, -1)  # (N, T, S)
    scores = log_probs.gather(2, index).double()  # ln p of a long utterance is in the thousands
    after = torch.arange(num_frames, device=device) > last  # (N, T)
    scores = scores.masked_fill(after[..., None], -torch.inf)

    alpha = [start + scores[:, 0]]  # each (N, S)
    for t in range(1, num_frames):
        a = pad(alpha[-1], (2, 0), value=-torch.inf)  # a[:, s] is state s - 2
        alpha.append(_add(a[:, 2:], a[:, 1:-1], a[:, :-2] + skip) + scores[:, t])  # (6, 7)

    beta = [end]
    for t in reversed(range(num_frames - 1)):
        b = beta[-1] + scores[:, t + 1]
        skipped = pad(b + skip, (0, 2), value=-torch.inf)[:, 2:]
        b = _add(b, pad(b, (0, 1), value=-torch.inf)[:, 1:], skipped)  # (10, 11)
        beta.append(end.where(last == t, b))  # each utterance has its own last frame

    paths = torch.stack(alpha, dim=1) + torch.stack(beta[::-1], dim=1)  # (N, T, S)
    log_p = paths[:, 0].logsumexp(-1)  # (14)
    # Without a path all of `paths` is −inf: less 0, not less −inf, it gives shares of 0.
    share = (paths - log_p.masked_fill(log_p.isneginf(), 0.0)[:, None, None]).exp()
    gamma = torch.zeros_like(log_probs).scatter_add(2, index, share.to(log_probs))  # (15)
    return -log_p.to(log_probs), gamma


class _CTCLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, lengths: Tensor, targets: Any) -> Tensor:
        losses, gamma = soft_alignment(log_probs, lengths, targets)
        ctx.save_for_backward(gamma)
        return losses

    @staticmethod
    @once_differentiable  # γ depends on the scores, but autograd does not see how
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (gamma,) = ctx.saved_tensors
        return -gradient[:, None, None] * gamma, None, None


def _add(*logs: Tensor) -> Tensor:
    """ln (e^a + e^b + …), without overflow; −inf where all are."""
    return torch.stack(logs).logsumexp(0)


def _check(log_probs: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]) -> None:
    size, num_frames, vocab_size = log_probs.shape
    if not size == len(lengths) == len(targets):
        raise ValueError(f"{size} utterances, {len(lengths)} lengths, {len(targets)} targets")
    if bad := [length for length in lengths.tolist() if not 1 <= length <= num_frames]:
        raise ValueError(f"lengths must be in 1..{num_frames}, got {bad}")
    if bad := [label for target in targets for label in target if not 1 <= label < vocab_size]:
        raise ValueError(f"labels must be in 1..{vocab_size - 1}, got {bad}")
