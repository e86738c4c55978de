import math

import pytest
import torch

from plateau.models.joiner import Joiner, JoinerOptions

D, P, J, V = 5, 4, 6, 7
every = pytest.mark.parametrize("kind", ["additive", "separate_blank"])


def make(kind):
    torch.manual_seed(0)
    return Joiner(D, P, V, JoinerOptions(kind=kind, dim=J))


def inputs():
    torch.manual_seed(1)
    return torch.randn(2, 3, 1, J), torch.randn(2, 1, 4, J)


@every
def test_probabilities_sum_to_one(kind):
    log_probs = make(kind)(*inputs())
    assert log_probs.shape == (2, 3, 4, V)  # the projections broadcast
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 3, 4))


@every
def test_formula(kind):
    """Number by number, from the definitions in `JoinerOptions`."""
    joiner = make(kind).double()
    encoder, predictor = (x.double() for x in inputs())
    log_probs = joiner(encoder, predictor)
    weight, bias = joiner.output.weight.tolist(), joiner.output.bias.tolist()
    for n, t, u in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        summed = (encoder[n, t, 0] + predictor[n, 0, u]).tolist()
        hidden = [math.tanh(x) for x in summed]
        z = [sum(w * h for w, h in zip(row, hidden, strict=True)) for row in weight]
        z = [a + b for a, b in zip(z, bias, strict=True)]
        if kind == "additive":
            total = sum(map(math.exp, z))
            expected = [math.exp(x) / total for x in z]
        else:
            emit, total = 1 / (1 + math.exp(-z[0])), sum(map(math.exp, z[1:]))
            expected = [1 - emit] + [emit * math.exp(x) / total for x in z[1:]]
        assert log_probs[n, t, u].exp().tolist() == pytest.approx(expected, rel=1e-5)


@every
def test_all_parameters_learn(kind):
    joiner = make(kind)
    encoder, predictor = torch.randn(2, 3, D), torch.randn(2, 4, P)
    log_probs = joiner(
        joiner.encoder(encoder).unsqueeze(2), joiner.predictor(predictor).unsqueeze(1)
    )
    log_probs[..., 2].sum().backward()
    for name, parameter in joiner.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@every
def test_float32_under_autocast(kind):
    """Sure scores as well: in bfloat16 log-probabilities near 0 would all be 0 or -0.008."""
    joiner = make(kind)
    with torch.no_grad():
        joiner.output.bias[0] = -8.0 if kind == "separate_blank" else 8.0
    expected = joiner(*inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert joiner.output(inputs()[0]).dtype == torch.bfloat16  # autocast is at work
        log_probs = joiner(*inputs())
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 3, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(log_probs, expected, rtol=0.05, atol=0.05)
    log_probs.sum().backward()
    assert all(joiner.output.weight.grad.isfinite().flatten())


def test_extreme_scores_stay_finite():
    joiner = make("separate_blank")
    for emit in (-200.0, 200.0):
        with torch.no_grad():
            joiner.output.bias[0] = emit
        log_probs = joiner(*inputs())
        assert log_probs.isfinite().all()
        sure = log_probs[..., 0] if emit < 0 else log_probs[..., 1:].logsumexp(-1)
        torch.testing.assert_close(sure, torch.zeros(2, 3, 4), rtol=0, atol=1e-5)
