"""Losses of outputs for which they are known: perfect ones, uniform ones, and any by hand.

A loss that is not 0 on perfect output, since a softmax is applied twice or over the wrong axis, or
since padding counts as a label, still goes down for a while, and then stays where a model says the
same few words whatever it hears. Each such mistake is made here on purpose: the one that gives what
the loss gives is named.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plateau.config import UserError
from plateau.graphs.graph import Graphs, arcs_of
from plateau.graphs.labels import BLANK
from plateau.graphs.topology import Words, chain, segments_of

SURE = 100.0  # logit of what an output is sure of
EXTRA = 2  # frames that an alignment has more than it needs
LENGTHS = (5, 3, 2)  # of texts with which a cross entropy is tried
# The total of a batch from logits (N, U, V), targets (N, U), and which of them count (N, U).
CrossEntropy = Callable[[Tensor, Tensor, Tensor], Tensor]
# The losses (N,) from log-probabilities (N, T, V), lengths (N,), and the tokens of each word.
FrameLoss = Callable[[Tensor, Tensor, Sequence[Words]], Tensor]


def check_cross_entropy(loss_of_logits: CrossEntropy, vocab: int) -> None:
    """The cross entropy of places of a text: 0 if perfect, log V a place if uniform.

    Args:
        loss_of_logits: given logits (N, U, V), targets (N, U), padded with 0, and which of them
            count (N, U), bool: the loss in nats, whose sum is taken
        vocab: V, 2 at least

    Raises:
        UserError: it is another; it names the mistake that gives it, where that is known.
    """
    generator = torch.Generator().manual_seed(0)
    shape = len(LENGTHS), max(LENGTHS)
    counted = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]  # (N, U)
    targets = torch.randint(vocab, shape, generator=generator)
    targets[:, 1] = (targets[:, 0] + 1) % vocab  # not all the same
    targets = targets.where(counted, torch.zeros_like(targets))
    noise = torch.randn(*shape, vocab, generator=generator)
    sure = SURE * torch.nn.functional.one_hot(targets, vocab)
    outputs = {
        "perfect": sure.where(counted[..., None], 3 * noise),
        "uniform": torch.zeros_like(noise),
        "arbitrary": noise,
    }
    cases = {name: (logits, targets, counted) for name, logits in outputs.items()}
    mistakes = {
        "a softmax of a softmax": lambda x, y, m: (x.softmax(2), y, m),
        "a softmax over the places, not over the classes": lambda x, y, m: (x, y, m, 1),
        "a softmax over the utterances, not over the classes": lambda x, y, m: (x, y, m, 0),
        "logits that have no softmax": lambda x, y, m: (x, y, m, None),
        "padding that is counted as a label": lambda x, y, m: (x, y, torch.ones_like(m)),
        "targets that come a place late": lambda x, y, m: (x, y.roll(1, 1), m),
        "targets that come a place early": lambda x, y, m: (x, y.roll(-1, 1), m),
    }
    what = f"the cross entropy of {int(counted.sum())} tokens"
    _compare(what, loss_of_logits, _by_hand, cases, mistakes)


def _by_hand(logits: Tensor, targets: Tensor, counted: Tensor, axis: int | None = 2) -> float:
    """Sum over the places that count; without axis, without a softmax."""
    log_probs = logits.double() if axis is None else logits.double().log_softmax(axis)
    return -log_probs.gather(2, targets[..., None])[..., 0][counted].sum().item()


def check_frame_loss(
    loss: FrameLoss,
    topology: str,
    transcripts: Sequence[Words],
    vocab: int,
    viterbi: float = 0.0,
) -> None:
    """The loss of frames against graphs: minus the log of the weight of all alignments.

    Of an output that is sure of one alignment it is 0, or less where several paths have its labels;
    of a uniform one T log V - log C(T), with C(T) paths of T frames (`plateau.graphs.counts`).

    Args:
        loss: given log-probabilities (N, T, V), lengths (N,) and transcripts: losses in nats, whose
            sum is taken
        topology: one of `plateau.graphs.topology.TOPOLOGIES`
        transcripts: N, of different lengths, for each word its tokens
        vocab: V, with the blank
        viterbi: share of the best alignment's loss in the mix with the sum over all

    Raises:
        UserError: it is another; it names the mistake that gives it, where that is known.
    """
    generator = torch.Generator().manual_seed(0)
    alignments = []
    for words in transcripts:
        needed = [s.label for s in segments_of(topology, words, BLANK) if not s.optional]
        alignments.append(needed + needed[-1:] * EXTRA)
    lengths = torch.tensor([len(alignment) for alignment in alignments])
    noise = torch.randn(len(transcripts), int(lengths.max()), vocab, generator=generator)
    sure = noise.clone()  # of padding, which may say anything
    for n, alignment in enumerate(alignments):
        one_hot = torch.nn.functional.one_hot(torch.tensor(alignment), vocab)
        sure[n, : len(alignment)] = SURE * one_hot
    outputs = {"perfect": sure, "uniform": torch.zeros_like(noise), "arbitrary": noise}
    cases = {
        name: (logits.log_softmax(2), lengths, transcripts) for name, logits in outputs.items()
    }

    def by_hand(log_probs: Tensor, lengths: Tensor, transcripts: Sequence[Words]) -> float:
        total = 0.0
        for scores, length, words in zip(log_probs, lengths.tolist(), transcripts, strict=True):
            graph = chain(segments_of(topology, words, BLANK))
            frames = scores[:length].double().numpy()
            for add, share in ((np.logaddexp, 1 - viterbi), (np.maximum, viterbi)):
                if share:
                    total -= share * weight_of_paths(graph, frames, add)
        return total

    mistakes = {
        "a softmax of a softmax": lambda x, n, w: (x.exp().log_softmax(2), n, w),
        "a softmax over the frames, not over the labels": lambda x, n, w: (x.log_softmax(1), n, w),
        "padding that is counted as frames": lambda x, n, w: (x, torch.full_like(n, x.shape[1]), w),
        "padding of the text that is counted as labels": lambda x, n, w: (x, n, _padded(w)),
    }
    what = f"the loss of {len(transcripts)} transcripts (loss.topology={topology})"
    _compare(what, loss, by_hand, cases, mistakes)


def _padded(transcripts: Sequence[Words]) -> list[Words]:
    """Transcripts with label 0 up to the length of the longest."""
    most = max(sum(map(len, words)) for words in transcripts)
    return [[*words, *[[BLANK]] * (most - sum(map(len, words)))] for words in transcripts]


def weight_of_paths(graph: Graphs, scores: np.ndarray, add: np.ufunc) -> float:
    """Log of the weight of all paths of T frames, frame by frame; -inf where there is none.

    Args:
        graph: one.
        scores: (T, V), nats.
        add: `numpy.logaddexp`, or `numpy.maximum` for the best path alone.
    """
    arcs = arcs_of(graph)
    source, target, label = (
        np.array([getattr(arc, name) for arc in arcs if arc.label != -1])
        for name in ("source", "target", "label")
    )
    weight = np.full(1 + max(arc.target for arc in arcs), -np.inf)  # of all paths to each state
    weight[0] = 0.0
    for frame in scores:
        before, weight = weight, np.full_like(weight, -np.inf)
        add.at(weight, target, before[source] + frame[label])
    return float(add.reduce([weight[arc.source] for arc in arcs if arc.label == -1]))


def _compare(
    what: str,
    loss: Callable[..., Tensor],
    by_hand: Callable[..., float],
    cases: Mapping[str, Sequence[Any]],
    mistakes: Mapping[str, Callable[..., Sequence[Any]]],
) -> None:
    """See that a loss is what it is by hand.

    Args:
        what: the loss is of.
        loss: that is tried.
        by_hand: the same, in nats.
        cases: by the kind of output, what both are given.
        mistakes: by name, what by hand is given if it is made.

    Raises:
        UserError: it is not so.
    """
    with torch.no_grad():
        found = {name: float(loss(*case).sum()) for name, case in cases.items()}
    expected = {name: by_hand(*case) for name, case in cases.items()}
    if _same(found, expected):
        return
    named = [
        mistake
        for mistake, make in mistakes.items()
        if _same(found, {name: by_hand(*make(*case)) for name, case in cases.items()})
    ]
    wrong = next(name for name in cases if not _same({name: found[name]}, expected))
    known = f"that is what comes of {named[0]}" if named else "look at its axes, and what it sums"
    raise UserError(
        f"{what} is {found[wrong]:.4f} nats where the output is {wrong}, and must be "
        f"{expected[wrong] + 0.0:.4f}\n{known}"
    )


def _same(found: Mapping[str, float], expected: Mapping[str, float]) -> bool:
    """Equal but for rounding; the perfect output's logits are large, and its loss is small."""
    return all(np.isclose(found[name], expected[name], rtol=1e-4, atol=1e-3) for name in found)
