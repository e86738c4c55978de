import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from plateau.checks.outputs import scipy_log_prob
from plateau.config import UserError
from plateau.models.distributions import MAX_CORRELATION, OutputOptions, make_output

H, K, BINS = 5, 3, 16
DIM = {"gaussian": 2, "mixture": 2, "strokes": 3, "bernoulli": 3, "logistics": 2}
KINDS = list(itertools.product(DIM, (False, True)))
every = pytest.mark.parametrize(("kind", "autoregressive"), KINDS)


def make(kind, autoregressive=False, dim=None, components=K, scale=2.0):
    """An output whose parameters are not all alike."""
    torch.manual_seed(0)
    options = OutputOptions(kind, components, autoregressive, masked_dim=16, bins=BINS)
    output = make_output(H, dim or DIM[kind], options).double()
    with torch.no_grad():
        for parameter in output.parameters():
            parameter.mul_(scale)
    return output


def hidden(*shape):
    return torch.randn(*shape, H, generator=torch.Generator().manual_seed(1)).double()


def support(kind):
    """Points (M, D) all over the values and how much each stands for, (M,)."""
    if kind == "bernoulli":
        points = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
        return points.double(), torch.ones(8).double()
    if kind == "logistics":
        grid = torch.linspace(-1, 1, BINS).double()
        return torch.cartesian_prod(grid, grid), torch.ones(BINS**2).double()
    step = 0.15
    grid = torch.arange(-20, 20, step).double()
    if kind == "strokes":
        points = torch.cartesian_prod(grid, grid, torch.tensor([0.0, 1.0]).double())
    else:
        points = torch.cartesian_prod(grid, grid)
    return points, torch.full((len(points),), step**2).double()


def probabilities(log_prob, kind):
    """Of the points of `support`."""
    points, weights = support(kind)
    return log_prob(points).exp() * weights


def sums_to_one(log_prob, kind):
    return math.isclose(probabilities(log_prob, kind).sum().item(), 1, abs_tol=1e-6)


def log_prob_of(output):
    """log p(x) at one hidden, of points (M, D)."""
    return lambda x: output.log_prob(hidden().expand(len(x), H), x)


@every
@torch.no_grad()
def test_all_probability_is_one(kind, autoregressive):
    assert sums_to_one(log_prob_of(make(kind, autoregressive)), kind)


WRONG = {
    "the normaliser has the latent's 200 dimensions": lambda p, _: p - 198 / 2 * math.log(math.tau),
    "the normaliser has one dimension": lambda p, _: p + 0.5 * math.log(math.tau),
    "π in place of log π": lambda p, _: p + math.log(math.tau) - math.tau,
    "no log-Jacobian of data that were halved": lambda p, _: p + 2 * math.log(2),
    "a factor that depends on the last value": lambda p, x: p - 0.5 * x[:, -1],
}


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "strokes"])
@torch.no_grad()
def test_planted_mistakes_are_seen_by_the_integral(kind):
    points, _ = support(kind)
    right = log_prob_of(make(kind))(points)
    assert sums_to_one(lambda _: right, kind)
    for name, mistake in WRONG.items():
        wrong = mistake(right, points)
        assert not sums_to_one(lambda _, wrong=wrong: wrong, kind), name


def test_the_mistake_of_the_seed_in_numbers():
    """Forty tests at -37,000: 200 steps of a Gaussian whose normaliser counts 200 dimensions."""
    output = make("gaussian")
    right = output.log_prob(hidden(200), torch.zeros(200, 2).double())
    wrong = WRONG["the normaliser has the latent's 200 dimensions"](right, None)
    normaliser = 200 * 0.5 * 200 * math.log(math.tau)
    assert normaliser == pytest.approx(36757.5, abs=0.05)
    of_two = 200 * 0.5 * 2 * math.log(math.tau)
    assert (right - wrong).sum().item() == pytest.approx(normaliser - of_two)


@every
def test_log_probabilities_are_scipys(kind, autoregressive):
    output, given, options = make(kind, autoregressive), hidden(4), OutputOptions(kind, K)
    options = dataclasses.replace(options, autoregressive=autoregressive, bins=BINS)
    x = {"strokes": [0.3, -0.8, 1.0], "bernoulli": [1.0, 0.0, 1.0]}
    value = torch.tensor(x.get(kind, [-1.0, 7 / 15]), dtype=torch.double).expand(4, -1)
    found = output.log_prob(given, value).detach().numpy()
    expected = scipy_log_prob(options, output.statistics(given, value), value)
    assert found == pytest.approx(expected, abs=1e-9)
    planted = scipy_log_prob(options, output.statistics(given + 0.1, value), value)
    assert not np.isclose(found, planted, atol=1e-9).any()


def test_statistics_of_strokes_follow_graves():
    """Eqs. 19 to 22, but for the softplus of sigma with its floor and the largest correlation."""
    output, given = make("strokes"), hidden()
    raw = output.parameters_of(given)
    weight, mean, sigma, correlation = raw[:-1].reshape(K, 6).split([1, 2, 2, 1], dim=1)
    found = output.statistics(given)
    torch.testing.assert_close(found["weight"], weight[:, 0].softmax(0))
    torch.testing.assert_close(found["mean"], mean)
    torch.testing.assert_close(found["sigma"], sigma.exp().log1p() + 1e-3)
    torch.testing.assert_close(found["correlation"], MAX_CORRELATION * correlation[:, 0].tanh())
    torch.testing.assert_close(found["probability"], raw[-1:].sigmoid())


