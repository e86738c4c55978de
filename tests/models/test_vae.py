import math
from itertools import pairwise

import pytest
import torch

from plateau.checks.exact import ppca_log_likelihood, within_bound
from plateau.checks.linear import double, vae_of
from plateau.config import UserError
from plateau.models.bounds import elbo, importance_weighted
from plateau.models.vae import Vae, VaeOptions, VaeOutputOptions

# Probabilistic PCA whose columns are orthogonal: the posterior's covariance is then diagonal.
W, MEAN, SIGMA = double([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), double([0.5, -1.0, 2.0]), 0.6
LENGTHS = torch.tensor([3, 1, 2])


def images(num, steps=3):
    torch.manual_seed(0)
    z, noise = torch.randn(num, steps, 2).double(), torch.randn(num, steps, 3).double()
    return z @ W.T + MEAN + SIGMA * noise


def test_with_a_linear_decoder_and_the_exact_posterior_the_bound_is_exact():
    x = images(40)
    lengths = torch.full((40,), 3)
    exact = ppca_log_likelihood(x, W, MEAN, SIGMA)
    terms = vae_of(W, MEAN, SIGMA)(x, lengths)
    found = elbo(terms, analytic_kl=False)
    torch.testing.assert_close(found, exact.sum(1), atol=1e-6, rtol=0)
    per_step = terms.log_prob - terms.log_ratio.sum(2)
    torch.testing.assert_close(per_step, exact, atol=1e-6, rtol=0)
    several = importance_weighted(vae_of(W, MEAN, SIGMA), x, lengths, 7, chunk=3)
    torch.testing.assert_close(several, exact.sum(1), atol=1e-6, rtol=0)


def test_the_bound_with_the_kl_in_closed_form_is_exact_in_the_mean():
    x = images(1, 1).expand(4000, 1, 3)
    found = elbo(vae_of(W, MEAN, SIGMA)(x, torch.ones(4000).long()))
    exact = ppca_log_likelihood(x[0, 0], W, MEAN, SIGMA)
    assert (found.mean() - exact).abs() < 4 * found.std() / 4000**0.5
    assert (found.mean() - exact - 0.1).abs() > 4 * found.std() / 4000**0.5


def test_with_another_posterior_the_bound_is_below_and_grows_with_samples():
    x, lengths = images(400, 1), torch.ones(400).long()
    exact = ppca_log_likelihood(x, W, MEAN, SIGMA).sum(1)
    model = vae_of(W, MEAN, SIGMA)
    with torch.no_grad():
        model.posterior.linear.bias += double([0.5, 0.2, 0.5, 0.5])
    torch.manual_seed(0)
    bounds = [importance_weighted(model, x, lengths, k) for k in (1, 5, 50)]
    means = [bound.mean().item() for bound in (*bounds, exact)]
    assert all(a + 0.005 < b for a, b in pairwise(means)), means
    assert all(within_bound(bound, exact) for bound in bounds)


PLANTED = {
    "the KL is left out": lambda t: t.log_prob,
    "the KL has the other sign": lambda t: t.log_prob + t.kl,
    "the KL is of the first dimension only": lambda t: t.log_prob - t.kl_per_dim[..., 0],
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_mistakes_in_the_kl_exceed_the_exact_log_likelihood(name):
    x, lengths = images(400, 1), torch.ones(400).long()
    exact = ppca_log_likelihood(x, W, MEAN, SIGMA).sum(1)
    terms = vae_of(W, MEAN, SIGMA)(x, lengths)
    assert within_bound(elbo(terms), exact)
    assert not within_bound(PLANTED[name](terms).sum(1), exact)


def test_samples_are_of_the_model():
    torch.manual_seed(0)
    drawn = vae_of(W, MEAN, SIGMA).sample(5000, 2)
    assert drawn.shape == (5000, 2, 3)
    drawn = drawn.flatten(0, 1) - MEAN
    products = drawn.unsqueeze(2) * drawn.unsqueeze(1)
    expected = W @ W.T + SIGMA**2 * torch.eye(3)
    assert ((products.mean(0) - expected).abs() < 4 * products.std(0) / 10000**0.5).all()


def test_a_latent_that_is_held_moves_the_sample_by_its_weights():
    drawn = []
    for held in (-2.0, 1.0):
        torch.manual_seed(0)
        drawn.append(vae_of(W, MEAN, SIGMA).sample(5, 4, held=(1, held)))
    found = drawn[1] - drawn[0]
    torch.testing.assert_close(found, (3 * W[:, 1]).expand_as(found))
    assert drawn[0].std(0).min() > 0.1


def make(kind, shape, output=None):
    torch.manual_seed(0)
    options = VaeOptions(kind, 4, 12, channels=3, output=output or VaeOutputOptions())
    return Vae(shape[0] * shape[1], options, shape).double()


SHAPES = [("mlp", (4, 3)), ("conv", (8, 8)), ("conv", (28, 28)), ("conv", (5, 7)), ("conv", (1, 1))]


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_every_parameter_learns_and_shapes_are_right(kind, shape):
    model, dim = make(kind, shape), shape[0] * shape[1]
    x = torch.rand(3, 3, dim).double().round()
    terms = model(x, LENGTHS)
    assert terms.log_prob.shape == (3, 3) and terms.kl_per_dim.shape == (3, 3, 4)
    assert model.sample(2, 5).shape == (2, 5, dim)
    elbo(terms).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or shape == (1, 1), name


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("output", ["bernoulli", "gaussian"])
def test_each_step_is_an_image_of_its_own_and_padding_does_not_matter(kind, output):
    model = make(kind, (4, 4), VaeOutputOptions(output))
    x, noise = torch.rand(3, 3, 16).double().round(), torch.randn(3, 3, 4).double()
    bound = elbo(model(x, LENGTHS, noise))
    for n, length in enumerate(LENGTHS.tolist()):
        alone = [
            elbo(model(x[n, t].view(1, 1, 16), torch.ones(1), noise[n, t].view(1, 1, 4)))
            for t in range(length)
        ]
        torch.testing.assert_close(bound[n], torch.cat(alone).sum())
    rubbish, more = torch.full((3, 100, 16), math.nan), torch.ones(3, 100, 4).double()
    padded = model(torch.cat([x, rubbish], 1), LENGTHS, torch.cat([noise, more], 1))
    torch.testing.assert_close(elbo(padded), bound)


def test_gradients_are_those_of_differences():
    model = make("mlp", (2, 2), VaeOutputOptions("gaussian"))
    noise = torch.randn(3, 3, 4).double()
    x = torch.randn(3, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: elbo(model(x, LENGTHS, noise)).sum(), x)


def test_an_interpolation_goes_from_one_image_s_reconstruction_to_the_other_s():
    model = make("conv", (8, 8))
    first, last = torch.rand(2, 64).double().round()
    line = model.interpolate(first, last, 5)
    assert line.shape == (5, 64)
    for image, end in ((first, line[0]), (last, line[-1])):
        terms = model(image.view(1, 1, 64), torch.ones(1), torch.zeros(1, 1, 4).double())
        torch.testing.assert_close(model.output.mean(terms.hidden)[0, 0], end)
    assert (line[0] - line[-1]).abs().max() > 1e-4


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"vae\.channels is 0"):
        VaeOptions(channels=0)
    with pytest.raises(UserError, match=r"vae\.output\.bins is 1"):
        VaeOutputOptions(bins=1)
    with pytest.raises(UserError, match=r"vae\.kind is conv.*12 values") as error:
        Vae(12, VaeOptions("conv"))
    Vae(12, VaeOptions(str(error.value).split("vae.kind=")[1]))
