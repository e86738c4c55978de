import dataclasses
import math

import pytest
import torch

from plateau.config import UserError
from plateau.models.bounds import (
    Averages,
    BoundOptions,
    averages,
    elbo,
    importance_weighted,
    objective,
)
from plateau.models.latent import Terms
from plateau.models.vae import Vae, VaeOptions
from plateau.models.vrnn import Vrnn, VrnnOptions

N, T, Z = 3, 4, 2
LENGTHS = torch.tensor([4, 1, 2])


def terms():
    """Any terms, with padding."""
    torch.manual_seed(0)
    steps = (torch.arange(T) < LENGTHS[:, None]).double()
    log_prob = torch.randn(N, T).double() * steps
    kl, ratio = (torch.rand(N, T, Z).double() * steps.unsqueeze(2) for _ in range(2))
    latents = torch.zeros(N, T, Z)
    return Terms(log_prob.requires_grad_(), kl.requires_grad_(), ratio, latents, latents, LENGTHS)


def test_elbo_is_log_p_minus_kl():
    t = terms()
    for n in range(N):
        kl = sum(t.kl_per_dim[n, s, d].item() for s in range(T) for d in range(Z))
        ratio = sum(t.log_ratio[n, s, d].item() for s in range(T) for d in range(Z))
        log_prob = sum(t.log_prob[n].tolist())
        assert elbo(t)[n].item() == pytest.approx(log_prob - kl)
        assert elbo(t, analytic_kl=False)[n].item() == pytest.approx(log_prob - ratio)
        assert t.log_weight[n].item() == pytest.approx(log_prob - ratio)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        (BoundOptions(kl_weight=0.5), {0: 0.5, 10**6: 0.5}),
        (BoundOptions(0.5, "linear", 100), {0: 0.0, 50: 0.25, 100: 0.5, 10**6: 0.5}),
        (BoundOptions(2.0, "cyclic", 100), {0: 0.0, 25: 1.0, 50: 2.0, 99: 2.0, 100: 0.0, 125: 1.0}),
    ],
)
def test_weight_of_the_kl_at_a_step(options, weights):
    assert {step: options.weight_at(step) for step in weights} == weights


def test_free_nats_go_to_zero():
    options = BoundOptions(free_nats=0.2)
    assert options.free_nats_steps >= 20000
    found = [options.free_nats_at(step) for step in (0, 10000, 20000, 10**6)]
    assert found == [0.2, 0.1, 0.0, 0.0]
    assert BoundOptions(free_nats=0.2, free_nats_steps=0).free_nats_at(10**6) == 0.2


def test_the_objective_is_the_bound_where_nothing_else_is_asked_for():
    t = terms()
    torch.testing.assert_close(objective(t, BoundOptions(), 0), elbo(t).sum())
    sampled = objective(t, BoundOptions(analytic_kl=False), 0)
    torch.testing.assert_close(sampled, elbo(t, analytic_kl=False).sum())
    halved = objective(t, BoundOptions(1.0, "linear", 10), 5)
    torch.testing.assert_close(halved, t.log_prob.sum() - 0.5 * t.kl.sum())


def test_free_nats_are_of_a_dimension_in_the_mean_over_a_batchs_steps():
    t = terms()
    means = [t.kl_per_dim[:, :, d].sum().item() / LENGTHS.sum().item() for d in range(Z)]
    low, high = sorted(range(Z), key=lambda d: means[d])
    free = sum(means) / 2
    found = objective(t, BoundOptions(free_nats=free, free_nats_steps=0), 0)
    expected = t.log_prob.sum().item() - (free + means[high]) * LENGTHS.sum().item()
    assert found.item() == pytest.approx(expected)
    found.backward()
    assert not t.kl_per_dim.grad[..., low].any()
    assert t.kl_per_dim.grad[..., high].eq(-1).all()


