"""CTC from scratch against enumeration, torch, k2 and finite differences; and how it goes wrong."""

import runpy
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from plateau.graphs import reference
from plateau.graphs.reference import ctc_loss, soft_alignment
from tests.graphs.enumeration import LENGTHS, TARGETS, ctc_paths, random_scores, total

WEIGHTS = torch.arange(1.0, len(TARGETS) + 1, dtype=torch.float64)  # tell utterances apart


def test_k2_is_not_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "k2", None)  # its import fails
    assert "ctc_loss" in runpy.run_path(reference.__file__)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_loss_and_gradient_are_those_of_enumeration(dtype, error, normalised):
    scores = random_scores(dtype=dtype, normalised=normalised).requires_grad_()
    loss = ctc_loss(scores, LENGTHS, TARGETS)
    assert loss.shape == (len(TARGETS),) and loss.dtype == dtype
    (gradient,) = torch.autograd.grad(loss @ WEIGHTS.to(dtype), scores)

    double = scores.detach().double().requires_grad_()
    paths = [ctc_paths(target, int(n)) for target, n in zip(TARGETS, LENGTHS, strict=True)]
    expected = -torch.stack([total(double[n], paths[n]) for n in range(len(TARGETS))])
    (expected_gradient,) = torch.autograd.grad(expected @ WEIGHTS, double)
    torch.testing.assert_close(loss.double(), expected, rtol=error, atol=error)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=error, atol=error)


def test_gradient_is_that_of_finite_differences():
    for normalised in (True, False):
        scores = random_scores(seed=1, normalised=normalised).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: ctc_loss(x, LENGTHS, TARGETS), (scores,))


def torch_loss(log_probs, lengths, targets, **options):
    return functional.ctc_loss(
        log_probs.transpose(0, 1),
        torch.tensor([label for target in targets for label in target]),
        lengths,
        torch.tensor([len(target) for target in targets]),
        reduction="none",
        **options,
    )


