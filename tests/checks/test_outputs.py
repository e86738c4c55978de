import itertools
import math
import re

import pytest
import torch

from plateau.checks.outputs import check_integral, check_log_prob
from plateau.config import UserError
from plateau.models.distributions import Output, OutputOptions
from plateau.models.vrnn import Vrnn, VrnnOptions

DIM = {"gaussian": 2, "mixture": 2, "strokes": 3, "bernoulli": 3, "logistics": 2}
every = pytest.mark.parametrize(
    ("kind", "autoregressive"), list(itertools.product(DIM, (False, True)))
)
RIGHT = Output.log_prob
MISTAKES = {  # the normaliser's dimensions that are too many
    "the latent's 200 dimensions": lambda p, _: p - 198 / 2 * math.log(math.tau),
    "one dimension too few": lambda p, _: p + 0.5 * math.log(math.tau),
    "π in place of log π": lambda p, _: p + math.log(math.tau) - math.tau,
    "a factor that depends on a value": lambda p, x: p - 0.5 * x[..., 0],
}


def plant(monkeypatch, mistake):
    monkeypatch.setattr(Output, "log_prob", lambda self, h, x: mistake(RIGHT(self, h, x), x))


def core(options):
    torch.manual_seed(0)
    return Vrnn(DIM[options.kind], VrnnOptions(hidden_dim=6, latent_dim=2, output=options)).double()


def data(kind):
    x = torch.randn(3, 4, DIM[kind], generator=torch.Generator().manual_seed(0)).double()
    if kind == "strokes":
        x[..., 2] = x[..., 2].gt(0)
    return x.gt(0).double() if kind == "bernoulli" else x


@every
def test_outputs_integrate_to_one_and_are_scipys(kind, autoregressive):
    options = OutputOptions(kind, 3, autoregressive, masked_dim=8)
    check_integral(options)
    check_log_prob(core(options), options, data(kind), torch.tensor([4, 1, 2]))


@pytest.mark.parametrize("floor", [1e-6, 1.0, 1000.0])
@pytest.mark.parametrize("kind", ["gaussian", "strokes", "logistics"])
def test_whatever_the_smallest_sigma(kind, floor):
    check_integral(OutputOptions(kind, 100, min_sigma=floor, bins=65536))


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("kind", ["gaussian", "mixture", "strokes", "bernoulli", "logistics"])
def test_planted_mistakes_in_densities_are_found_by_both(monkeypatch, kind, name):
    options = OutputOptions(kind, 3)
    plant(monkeypatch, MISTAKES[name])
    with pytest.raises(UserError, match=rf"vrnn\.output: .* of a {kind} output .*sum to exp\("):
        check_integral(options)
    with pytest.raises(UserError, match=r"vrnn\.output: log p\(x\) of a step.* by scipy"):
        check_log_prob(core(options), options, data(kind), torch.tensor([4, 1, 2]))


def test_the_seed_s_mistake_is_said_in_dimensions(monkeypatch):
    """Forty tests at -37,000: 200 latent dimensions in the normaliser in place of 2."""
    options = OutputOptions("gaussian")
    plant(monkeypatch, MISTAKES["the latent's 200 dimensions"])
    with pytest.raises(UserError, match=r"exp\(-181\.949\d nats = -198\.000 · ½ ln 2π\)"):
        check_integral(options)
    with pytest.raises(UserError, match=r"= -198\.000 · ½ ln 2π\nlook at .*has 2 values") as error:
        check_log_prob(core(options), options, data("gaussian"), torch.tensor([4, 1, 2]))
    off = float(re.search(r"between them are (\S+) nats", str(error.value))[1])
    normaliser = 200 * 0.5 * 200 * math.log(math.tau)  # of the seed's 200 steps
    assert 200 * off == pytest.approx(200 * math.log(math.tau) - normaliser, abs=0.1)
    assert normaliser == pytest.approx(36757.5, abs=0.05)
