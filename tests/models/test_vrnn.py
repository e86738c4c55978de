import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn.utils.stateless import functional_call

from plateau.checks.exact import within_bound
from plateau.checks.linear import raw, steady, vrnn_of
from plateau.config import UserError, load
from plateau.models.bounds import BoundOptions, elbo, importance_weighted, objective
from plateau.models.distributions import OutputOptions
from plateau.models.vrnn import Vrnn, VrnnOptions

D, H, Z = 3, 5, 2
LENGTHS = torch.tensor([6, 2, 5, 1])
KINDS = [(kind, cell) for kind in ("vrnn", "vrnn_i", "rnn") for cell in ("lstm", "gru")]
every = pytest.mark.parametrize(("kind", "cell"), KINDS)
TRUTH = steady([1.0, -0.5], [0.3, 0.8])


def make(kind="vrnn", cell="lstm", autoregressive=False, scale=2.0):
    torch.manual_seed(0)
    output = OutputOptions("strokes", 2, autoregressive, masked_dim=6)
    model = Vrnn(D, VrnnOptions(kind, cell, H, Z, 4, 3, output=output)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def batch(steps=6):
    torch.manual_seed(1)
    x = torch.randn(4, steps, D).double()
    x[..., 2] = x[..., 2].gt(0).double()
    return x, torch.randn(4, steps, Z).double()


def noise_of(model, noise):
    return noise[..., : model.latent_dim]


def by_the_equations(model, x, noise):
    """Eqs. 5 to 9 of Chung et al. for one sequence (T, D), step by step; log p(x_t | …), KL."""
    lstm = torch.nn.LSTMCell if isinstance(model.recurrence, torch.nn.LSTM) else None
    cell = (lstm or torch.nn.GRUCell)(model.recurrence.input_size, H).double()
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell.load_state_dict(dict(zip(names, model.recurrence.all_weights[0], strict=True)))
    h, c = torch.zeros(2, 1, H).double()
    log_probs, kls = [], []
    for x_t, eps in zip(x, noise, strict=True):
        phi_x = model.phi_x(x_t[None])
        prior = Normal(torch.zeros(1, Z).double(), 1.0)
        if model.kind == "vrnn":
            prior = Normal(*model.prior(h))  # eq. 5
        phi_z = torch.zeros(1, 0).double()
        if model.kind != "rnn":
            q = Normal(*model.encoder(torch.cat([phi_x, h], 1)))  # eq. 9
            phi_z = model.phi_z(q.mean + q.stddev * eps)
            kls.append(kl_divergence(q, prior)[0])
        decoded = model.decoder(torch.cat([phi_z, h], 1))  # eq. 6
        log_probs.append(model.output.log_prob(decoded, x_t[None])[0])
        inputs = torch.cat([phi_x, phi_z], 1)  # eq. 7
        if lstm:
            h, c = cell(inputs, (h, c))
        else:
            h = cell(inputs, h)
    return torch.stack(log_probs), torch.stack(kls) if kls else torch.zeros(len(x), 0)


@every
def test_the_terms_are_those_of_the_equations(kind, cell):
    model, (x, noise) = make(kind, cell), batch()
    noise = noise_of(model, noise)
    terms = model(x, LENGTHS, noise)
    for n, length in enumerate(LENGTHS.tolist()):
        log_prob, kl = by_the_equations(model, x[n, :length], noise[n, :length])
        torch.testing.assert_close(terms.log_prob[n, :length], log_prob)
        torch.testing.assert_close(terms.kl_per_dim[n, :length], kl.double())
        torch.testing.assert_close(terms.kl[n, :length], kl.double().sum(1))


@every
@pytest.mark.parametrize("autoregressive", [False, True])
def test_a_hundred_frames_of_padding_change_neither_terms_nor_gradients(kind, cell, autoregressive):
    model, (x, noise) = make(kind, cell, autoregressive), batch()
    noise = noise_of(model, noise)
    found = []
    for padding in (0, 100):
        rubbish = torch.full((4, padding, D), math.nan).double()
        more = torch.cat([noise, noise.new_ones(4, padding, model.latent_dim)], 1)
        long = torch.cat([x, rubbish], 1)
        for n, length in enumerate(LENGTHS.tolist()):
            long[n, length:] = math.nan if padding else 1e3
        model.zero_grad()
        terms = model(long, LENGTHS, more)
        objective(terms, BoundOptions(free_nats=0.01), 0).backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        parts = (terms.log_prob, terms.kl_per_dim, terms.log_ratio)
        found.append([*(part[:, :6] for part in parts), *gradients])
        assert not terms.log_prob[:, 6:].any() and not terms.kl[:, 6:].any()
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_planted_a_forgotten_mask_is_seen():
    """What the test above compares does differ where steps of the padding count."""
    model, (x, noise) = make(), batch()
    all_steps = torch.full_like(LENGTHS, 6)
    assert not torch.allclose(elbo(model(x, LENGTHS, noise)), elbo(model(x, all_steps, noise)))


@every
def test_a_step_has_seen_the_past_only(kind, cell):
    """log p(x_t | …) and KL of step t depend on x_1 … x_t."""
    model, (x, noise) = make(kind, cell), batch()
    full, noise = torch.full((4,), 6), noise_of(model, noise)
    before = model(x, full, noise)
    for t in range(6):
        other = x.clone()
        other[:, t, :2] += 0.5
        after = model(other, full, noise)
        for name in ("log_prob", "kl"):
            differs = (getattr(after, name) - getattr(before, name)).abs().gt(1e-12).any(0)
            expected = [s >= t and not (kind == "rnn" and name == "kl") for s in range(6)]
            assert differs.tolist() == expected, (t, name)


@every
def test_sequences_do_not_see_each_other(kind, cell):
    model, (x, noise) = make(kind, cell), batch()
    together = elbo(model(x, LENGTHS, noise_of(model, noise)))
    for n in range(4):
        part = slice(n, n + 1)
        alone = elbo(model(x[part], LENGTHS[part], noise_of(model, noise)[part]))
        torch.testing.assert_close(together[part], alone)


def test_the_kl_in_closed_form_is_the_sampled_one_in_the_mean():
    model, (x, _) = make(), batch()
    num = 4000
    terms = model(x[:1, :2].expand(num, -1, -1), torch.full((num,), 2))
    first = terms.log_ratio[:, 0]  # (num, Z); the first posterior does not depend on draws
    errors = first.std(0) / num**0.5
    assert ((first.mean(0) - terms.kl_per_dim[0, 0]).abs() < 4 * errors).all()
    difference = (terms.log_ratio - terms.kl_per_dim)[:, 1]  # later ones do: of each draw's own
    assert (difference.mean(0).abs() < 4 * difference.std(0) / num**0.5).all()
    assert not ((first.mean(0) - 1.3 * terms.kl_per_dim[0, 0]).abs() < 4 * errors).all()


def test_the_prior_of_vrnn_i_is_standard():
    model, (x, noise) = make("vrnn_i"), batch()
    full = torch.full((4,), 6)
    terms = model(x, full, noise)
    with torch.no_grad():
        model.encoder[1].linear.weight.zero_()
        model.encoder[1].linear.bias.copy_(torch.tensor([0, 0, raw(1.0), raw(1.0)]))
    assert terms.kl.min() > 1e-3
    torch.testing.assert_close(model(x, full, noise).kl, torch.zeros(4, 6).double())
    assert not hasattr(model, "prior")


def test_without_latents_there_is_no_kl():
    model, (x, _) = make("rnn"), batch()
    terms = model(x, LENGTHS)
    assert terms.kl.shape == (4, 6) and not terms.kl.any() and terms.latents.shape == (4, 6, 0)
    torch.testing.assert_close(elbo(terms), terms.log_prob.sum(1))
    weights = model.log_weights(x, LENGTHS, 3)
    torch.testing.assert_close(weights, elbo(terms).unsqueeze(1).expand(4, 3))


@every
def test_gradients_are_those_of_differences(kind, cell):
    model, (x, noise) = make(kind, cell, scale=1.0), batch(3)
    lengths, names = torch.tensor([3, 2, 1, 3]), [name for name, _ in model.named_parameters()]
    options = BoundOptions(kl_weight=0.7)

    def loss(*parameters):
        tensors = dict(zip(names, parameters, strict=True))
        terms = functional_call(model, tensors, (x, lengths, noise_of(model, noise)))
        return objective(terms, options, 0)

    assert torch.autograd.gradcheck(loss, tuple(model.parameters()), fast_mode=True)


@every
@pytest.mark.parametrize("autoregressive", [False, True])
def test_every_parameter_learns(kind, cell, autoregressive):
    model, (x, noise) = make(kind, cell, autoregressive), batch()
    elbo(model(x, LENGTHS, noise_of(model, noise))).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("kind", ["vrnn", "vrnn_i"])
def test_by_hand_the_bound_is_the_exact_log_likelihood(kind):
    """With the exact posterior, whatever is drawn: that of a Kalman filter."""
    x = TRUTH.sample(50, 12, torch.Generator().manual_seed(0))
    exact = TRUTH.log_likelihood(x)
    lengths = torch.randint(1, 13, (50,), generator=torch.Generator().manual_seed(1))
    counted = exact.masked_fill(torch.arange(12) >= lengths[:, None], 0.0).sum(1)
    model = vrnn_of(TRUTH, kind)
    torch.manual_seed(2)
    found = elbo(model(x, lengths), analytic_kl=False)
    torch.testing.assert_close(found, counted, atol=1e-6, rtol=0)
    several = importance_weighted(model, x, lengths, 5, chunk=2)
    torch.testing.assert_close(several, counted, atol=1e-6, rtol=0)


def test_by_hand_without_latents_the_likelihood_is_exact_at_each_step():
    truth = steady([1.3], [0.4])
    x = truth.sample(50, 12, torch.Generator().manual_seed(0))
    terms = vrnn_of(truth, "rnn")(x, torch.full((50,), 12))
    torch.testing.assert_close(terms.log_prob, truth.log_likelihood(x), atol=1e-6, rtol=0)


MISTAKES = {  # of a model whose posterior is exact
    "the normaliser counts the latent's 200 dimensions": lambda t: (
        t.log_prob - 0.5 * (200 - 2) * math.log(math.tau)
    ),
    "π in place of log π": lambda t: t.log_prob + math.log(math.tau) - math.tau,
}


@pytest.mark.parametrize("name", MISTAKES)
def test_planted_mistakes_in_the_density_are_seen_by_the_exact_truth(name):
    x = TRUTH.sample(50, 12, torch.Generator().manual_seed(0))
    terms = vrnn_of(TRUTH)(x, torch.full((50,), 12))
    wrong = (MISTAKES[name](terms) - terms.log_ratio.sum(2)).sum(1)
    assert (wrong - TRUTH.log_likelihood(x).sum(1)).abs().min() > 1


def test_of_other_models_the_bound_is_below_and_grows_with_samples():
    x, lengths = TRUTH.sample(400, 6, torch.Generator().manual_seed(0)), torch.full((400,), 6)
    exact = TRUTH.log_likelihood(x).sum(1)
    model = vrnn_of(TRUTH)
    with torch.no_grad():  # a posterior that is too wide and lies beside
        model.encoder[1].linear.bias += torch.tensor([0.3, 0.5])
    torch.manual_seed(0)
    one = elbo(model(x, lengths), analytic_kl=False)
    some = [importance_weighted(model, x, lengths, k) for k in (10, 100)]
    means = [bound.mean().item() for bound in (one, *some, exact)]
    assert all(a + 0.01 < b for a, b in pairwise(means)), means
    assert means[2] > means[3] - 0.05
    assert all(within_bound(bound, exact) for bound in (one, *some))
    # The KL left out is seen.
    assert not within_bound(vrnn_of(TRUTH)(x, lengths).log_prob.sum(1), exact)


@pytest.mark.parametrize("kind", ["vrnn", "vrnn_i", "rnn"])
def test_untrained_models_stay_below_the_exact_log_likelihood(kind):
    x, lengths = TRUTH.sample(300, 10, torch.Generator().manual_seed(0)), torch.full((300,), 10)
    torch.manual_seed(0)
    options = VrnnOptions(kind, hidden_dim=8, latent_dim=2, output=OutputOptions("gaussian"))
    bound = importance_weighted(Vrnn(2, options).double(), x, lengths, 20)
    assert within_bound(bound, TRUTH.log_likelihood(x).sum(1))


def test_samples_are_of_the_model():
    """By hand, it is the state space: covariances of two steps, four standard errors."""
    torch.manual_seed(0)
    num = 8000
    found = vrnn_of(TRUTH).sample(num, 2).flatten(1)
    expected = TRUTH.sample(400000, 2, torch.Generator().manual_seed(0)).flatten(1).T.cov()
    products = found.unsqueeze(2) * found.unsqueeze(1)
    assert ((products.mean(0) - expected).abs() < 4 * products.std(0) / num**0.5 + 0.01).all()
    assert found.mean(0).abs().max() < 0.1
    assert expected[0, 2] > 0.2  # steps hang together


def test_a_sample_goes_on_from_what_it_is_primed_with():
    """Its mean is the Kalman filter's prediction, by the change of log p with the next value."""
    torch.manual_seed(0)
    prime = torch.tensor([[2.0, -1.0], [3.0, -1.0], [2.5, -2.0]]).double()
    drawn = vrnn_of(TRUTH).sample(8000, 1, prime)[:, 0]
    ahead = torch.zeros(1, 4, 2).double()
    ahead[0, :3] = prime
    ahead.requires_grad_()
    TRUTH.log_likelihood(ahead)[0, 3].backward()
    # log p is quadratic: its gradient at 0 is S⁻¹ mean.
    S = TRUTH.initial * TRUTH.emission @ TRUTH.emission.T + TRUTH.emission_noise
    expected = S @ ahead.grad[0, 3]
    errors = 4 * drawn.std(0) / 8000**0.5
    assert expected[0] > 1
    assert ((drawn.mean(0) - expected).abs() < errors).all()
    unprimed = vrnn_of(TRUTH).sample(8000, 1)[:, 0]
    assert not ((unprimed.mean(0) - expected).abs() < errors).all()


@pytest.mark.parametrize("kind", ["vrnn", "vrnn_i"])
def test_by_hand_a_latent_that_is_held_moves_the_sample_by_what_it_must(kind):
    """x = C (m + held √P) + noise and m' = A m + A K (x - C m), with the same noise each time."""
    steps, drawn = 20, []
    for held in (-1.5, 1.5):
        torch.manual_seed(4)
        drawn.append(vrnn_of(TRUTH, kind).sample(3, steps, held=(0, held)))
    C, P = TRUTH.emission[:, 0], TRUTH.initial.item()
    K = P * C @ (P * torch.outer(C, C) + TRUTH.emission_noise).inverse()
    A, apart, expected = TRUTH.transition.item(), 0.0, []
    for _ in range(steps):
        expected.append(C * (apart + 3 * P**0.5))
        apart = A * apart + A * (K @ C).item() * 3 * P**0.5
    found = drawn[1] - drawn[0]
    assert expected[-1][0] > 1.5 * expected[0][0]  # what is held adds up
    torch.testing.assert_close(found, torch.stack(expected).expand_as(found), atol=1e-6, rtol=0)
    assert drawn[0].std(0).min() > 0.1  # the noise is there


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "strokes", "bernoulli", "logistics"])
def test_a_latent_that_is_held_changes_no_other_random_number(kind):
    """Where nothing depends on it, all is the same to the bit; the other has its effect."""
    torch.manual_seed(0)
    output = OutputOptions(kind, 3, masked_dim=6, bins=64)
    model = Vrnn(D, VrnnOptions("vrnn", "gru", H, Z, 4, 3, output=output)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.phi_z[0].weight[:, 0] = 0
    drawn, after = [], []
    for held in (None, (0, -2.0), (0, 2.0), (1, 2.0)):
        torch.manual_seed(4)
        drawn.append(model.sample(2, 30, held=held))
        after.append(torch.rand(()).item())
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])
    assert len(set(after)) == 1