def problem(n, t, v, num_labels, seed=0):
    """Logits, lengths and targets, of which the first is empty and the second all one label."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, t, v, generator=generator, dtype=torch.float64)
    lengths = t - 2 * torch.randperm(n, generator=generator)
    targets = torch.randint(1, v, (n, num_labels), generator=generator).tolist()
    targets = [target[i % 3 :] for i, target in enumerate(targets)]
    targets[:2] = [[], [7] * num_labels]
    return logits.requires_grad_(), lengths, targets


def test_loss_and_gradient_are_those_of_torch():
    logits, lengths, targets = problem(n=6, t=80, v=20, num_labels=20)
    loss = ctc_loss(logits.log_softmax(-1), lengths, targets)
    (gradient,) = torch.autograd.grad(loss @ WEIGHTS, logits)
    expected = torch_loss(logits.log_softmax(-1), lengths, targets)
    (expected_gradient,) = torch.autograd.grad(expected @ WEIGHTS, logits)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)

    # Graves' equation 16: by the logits it is the softmax less the soft alignment.
    _, gamma = soft_alignment(logits.log_softmax(-1), lengths, targets)
    counting = (torch.arange(80) < lengths[:, None])[..., None]
    by_hand = WEIGHTS[:, None, None] * counting * (logits.softmax(-1) - gamma)
    torch.testing.assert_close(gradient, by_hand, rtol=1e-9, atol=1e-12)


def test_float32_does_for_long_utterances():
    logits, lengths, targets = problem(n=2, t=1500, v=30, num_labels=200)
    expected, expected_gamma = soft_alignment(logits.log_softmax(-1), lengths, targets)
    loss, gamma = soft_alignment(logits.float().log_softmax(-1), lengths, targets)
    assert expected.min() > 1000  # e^-1000 is 0 even in double
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gamma.double(), expected_gamma, rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_loss_gradient_and_soft_alignment_are_those_of_k2(normalised):
    pytest.importorskip("k2")
    from plateau.graphs import ctc, dense

    scores, lengths, targets = problem(n=6, t=80, v=20, num_labels=20)
    if normalised:
        scores = scores.detach().log_softmax(-1).requires_grad_()
    loss = ctc_loss(scores, lengths, targets)
    (gradient,) = torch.autograd.grad(loss @ WEIGHTS, scores)
    expected = ctc.ctc_loss(scores, lengths, targets)
    (expected_gradient,) = torch.autograd.grad(expected @ WEIGHTS, scores)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-4)  # k2: float32

    losses, gamma = soft_alignment(scores, lengths, targets)
    assert losses.equal(loss) and not losses.requires_grad and not gamma.requires_grad
    _, expected_gamma = dense.soft_alignment(scores, lengths, ctc.ctc_graphs(targets))
    torch.testing.assert_close(gamma, expected_gamma, rtol=0, atol=1e-5)


def test_soft_alignment_shares_out_each_frame():
    logits, lengths, targets = problem(n=6, t=80, v=20, num_labels=20)
    _, gamma = soft_alignment(logits, lengths, targets)
    counting = (torch.arange(80) < lengths[:, None]).double()
    torch.testing.assert_close(gamma.sum(-1), counting, rtol=0, atol=1e-12)
    assert gamma[counting == 0].eq(0).all()
    for n, target in enumerate(targets):
        assert set(gamma[n].sum(0).nonzero().flatten().tolist()) == {0, *target}


def test_only_empty_targets():
    scores = random_scores()
    loss, gamma = soft_alignment(scores, LENGTHS, [[]] * len(TARGETS))
    expected = [-scores[n, :length, 0].sum() for n, length in enumerate(LENGTHS)]
    torch.testing.assert_close(loss, torch.stack(expected))
    counting = (torch.arange(5) < LENGTHS[:, None]).double()
    torch.testing.assert_close(gamma[..., 0], counting)
    assert gamma[..., 1:].eq(0).all()


def test_too_few_frames():
    lengths = torch.tensor([1, 2, 2, 1, 4, 4])  # one too few for the 1st, 3rd, 5th and last
    fits = torch.tensor([False, True, False, True, True, False])
    lengths[4] = 3  # just enough for [3, 1, 3]
    scores = random_scores().requires_grad_()
    loss = ctc_loss(scores, lengths, TARGETS)
    assert loss.isfinite().equal(fits) and loss[~fits].eq(torch.inf).all()
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert gradient[~fits].eq(0).all()
    alone = ctc_loss(scores[fits], lengths[fits], [TARGETS[n] for n in (1, 3, 4)])
    assert loss[fits].equal(alone)
    (expected_gradient,) = torch.autograd.grad(alone.sum(), scores)
    assert gradient.equal(expected_gradient)
    assert torch_loss(scores, lengths, TARGETS).isfinite().equal(fits)


def test_a_forbidden_label():
    scores = random_scores()
    scores[:, :, 3] = -torch.inf
    scores.requires_grad_()
    loss = ctc_loss(scores, LENGTHS, TARGETS)
    assert (loss == torch.inf).tolist() == [3 in target for target in TARGETS]
    torch.testing.assert_close(loss, torch_loss(scores.detach(), LENGTHS, TARGETS))
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert gradient.isfinite().all() and gradient[4].eq(0).all()


def test_other_frames_and_other_utterances_have_no_effect():
    scores = random_scores()
    loss, gamma = soft_alignment(scores, LENGTHS, TARGETS)
    spoilt = scores.clone()
    spoilt[torch.arange(5) >= LENGTHS[:, None]] = torch.nan
    for changed, other in zip(soft_alignment(spoilt, LENGTHS, TARGETS), (loss, gamma), strict=True):
        assert changed.equal(other)
    for n, length in enumerate(LENGTHS):
        alone = soft_alignment(scores[n : n + 1, :length], LENGTHS[n : n + 1], TARGETS[n : n + 1])
        torch.testing.assert_close(alone[0][0], loss[n])
        torch.testing.assert_close(alone[1][0], gamma[n, :length])


def test_values_out_of_range_are_refused():
    for length in (0, 6):
        with pytest.raises(ValueError, match=r"lengths must be in 1\.\.5"):
            ctc_loss(random_scores()[:1], torch.tensor([length]), [[1]])
    for label in (0, 4):
        with pytest.raises(ValueError, match=r"labels must be in 1\.\.3"):
            ctc_loss(random_scores()[:1], torch.tensor([5]), [[1, label]])
    with pytest.raises(ValueError, match="6 utterances, 6 lengths, 1 targets"):
        ctc_loss(random_scores(), LENGTHS, [[1]])


def test_second_derivatives_are_refused_rather_than_wrong():
    scores = random_scores().requires_grad_()
    loss = ctc_loss(scores, LENGTHS, TARGETS).square().sum()
    (gradient,) = torch.autograd.grad(loss, scores, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


# The mistakes that the docstring of the module names. This is how one begins: probabilities,
# rescaled at each frame, loops, and autograd for the gradient.


def first_attempt(log_probs, target, mistake="", copy=Tensor.clone):
    """-ln p of one target, from scores (T, V), with at most one of the mistakes."""
    labels = [0]
    for label in target:
        labels += [label, 0]
    y = log_probs.exp()
    alpha = y.new_zeros(len(y), len(labels))  # (T, S)
    alpha[0, 0] = y[0, 0]
    alpha[0, 1] = y[0, labels[0 if mistake == "blank in state 1" else 1]]
    log_scale = 0.0
    for t in range(1, len(y)):
        before = copy(alpha[t - 1])
        scale = before.sum()
        if mistake != "scales forgotten":
            log_scale = log_scale + scale.log()
        for s, label in enumerate(labels):
            paths = before[s]
            if s >= 1:
                paths = paths + before[s - 1]
            if s >= 2 and label != 0 and label != labels[s - 2]:
                paths = paths + before[s - 2]
            alpha[t, s] = paths / scale * y[t, label]
    ends = alpha[-2:, -1] if mistake == "two frames of the last state" else alpha[-1, -2:]
    return -ends.sum().log() - log_scale


TARGET = [1, 2, 2, 3]


@pytest.fixture
def utterance():
    """Scores (1, 8, 4), and the true loss and gradient for TARGET."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 8, 4, generator=generator, dtype=torch.float64)
    scores = logits.log_softmax(-1).requires_grad_()
    loss = ctc_loss(scores, torch.tensor([8]), [TARGET])
    return scores, loss[0], torch.autograd.grad(loss, scores)[0]


