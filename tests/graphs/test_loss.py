import itertools

import pytest
import torch

from plateau.data.tokens import min_frames
from plateau.graphs.ctc import ctc_loss
from plateau.graphs.dense import soft_alignment
from plateau.graphs.loss import frames_needed, graph_loss
from plateau.graphs.topology import TOPOLOGIES
from tests.graphs.enumeration import (
    LENGTHS,
    TARGETS,
    num_labels,
    random_scores,
    sequences,
    total,
)

pytestmark = pytest.mark.usefixtures("engine")  # every test with each engine

# By topology, transcripts and the regular expressions of their alignments; a is label 1, B is 0.
BATCHES = {
    "ctc": {((1, 2), (3,)): "B*a+B*b+B*c+B*", ((2, 2),): "B*b+B+b+B*", (): "B+"},
    "ctc_without_inner_blank": {((1, 2), (3,)): "B*a+b+c+B*", ((2, 2),): "B*b+B+b+B*", (): "B+"},
    "silence": {((1, 2), (3,)): "B*a+b+B*c+B*", ((2,), (1,)): "B*b+B*a+B*", (): "B+"},
    "forced_silence": {((1, 2), (3,)): "B+a+b+B+c+B+", ((2,),): "B+b+B+", (): "B+"},
    "hmm": {((1, 2), (3,)): "a+b+c+", ((2,), (1,)): "b+a+", (): "B+"},
}
FRAMES = torch.tensor([6, 4, 3])
LOG_PRIOR = torch.tensor([0.7, 0.2, 0.06, 0.04], dtype=torch.float64).log()
WEIGHTS = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)  # tell utterances apart


def alignments(pattern, num_frames):
    """All label sequences that match, blank first instead of last."""
    if pattern == "B+":
        return [(0,) * num_frames]
    blank = num_labels(pattern) - 1
    renumbered = {blank: 0} | {label: label + 1 for label in range(blank)}
    return [tuple(map(renumbered.get, labels)) for labels in sequences(pattern, num_frames)]


PATHS = {
    topology: [alignments(p, n) for p, n in zip(batch.values(), FRAMES.tolist(), strict=True)]
    for topology, batch in BATCHES.items()
}


