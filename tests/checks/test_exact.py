import pytest
import torch
from scipy.stats import multivariate_normal

from plateau.checks.exact import LinearGaussian, ppca_log_likelihood, within_bound

T = 5


def model():
    """A state of two, values of three."""
    return LinearGaussian(
        torch.tensor([[0.9, 0.2], [-0.1, 0.7]]).double(),
        torch.tensor([[0.5, 0.1], [0.1, 0.3]]).double(),
        torch.tensor([[1.0, 0.0], [0.5, -1.0], [0.3, 2.0]]).double(),
        torch.tensor([[0.4, 0.1, 0.0], [0.1, 0.6, 0.0], [0.0, 0.0, 0.2]]).double(),
        torch.tensor([[1.0, 0.3], [0.3, 2.0]]).double(),
    )


def covariance_of_sequences(m):
    """Of x_1 … x_T together, (T D, T D), with no filter: x is linear in independent noises."""
    A, C = m.transition, m.emission
    sources = [m.initial] + [m.transition_noise] * (T - 1)
    total = torch.block_diag(*[m.emission_noise] * T)
    for start, noise in enumerate(sources):
        columns = [
            C @ torch.linalg.matrix_power(A, t - start) if t >= start else torch.zeros_like(C)
            for t in range(T)
        ]
        effect = torch.cat(columns)  # (T D, Z)
        total = total + effect @ noise @ effect.T
    return total


def test_the_filter_gives_the_density_of_the_whole_sequence():
    m = model()
    x = m.sample(20, T, torch.Generator().manual_seed(0))
    expected = multivariate_normal(cov=covariance_of_sequences(m).numpy()).logpdf(x.flatten(1))
    torch.testing.assert_close(m.log_likelihood(x).sum(1), torch.from_numpy(expected))


def test_samples_have_the_covariance_of_the_model():
    m, num = model(), 20000
    x = m.sample(num, T, torch.Generator().manual_seed(0)).flatten(1)
    expected = covariance_of_sequences(m)
    products = x.unsqueeze(2) * x.unsqueeze(1)
    errors = products.std(0) / num**0.5
    assert ((products.mean(0) - expected).abs() < 4.5 * errors).all()  # 225 of them


def test_probabilistic_pca():
    weight = torch.tensor([[1.0, 0.5], [0.0, 2.0], [-1.0, 0.3]]).double()
    mean, x = torch.tensor([1.0, 2.0, 3.0]).double(), torch.randn(4, 3).double()
    covariance = weight @ weight.T + 0.49 * torch.eye(3)
    expected = multivariate_normal(mean.numpy(), covariance.numpy()).logpdf(x)
    found = ppca_log_likelihood(x, weight, mean, 0.7)
    torch.testing.assert_close(found, torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("shift", "expected"), [(-0.5, True), (0.0, True), (0.05, True), (0.2, False)]
)
def test_a_bound_may_exceed_the_truth_by_three_standard_errors(shift, expected):
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(0)).double()
    noise = (noise - noise.mean()) / noise.std()  # a standard error of 0.032
    assert within_bound(noise + shift, torch.zeros(1000)) is expected