def test_a_first_attempt_without_mistakes(utterance):
    scores, expected, expected_gradient = utterance
    loss = first_attempt(scores[0], TARGET)
    (gradient,) = torch.autograd.grad(loss, scores)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)

    single = scores.detach().float().requires_grad_()
    with pytest.warns(UserWarning, match="not a double precision"):
        assert not torch.autograd.gradcheck(
            lambda x: first_attempt(x[0], TARGET), (single,), raise_exception=False
        )


@pytest.mark.parametrize(
    "mistake", ["blank in state 1", "two frames of the last state", "scales forgotten"]
)
def test_a_wrong_sum_has_a_gradient_that_is_right_for_it_and_wrong(utterance, mistake):
    scores, expected, expected_gradient = utterance
    loss = first_attempt(scores[0], TARGET, mistake)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert abs(loss - expected) > 0.05
    assert (gradient - expected_gradient).abs().max() > 0.05
    assert torch.autograd.gradcheck(lambda x: first_attempt(x[0], TARGET, mistake), (scores,))


def test_filling_in_place_is_noticed_by_autograd(utterance):
    scores, expected, _ = utterance
    loss = first_attempt(scores[0], TARGET, copy=lambda row: row)  # a view of alpha
    torch.testing.assert_close(loss, expected)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_detaching_to_silence_autograd_gives_a_wrong_gradient(utterance):
    scores, expected, expected_gradient = utterance
    loss = first_attempt(scores[0], TARGET, copy=lambda row: row.detach().clone())
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient[0, :-1].eq(0).all()  # only the last frame learns
    assert expected_gradient[0, :-1].abs().max() > 0.5