@every
def test_samples_have_a_shape_and_a_seed(kind, cell):
    model, (x, _) = make(kind, cell), batch()
    for prime in (None, x[0]):
        torch.manual_seed(5)
        first = model.sample(2, 4, prime)
        torch.manual_seed(5)
        assert first.shape == (2, 4, D) and torch.equal(first, model.sample(2, 4, prime))
        assert not torch.equal(first, model.sample(2, 4, prime))
        assert set(first[..., 2].unique().tolist()) <= {0.0, 1.0}


def test_published_sizes_can_be_named():
    """Parameters of the recurrence: 4 H (H + inputs) and biases."""
    conf = Path(__file__).parents[2] / "vrnn" / "conf"
    for name, (dim, inputs, hidden) in {
        "iam_ondb": (3, 250 + 150, 1200),
        "iam_ondb_rnn": (3, 300, 1200),
    }.items():
        options = load(VrnnOptions, conf / f"chung2015_{name}.yaml", "vrnn")
        found = sum(p.numel() for p in Vrnn(dim, options).recurrence.parameters())
        assert found == 4 * hidden * (hidden + inputs + 2)
    blizzard = load(VrnnOptions, conf / "chung2015_blizzard.yaml", "vrnn")
    assert (blizzard.num_layers, blizzard.latent_dim, blizzard.hidden_dim) == (4, 200, 4000)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"vrnn\.latent_dim is 0"):
        VrnnOptions(latent_dim=0)
    with pytest.raises(UserError, match=r"vrnn\.kind is 'vae'"):
        VrnnOptions(kind="vae")


