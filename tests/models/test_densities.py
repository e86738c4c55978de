import numpy as np
import pytest
import torch
from scipy.stats import logistic, multivariate_normal

from plateau.models.densities import BivariateNormal, DiscretisedLogistic, Product


def moments_agree(samples, mean):
    """Means of samples (S, …) within four standard errors."""
    errors = samples.std(0) / len(samples) ** 0.5
    return bool(((samples.mean(0) - mean).abs() < 4 * errors + 1e-12).all())


def bivariate(correlation):
    return BivariateNormal(double(0.3, -2.0), double(0.5, 3.0), double(correlation)[0])


def double(*values):
    return torch.tensor(values, dtype=torch.double)


@pytest.mark.parametrize("correlation", [-0.999, -0.6, 0.0, 0.9])
def test_bivariate_normal_is_scipys(correlation):
    density = bivariate(correlation)
    covariance = [[0.25, 1.5 * correlation], [1.5 * correlation, 9.0]]
    x = torch.randn(50, 2).double() * double(0.5, 3.0)
    expected = multivariate_normal([0.3, -2.0], covariance).logpdf(x)
    torch.testing.assert_close(density.log_prob(x), torch.from_numpy(expected))


def test_bivariate_normal_by_the_equations_of_graves():
    """Eqs. 24 and 25, which the code puts otherwise."""
    density, rho = bivariate(0.7), 0.7
    x = double(1.0, 1.5)
    a, b = (x - density.location) / density.sigma
    z = a**2 + b**2 - 2 * rho * a * b
    normaliser = 2 * np.pi * density.sigma.prod() * (1 - rho**2) ** 0.5
    expected = torch.exp(-z / (2 * (1 - rho**2))) / normaliser
    torch.testing.assert_close(density.log_prob(x).exp(), expected)


def test_samples_of_the_bivariate_normal():
    torch.manual_seed(0)
    samples = bivariate(0.8).sample((20000,))
    a, b = ((samples - double(0.3, -2.0)) / double(0.5, 3.0)).T
    moments = torch.stack([a, b, a**2, b**2, a * b], dim=1)
    assert moments_agree(moments, double(0, 0, 1, 1, 0.8))
    assert not moments_agree(moments, double(0, 0, 1, 1, 0.6))


def centres(bins):
    return torch.linspace(-1, 1, bins, dtype=torch.double)


def logistic_bins(location, scale, bins):
    """Probabilities by scipy: of intervals, with the tails."""
    edges = np.concatenate([[-np.inf], (centres(bins)[1:] - 1 / (bins - 1)).numpy(), [np.inf]])
    return np.diff(logistic(location, scale).cdf(edges))


@pytest.mark.parametrize("bins", [2, 3, 16, 256])
@pytest.mark.parametrize(("location", "scale"), [(0.1, 0.3), (-0.9, 0.05), (1.2, 0.4), (0.0, 5.0)])
def test_logistic_bins_are_scipys_and_sum_to_one(bins, location, scale):
    density = DiscretisedLogistic(*double(location, scale), bins)
    found = density.log_prob(centres(bins)).exp()
    np.testing.assert_allclose(found.numpy(), logistic_bins(location, scale, bins), atol=1e-12)
    assert found.sum().item() == pytest.approx(1, abs=1e-12)


def test_a_value_is_of_the_nearest_bin_and_those_outside_of_the_last():
    density = DiscretisedLogistic(torch.tensor(0.0), torch.tensor(0.2), 5)
    near = density.log_prob(torch.tensor([-1.0, -0.76, -0.74, 0.2, 0.9, 7.0]))
    expected = density.log_prob(torch.tensor([-1.0, -1.0, -0.5, 0.0, 1.0, 1.0]))
    torch.testing.assert_close(near, expected)


@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1.0, 1e6])
def test_logistic_bins_are_finite_in_float32_with_gradients(scale):
    """scipy's differences are 0 there, and their logarithm is not finite."""
    mean = torch.linspace(-2, 2, 41).requires_grad_()
    scales = torch.full((41,), scale, requires_grad=True)
    log_prob = DiscretisedLogistic(mean, scales, 65536).log_prob(torch.full((41,), 0.3))
    assert log_prob.isfinite().all() and (log_prob <= 0).all()
    log_prob.sum().backward()
    assert mean.grad.isfinite().all() and scales.grad.isfinite().all()


@pytest.mark.parametrize(("location", "scale"), [(0.1, 0.3), (-0.9, 0.1), (1.2, 0.4)])
def test_samples_and_mean_of_logistic_bins(location, scale):
    torch.manual_seed(0)
    bins = 64
    density = DiscretisedLogistic(*double(location, scale), bins)
    probabilities = torch.from_numpy(logistic_bins(location, scale, bins))
    assert density.mean.item() == pytest.approx(float(probabilities @ centres(bins)), abs=1e-3)
    samples = density.sample((20000,))
    one_hot = (samples.unsqueeze(1) - centres(bins)).abs() < 1e-9
    assert one_hot.sum(1).eq(1).all()  # on the grid
    assert moments_agree(torch.stack([samples, samples**2], 1), density_moments(probabilities))
    assert not moments_agree(samples.unsqueeze(1), (probabilities @ centres(bins)) + 0.05)


def density_moments(probabilities):
    x = centres(len(probabilities))
    return torch.stack([probabilities @ x, probabilities @ x**2])


def test_a_product_is_its_parts_side_by_side():
    first = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 1), 1.0), 1)
    second = BivariateNormal(torch.ones(4, 2), torch.ones(4, 2), torch.full((4,), 0.5))
    product = Product(first, second)
    x = torch.randn(4, 3)
    expected = first.log_prob(x[:, :1]) + second.log_prob(x[:, 1:])
    torch.testing.assert_close(product.log_prob(x), expected)
    assert product.sample().shape == (4, 3) and product.sample((7,)).shape == (7, 4, 3)
    torch.testing.assert_close(product.mean, torch.tensor([[0.0, 1.0, 1.0]]).expand(4, 3))
