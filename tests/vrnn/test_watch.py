"""Latents that say nothing, and sigmas that vanish or explode, are told while training."""

import dataclasses

import pytest
import torch

import vrnn.train
from plateau.models.distributions import OutputOptions
from plateau.models.latent import make_terms
from plateau.models.vrnn import VrnnOptions
from tests.vrnn.tiny import start
from vrnn.options import Options
from vrnn.watch import kl_per_dim, notes

OPTIONS = Options(vrnn=VrnnOptions(output=OutputOptions("gaussian", min_sigma=0.01)))
LENGTHS = torch.tensor([4, 2])
GOOD = {"sigma": torch.tensor([0.5, 1.0, 2.0])}


def terms_of(means):
    """Posteriors N(mean, 1) against N(0, 1): a KL of mean² / 2 for each dimension and step."""
    means = torch.tensor(means).expand(2, 4, len(means))
    normal = torch.distributions.Normal
    posterior, prior = normal(means, 1.0), normal(torch.zeros_like(means), 1.0)
    return make_terms(torch.zeros(2, 4), posterior, prior, means, torch.zeros(2, 4, 1), LENGTHS)


def test_the_kl_of_each_dimension_is_per_step_without_padding():
    torch.testing.assert_close(kl_per_dim(terms_of([2.0, 0.0, 1.0])), torch.tensor([2.0, 0, 0.5]))


def test_what_is_right_has_no_note():
    assert notes(terms_of([1.0, 0.0]), GOOD, OPTIONS) == []


def test_without_latents_none_have_collapsed():
    none = dataclasses.replace(terms_of([1.0]), kl_per_dim=torch.zeros(2, 4, 0))
    assert notes(none, GOOD, OPTIONS) == []


@pytest.mark.parametrize(("mean", "told"), [(0.0, True), (0.44, True), (0.45, False)])
def test_planted_a_posterior_that_is_the_prior(mean, told):
    found = notes(terms_of([mean, 0.0]), GOOD, OPTIONS)  # 0.1 nats a step at 0.447
    assert len(found) == told
    if told:
        assert f"the latents say {mean**2 / 2:.3f} nats a step" in found[0]
        assert "bound.kl_schedule=linear" in found[0]


@pytest.mark.parametrize("name", ["sigma", "scale"])
def test_planted_sigmas_at_their_floor(name):
    sigma = torch.ones(20)
    sigma[:1] = 0.0105
    assert notes(terms_of([1.0]), {name: sigma}, OPTIONS) == []
    sigma[:6] = 0.0105
    (note,) = notes(terms_of([1.0]), {name: sigma}, OPTIONS)
    assert note.startswith("30% of the output's sigmas are at their floor, 0.01")
    assert "larger output.min_sigma" in note


def test_planted_a_sigma_that_explodes():
    (note,) = notes(terms_of([1.0]), {"sigma": torch.tensor([1.0, 150.0])}, OPTIONS)
    assert note.startswith("a sigma of the output is 150 standard deviations of the data")


def test_a_training_tells_what_is_planted(tmp_path, monkeypatch, capsys):
    """Encoder and prior of zeros are one distribution: nothing comes through the latents."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    exp_dir, right = start("strokes", "training.schedule.peak=1e-9"), vrnn.train.build

    def collapsed(options):
        recipe = right(options)
        with torch.no_grad():
            for part in (recipe.model.core.encoder, recipe.model.core.prior):
                for parameter in part.parameters():
                    parameter.zero_()
        return recipe

    monkeypatch.setattr(vrnn.train, "build", collapsed)
    vrnn.train.main(exp_dir)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    # Zeros before zeros have no gradient, which the trainer tells after the first epoch.
    told = [line for line in said if "had no gradient" not in line]
    assert len(said) == 3 and len(told) == 2  # epochs
    assert all("the latents say 0.000 nats a step" in line for line in told)