@pytest.mark.parametrize("analytic", [True, False])
def test_at_weight_zero_the_prior_has_no_gradient_and_the_rest_has(analytic):
    torch.manual_seed(0)
    model = Vrnn(3, VrnnOptions("vrnn", "lstm", 5, Z, 4, 4))
    t = model(torch.ones(N, T, 3), LENGTHS)
    objective(t, BoundOptions(1.0, "linear", 10, analytic_kl=analytic), 0).backward()
    for name, parameter in model.named_parameters():
        expected = not name.startswith("prior.")
        assert (parameter.grad is not None and bool(parameter.grad.any())) is expected, name


class GivenWeights(torch.nn.Module):
    """A model whose weights are known: those of draw k are log(k + 1) + n."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def log_weights(self, x, lengths, k):
        first = sum(self.drawn)
        self.drawn.append(k)
        draws = torch.arange(first, first + k) + 1.0
        return draws.log().double() + torch.arange(len(x)).unsqueeze(1)


@pytest.mark.parametrize(
    ("chunk", "drawn"), [(64, [10]), (4, [4, 4, 2]), (10, [10]), (1, [1] * 10)]
)
def test_the_importance_weighted_bound_is_the_log_of_the_mean_weight(chunk, drawn):
    model = GivenWeights()
    found = importance_weighted(model, torch.zeros(3, 1, 1), torch.ones(3), 10, chunk)
    expected = [math.log(5.5) + n for n in range(3)]  # the mean of 1 … 10
    assert found.tolist() == pytest.approx(expected) and model.drawn == drawn


def test_weights_that_exp_cannot_hold():
    class Far(GivenWeights):
        def log_weights(self, x, lengths, k):
            return super().log_weights(x, lengths, k) - 40000

    found = importance_weighted(Far(), torch.zeros(1, 1, 1), torch.ones(1), 10)
    assert found.item() == pytest.approx(math.log(5.5) - 40000)


def test_one_sample_is_the_sampled_bound():
    torch.manual_seed(0)
    model = Vae(5, VaeOptions(latent_dim=2, hidden_dim=6))
    x, lengths = torch.ones(4, 3, 5), torch.tensor([3, 1, 2, 3])
    torch.manual_seed(1)
    expected = elbo(model(x, lengths), analytic_kl=False)
    torch.manual_seed(1)
    torch.testing.assert_close(importance_weighted(model, x, lengths, 1), expected.detach())


def test_log_weights_of_a_sequence_are_of_that_sequence():
    """(N, K) in the order of the sequences, each draw of its own."""
    torch.manual_seed(0)
    model = Vae(5, VaeOptions(latent_dim=2, hidden_dim=6)).double()
    x, lengths = torch.rand(3, 2, 5).double().round(), torch.tensor([2, 1, 2])
    weights = model.log_weights(x, lengths, 500)
    assert weights.shape == (3, 500)
    for n in range(3):
        alone = model.log_weights(x[n : n + 1], lengths[n : n + 1], 500)[0]
        error = 4 * (weights[n].var() / 500 + alone.var() / 500) ** 0.5
        assert (weights[n].mean() - alone.mean()).abs() < error
        assert len(weights[n].unique()) == 500


def test_averages_weigh_sequences_by_their_length():
    found = averages(torch.tensor([-40.0, -3.0, -8.0]), torch.tensor([8, 1, 1]), 2)
    assert found == Averages(-17.0, -5.1, -2.55)
    # The mean of the sequences' means, planted, is another number.
    assert found.per_step != pytest.approx((-40 / 8 - 3 - 8) / 3)
    assert found.bits.per_dim == pytest.approx(-2.55 / math.log(2))
    assert found.bits.per_sequence == pytest.approx(-17 * math.log2(math.e))


def test_options_have_ranges():
    with pytest.raises(UserError, match=r"bound\.kl_weight is -1; it must be at least 0"):
        BoundOptions(kl_weight=-1)
    with pytest.raises(UserError, match=r"bound\.kl_steps is 0"):
        dataclasses.replace(BoundOptions(), kl_steps=0)