@every
def test_samples_have_the_density_s_moments(kind, autoregressive):
    """First and second moments, of samples and by quadrature, within four standard errors."""
    torch.manual_seed(3)
    output, num = make(kind, autoregressive), 20000
    samples = output.sample(hidden().expand(num, H))
    points, _ = support(kind)
    weights = probabilities(lambda x: log_prob_of(output)(x).detach(), kind)

    def moments(x):
        return torch.cat([x, (x.unsqueeze(2) * x.unsqueeze(1)).flatten(1)], dim=1)

    expected = weights @ moments(points)
    found = moments(samples)
    errors = 4 * found.std(0) / num**0.5
    assert ((found.mean(0) - expected).abs() < errors).all()
    if not autoregressive:
        tolerance = 1e-2 if kind == "logistics" else 1e-6
        dim = points.shape[1]
        torch.testing.assert_close(output.mean(hidden()), expected[:dim], atol=tolerance, rtol=0)
    # Samples of another hidden are seen to be others.
    others = moments(output.sample((hidden() + 0.5).expand(num, H)))
    assert not ((others.mean(0) - expected).abs() < errors).all()


@pytest.mark.parametrize("kind", ["strokes", "bernoulli"])
def test_the_pen_is_drawn_not_its_mean(kind):
    samples = make(kind).sample(hidden(100))
    assert set(samples[:, 2].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("kind", DIM)
def test_autoregressive_outputs_depend_on_the_values_before(kind):
    """dy given dx, the pen given both: by the conditional's dependence on x."""
    output = make(kind, autoregressive=True)
    values = torch.zeros(2, DIM[kind]).double()
    values[1, 0] = 1.0
    first, second = (output.distribution(hidden(), x).mean for x in values)
    assert first[0] == second[0]
    assert ((first - second)[1:].abs() > 1e-6).all()
    assert (
        make(kind)
        .distribution(hidden(), values[0])
        .mean.eq(make(kind).distribution(hidden(), values[1]).mean)
        .all()
    )


def test_the_mean_of_an_autoregressive_output_is_value_by_value():
    output, given = make("gaussian", autoregressive=True), hidden(3)
    x = output.mean(given)
    torch.testing.assert_close(output.distribution(given, x).mean, x)


@every
def test_leading_dimensions(kind, autoregressive):
    output, given = make(kind, autoregressive), hidden(2, 4)
    x = output.sample(given)
    assert x.shape == (2, 4, DIM[kind]) == output.mean(given).shape
    log_prob = output.log_prob(given, x)
    assert log_prob.shape == (2, 4)
    torch.testing.assert_close(log_prob[1, 2], output.log_prob(given[1, 2], x[1, 2]))
    for value in output.statistics(given).values():
        assert value.shape[:2] == (2, 4)


@every
@pytest.mark.parametrize("size", [1e-3, 30.0, 1000.0])
def test_finite_in_float32_with_gradients(kind, autoregressive, size):
    """Whatever the parameters and values, as early in training or after a leap of it."""
    output = make(kind, autoregressive, scale=size).float()
    x = output.sample(hidden(50).float())
    far = 100 * torch.randn_like(x)
    far[..., 2:] = far[..., 2:].gt(0).float()  # pens
    if kind == "bernoulli":
        far = far.gt(0).float()
    for values in (x, far):
        output.zero_grad()
        log_prob = output.log_prob(hidden(50).float(), values)
        assert log_prob.isfinite().all()
        log_prob.mean().backward()
        for name, parameter in output.named_parameters():
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("floor", [1e-3, 0.5])
def test_sigma_has_a_floor(floor):
    for kind, name in {"gaussian": "sigma", "strokes": "sigma", "logistics": "scale"}.items():
        output = make_output(H, 3, OutputOptions(kind, 2, min_sigma=floor))
        with torch.no_grad():
            output.parameters_of.bias.fill_(-1000)
        assert output.statistics(hidden(3).float())[name].min().item() == pytest.approx(floor)


def test_one_component_of_strokes_is_a_gaussian():
    output = make("strokes", components=1)
    assert output.statistics(hidden(3))["weight"].eq(1).all()


@every
def test_every_parameter_learns(kind, autoregressive):
    output = make(kind, autoregressive)
    x = support(kind)[0][:7] * 0.1 if kind not in ("bernoulli", "strokes") else torch.ones(7, 3)
    output.log_prob(hidden(7), x.double()).sum().backward()
    for name, parameter in output.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_what_cannot_be_is_refused():
    with pytest.raises(
        UserError,
        match=r"vrnn\.output\.kind is strokes, which have 3 values a step; the data have 2",
    ):
        make_output(H, 2, OutputOptions("strokes"))
    with pytest.raises(UserError, match=r"vrnn\.output\.min_sigma is 0; it must be above 0"):
        OutputOptions(min_sigma=0)
    with pytest.raises(UserError, match=r"vrnn\.output\.bins is 1"):
        OutputOptions(bins=1)