@pytest.mark.slow
def test_a_trained_vrnn_comes_within_002_nats_a_step_of_the_exact_log_likelihood():
    """Two values with a common cause: what an output of independent ones has is from latents."""
    truth, steps, updates = steady([1.0, -1.0], [0.3, 0.3]), 20, 700
    S = truth.initial * truth.emission @ truth.emission.T + truth.emission_noise
    by_independent_values = 0.5 * (S.diagonal().prod() / S.det()).log().item()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    options = VrnnOptions("vrnn", "lstm", 16, 1, 16, 16, output=OutputOptions("gaussian"))
    model = Vrnn(2, options)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, updates, pct_start=0.1)
    for step in range(updates):
        x = truth.sample(64, steps, generator).float()
        optimizer.zero_grad()
        (-objective(model(x, torch.full((64,), steps)), BoundOptions(), step) / 64).backward()
        optimizer.step()
        schedule.step()
    x = truth.sample(4000, steps, generator)
    with torch.no_grad():  # the nearer the posterior is to the exact one, the less this varies
        bound = elbo(model(x.float(), torch.full((4000,), steps)), analytic_kl=False).double()
    exact = truth.log_likelihood(x).sum(1)
    gap = (exact - bound).mean().item() / steps
    print(
        f"{gap:.4f} nats a step below the exact log-likelihood; without latents at least "
        f"{by_independent_values:.4f}"
    )
    assert within_bound(bound, exact) and gap < 0.02 < by_independent_values