def emissions(normalised=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = 2 * torch.randn(3, 7, 4, generator=generator, dtype=torch.float64)
    return values.log_softmax(-1) if normalised else values


def enumerated(scores, topology, viterbi, gain=lambda path: 0.0):
    losses = []
    for frames, paths in zip(scores, PATHS[topology], strict=True):
        weighted = [(path, gain(path)) for path in paths]
        full, best = total(frames, weighted), total(frames, weighted, best=True)
        losses.append(-(1 - viterbi) * full - viterbi * best)
    return torch.stack(losses)


def test_every_topology_is_here():
    assert BATCHES.keys() == TOPOLOGIES.keys()


@pytest.mark.parametrize("topology", BATCHES)
@pytest.mark.parametrize("viterbi", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("with_prior", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
def test_loss_and_gradient_are_those_of_enumeration(topology, viterbi, with_prior, normalised):
    log_probs = emissions(normalised).requires_grad_()
    scores, options = log_probs, {}
    if with_prior:
        options = {"acoustic_scale": 0.6, "log_prior": LOG_PRIOR, "prior_scale": 0.8}
        scores = 0.6 * log_probs - 0.8 * LOG_PRIOR
    expected = enumerated(scores, topology, viterbi)
    (expected_gradient,) = torch.autograd.grad(expected @ WEIGHTS, log_probs)
    transcripts = list(BATCHES[topology])
    losses = graph_loss(log_probs, FRAMES, transcripts, topology, viterbi, **options)
    (gradient,) = torch.autograd.grad(losses @ WEIGHTS, log_probs)
    torch.testing.assert_close(losses, expected, rtol=0, atol=5e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-5)


@pytest.mark.parametrize("topology", BATCHES)
@pytest.mark.parametrize("viterbi", [0.0, 1.0])
def test_a_delay_penalty_rewards_early_beginnings_in_every_topology(topology, viterbi):
    log_probs = emissions()

    def gain(path):
        begin = [t for t, s in enumerate(path) if s and (t == 0 or path[t - 1] != s)]
        return sum(0.3 * ((len(path) - 1) / 2 - t) for t in begin)

    expected = enumerated(log_probs, topology, viterbi, gain)
    losses = graph_loss(log_probs, FRAMES, list(BATCHES[topology]), topology, viterbi, 0.3)
    torch.testing.assert_close(losses, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("topology", BATCHES)
@pytest.mark.parametrize("normalise", [True, False])
def test_gradient_is_that_of_finite_differences(topology, normalise):
    """Through log-softmax, and of scores that are not normalised; both with a prior."""

    def loss(scores):
        log_probs = scores.log_softmax(-1) if normalise else scores
        prior = {"log_prior": LOG_PRIOR, "prior_scale": 0.7, "acoustic_scale": 0.9}
        return graph_loss(log_probs, FRAMES, list(BATCHES[topology]), topology, 0.0, **prior).sum()

    scores = emissions(normalised=False, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(scores), scores)
    step = 2.0**-6  # scores are float32 inside: a coarse step
    generator = torch.Generator().manual_seed(2)
    for index in torch.randint(0, scores.numel(), (12,), generator=generator).tolist():
        moved = scores.detach().repeat(2, 1, 1, 1)
        moved.view(2, -1)[:, index] += torch.tensor([step, -step])
        difference = (loss(moved[0]) - loss(moved[1])) / (2 * step)
        assert float(gradient.view(-1)[index]) == pytest.approx(float(difference), abs=2e-4)


def test_plain_ctc_is_ctc_loss():
    log_probs = random_scores()
    transcripts = [[[token] for token in target] for target in TARGETS]
    losses = graph_loss(log_probs, LENGTHS, transcripts)
    assert losses.equal(ctc_loss(log_probs, LENGTHS, TARGETS))


def test_soft_alignments_of_transcripts():
    """Where blank is frequent, a prior takes frames from it."""
    transcripts = list(BATCHES["ctc"])[:2]
    log_probs = emissions()[:2]

    def blank(prior_scale):
        def loss(*arguments):
            return graph_loss(*arguments, log_prior=LOG_PRIOR, prior_scale=prior_scale)

        _, gamma = soft_alignment(log_probs, FRAMES[:2], transcripts, loss)
        torch.testing.assert_close(gamma.sum((1, 2)), FRAMES[:2].double())
        return float(gamma[:, :, 0].sum())

    assert blank(0.0) > blank(0.5) > blank(1.0)


@pytest.mark.parametrize("topology", BATCHES)
def test_frames_needed_are_those_of_the_shortest_alignment(topology):
    for words, pattern in BATCHES[topology].items():
        shortest = next(n for n in range(1, 8) if alignments(pattern, n))
        assert frames_needed(topology, words) == shortest
        too_few = torch.tensor([max(1, shortest - 1)])
        loss = graph_loss(emissions()[:1], too_few, [words], topology)
        assert bool(loss.isinf()) == (too_few < shortest)


def test_frames_needed_by_ctc():
    for length in range(1, 5):
        for tokens in itertools.product([1, 2], repeat=length):
            assert frames_needed("ctc", [tokens]) == min_frames(tokens)


def test_words_do_not_matter_to_topologies_that_know_of_none():
    log_probs = emissions()[:1]
    for topology in ("ctc", "ctc_without_inner_blank", "hmm"):
        together, apart = (
            graph_loss(log_probs, FRAMES[:1], [words], topology)
            for words in ([[1, 2, 2]], [[1], [2, 2]])
        )
        assert together.equal(apart)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("topology", BATCHES)
def test_the_gpu_agrees(topology):
    log_probs, transcripts = emissions(), list(BATCHES[topology])
    options = {"viterbi": 0.4, "delay_penalty": 0.1, "topology": topology}
    on_cpu = graph_loss(log_probs, FRAMES, transcripts, log_prior=LOG_PRIOR, **options)
    prior = LOG_PRIOR.cuda()
    on_gpu = graph_loss(log_probs.cuda(), FRAMES.cuda(), transcripts, log_prior=prior, **options)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu)
