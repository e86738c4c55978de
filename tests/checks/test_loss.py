"""Each mistake of a loss is planted, and named; right losses pass."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from plateau.checks.loss import check_cross_entropy, check_frame_loss, weight_of_paths
from plateau.config import UserError
from plateau.graphs.counts import count_paths, paths
from plateau.graphs.ctc import ctc_loss
from plateau.graphs.labels import BLANK
from plateau.graphs.loss import graph_loss
from plateau.graphs.topology import TOPOLOGIES, chain, segments_of

VOCAB = 7


def right(logits, targets, counted):
    """By torch, which has no say in the check."""
    targets = targets.masked_fill(~counted, -100)
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="sum")


def masked(log_probs, targets, counted):
    """Of what are taken for log-probabilities."""
    return F.nll_loss(log_probs.transpose(1, 2), targets, reduction="none")[counted]


@pytest.mark.parametrize("vocab", [2, 3, 5, 7, 500])
def test_a_right_cross_entropy_passes(vocab):
    check_cross_entropy(right, vocab)
    check_cross_entropy(lambda x, y, m: masked(x.log_softmax(2), y, m), vocab)


# What the notes of the seed tell of, and their like.
MISTAKES = {
    "a softmax of a softmax": lambda x, y, m: right(x.softmax(2), y, m),
    "a softmax over the places, not over the classes": (
        lambda x, y, m: masked(x.log_softmax(dim=1), y, m)
    ),
    "a softmax over the utterances, not over the classes": (
        lambda x, y, m: masked(x.log_softmax(dim=0), y, m)
    ),
    "logits that have no softmax": masked,
    "padding that is counted as a label": lambda x, y, m: right(x, y, torch.ones_like(m)),
    "targets that come a place late": lambda x, y, m: right(x, y.roll(1, 1), m),
    "targets that come a place early": lambda x, y, m: right(x, y.roll(-1, 1), m),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("vocab", [4, 5, 50])
def test_planted_mistakes_of_a_cross_entropy_are_named(mistake, vocab):
    with pytest.raises(UserError, match=f"that is what comes of {mistake}$") as error:
        check_cross_entropy(MISTAKES[mistake], vocab)
    assert str(error.value).startswith("the cross entropy of 10 tokens is ")


def mean(logits, targets, counted):
    return right(logits, targets, counted) / counted.sum()


def view(logits, targets, counted):
    """Axes that a view mixes up, where a transpose is meant."""
    n, u, v = logits.shape
    return F.cross_entropy(logits.reshape(n, v, u), targets, reduction="none")[counted]


def squared(logits, targets, counted):
    return (logits.softmax(2) - F.one_hot(targets, logits.shape[2])).square()[counted]


@pytest.mark.parametrize("loss", [mean, view, squared])
def test_other_mistakes_are_found(loss):
    with pytest.raises(UserError, match="look at its axes, and what it sums"):
        check_cross_entropy(loss, VOCAB)


def test_what_is_said_of_a_mistake():
    with pytest.raises(UserError) as error:
        check_cross_entropy(MISTAKES["a softmax of a softmax"], 4)
    perfect = 10 * (math.log(math.e + 3) - 1)  # of a softmax of one-hot vectors
    assert str(error.value) == (
        f"the cross entropy of 10 tokens is {perfect:.4f} nats where the output is perfect, and "
        "must be 0.0000\nthat is what comes of a softmax of a softmax"
    )
    with pytest.raises(UserError) as error:
        check_cross_entropy(mean, 4)
    one, ten = math.log(4), 10 * math.log(4)
    assert f"is {one:.4f} nats where the output is uniform, and must be {ten:.4f}" in str(
        error.value
    )


# Frames

TRANSCRIPTS = [[[1, 2], [3]], [[4]], [[5, 5, 6], [1], [2, 2]]]


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("viterbi", [0.0, 0.3, 1.0])
def test_right_losses_of_all_topologies_pass(topology, viterbi):
    def loss(log_probs, lengths, transcripts):
        return graph_loss(log_probs, lengths, transcripts, topology, viterbi)

    check_frame_loss(loss, topology, TRANSCRIPTS, VOCAB, viterbi)


def by_torch(log_probs, lengths, transcripts):
    """CTC by torch."""
    flat = [[token for word in words for token in word] for words in transcripts]
    return F.ctc_loss(
        log_probs.transpose(0, 1),
        torch.tensor([token for tokens in flat for token in tokens]),
        lengths,
        torch.tensor([len(tokens) for tokens in flat]),
        reduction="none",
    )


def counted(log_probs, lengths, transcripts):
    """Transcripts padded with label 0 up to the longest."""
    most = max(sum(map(len, words)) for words in transcripts)
    flat = [[token for word in words for token in word] for words in transcripts]
    padded = [[[*tokens, *[BLANK] * (most - len(tokens))]] for tokens in flat]
    return graph_loss(log_probs, lengths, padded, "hmm")


FRAMES = {
    "a softmax of a softmax": lambda x, n, w: by_torch(x.exp().log_softmax(2), n, w),
    "a softmax over the frames, not over the labels": (
        lambda x, n, w: by_torch(x.log_softmax(1), n, w)
    ),
    "padding that is counted as frames": (
        lambda x, n, w: by_torch(x, torch.full_like(n, x.shape[1]), w)
    ),
}


@pytest.mark.parametrize("mistake", FRAMES)
def test_planted_mistakes_of_a_frame_loss_are_named(mistake):
    check_frame_loss(by_torch, "ctc", TRANSCRIPTS, VOCAB)
    with pytest.raises(UserError, match=f"that is what comes of {mistake}$") as error:
        check_frame_loss(FRAMES[mistake], "ctc", TRANSCRIPTS, VOCAB)
    assert str(error.value).startswith("the loss of 3 transcripts (loss.topology=ctc) is ")


def test_padding_of_the_text_is_named():
    with pytest.raises(UserError, match=r"comes of padding of the text that is counted as labels$"):
        check_frame_loss(counted, "hmm", TRANSCRIPTS, VOCAB)


def test_another_topology_than_the_one_said_is_found():
    def plain(log_probs, lengths, transcripts):
        flat = [[token for word in words for token in word] for words in transcripts]
        return ctc_loss(log_probs, lengths, flat)

    check_frame_loss(plain, "ctc", TRANSCRIPTS, VOCAB)
    for topology in TOPOLOGIES.keys() - {"ctc"}:
        with pytest.raises(UserError, match=rf"topology={topology}\) is .* where the output is"):
            check_frame_loss(plain, topology, TRANSCRIPTS, VOCAB)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_truth_is_the_sum_over_all_paths_one_by_one(topology):
    """Which counts tell for uniform scores, and listing them for others."""
    fsa = chain(segments_of(topology, [[1, 1], [2]], BLANK))
    scores = np.random.default_rng(0).normal(size=(7, 3))
    listed = [
        sum(scores[t, label] for t, label in enumerate(labels)) for labels, _ in paths(fsa, 7)
    ]
    assert weight_of_paths(fsa, scores, np.logaddexp) == pytest.approx(np.logaddexp.reduce(listed))
    assert weight_of_paths(fsa, scores, np.maximum) == pytest.approx(max(listed))
    uniform = weight_of_paths(fsa, np.full((7, 3), -math.log(3)), np.logaddexp)
    assert uniform == pytest.approx(math.log(count_paths(fsa, 7)) - 7 * math.log(3))
    assert weight_of_paths(fsa, scores[:1], np.logaddexp) == -math.inf
