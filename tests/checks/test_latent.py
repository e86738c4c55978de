"""Each check is quiet on what is right, and names the part of a mistake that is planted."""

import dataclasses
import math

import pytest
import torch
from torch.distributions import kl_divergence

from plateau.checks import latent
from plateau.checks.latent import check_batch, check_exact, check_identity, check_units, unchanged
from plateau.config import UserError
from plateau.data.sequence_loading import SequenceBatch
from plateau.models.bounds import BoundOptions
from plateau.models.distributions import Output, OutputOptions
from plateau.models.normalise import MIN_STD
from plateau.models.vae import Vae, VaeOptions, VaeOutputOptions
from plateau.models.vrnn import Vrnn, VrnnOptions
from plateau.training.interfaces import Loss
from vrnn.model import SequenceModel
from vrnn.train import make_loss

KINDS = ["vae", "vrnn", "vrnn_i", "rnn"]
WITH_LATENTS = ["vae", "vrnn", "vrnn_i"]


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_are_as_the_exact_truth_allows(kind):
    check_exact(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_planted_a_wrong_normaliser_is_off_from_the_exact_truth(monkeypatch, kind):
    right, wrong = Output.log_prob, 99 * math.log(math.tau)
    monkeypatch.setattr(Output, "log_prob", lambda self, h, x: right(self, h, x) - wrong)
    off = wrong * (1 if kind == "vae" else 6)  # steps
    with pytest.raises(UserError, match=rf"a {kind} set by hand.* is {off:.4g} nats") as error:
        check_exact(kind)
    assert "look at log_prob" in str(error.value)


KL_MISTAKES = {
    "left out": lambda q, p: torch.zeros_like(q.mean),
    "with the other sign": lambda q, p: -kl_divergence(q, p),
    "half": lambda q, p: 0.5 * kl_divergence(q, p),
}


@pytest.mark.parametrize("kind", WITH_LATENTS)
@pytest.mark.parametrize("name", KL_MISTAKES)
def test_planted_a_wrong_kl_exceeds_the_exact_truth(monkeypatch, kind, name):
    monkeypatch.setattr("plateau.models.latent.kl_divergence", KL_MISTAKES[name])
    with pytest.raises(
        UserError, match=r"the bound with the KL in closed form is .* above the log"
    ):
        check_exact(kind)


def test_planted_samples_that_are_not_averaged_exceed_the_exact_truth(monkeypatch):
    wrong = lambda model, x, lengths, k: model.log_weights(x, lengths, k).logsumexp(1)  # noqa: E731
    monkeypatch.setattr(latent, "importance_weighted", wrong)
    with pytest.raises(UserError, match=r"the importance-weighted bound is .* above the log-likel"):
        check_exact("vrnn")


def test_planted_the_mean_of_logs_in_place_of_the_log_of_the_mean_does_not_grow(monkeypatch):
    right = latent.importance_weighted
    wrong = lambda model, x, lengths, k: right(model, x, lengths, 1) - 0.01 * k  # noqa: E731
    monkeypatch.setattr(latent, "importance_weighted", wrong)
    with pytest.raises(UserError, match=r"importance-weighted bound of 1, 10, 100 .*must grow"):
        check_exact("vae")


def vrnn(kind="vrnn", cls=Vrnn, output="strokes"):
    torch.manual_seed(0)
    options = VrnnOptions(kind, "lstm", 32, 4, 32, 32, output=OutputOptions(output, 3))
    return cls(3, options)


class Detached(Vrnn):
    """The decoder's latents have no gradient."""

    def read(self, x_features, noise):
        past, q, z, z_features, state = super().read(x_features, noise)
        return past.detach(), q, z, z_features.detach(), state


class HalfDetached(Vrnn):
    """What the decoder is given of the latents has none; by the recurrence they have."""

    def read(self, x_features, noise):
        past, q, z, z_features, state = super().read(x_features, noise)
        return past, q, z, z_features.detach(), state


class Blind(Vrnn):
    """The encoder sees no x."""

    def read(self, x_features, noise):
        return super().read(0 * x_features, noise)


class Deaf(Vrnn):
    """The prior is computed of nothing that learns."""

    def _prior(self, past):
        return torch.distributions.Normal(*(part.detach() for part in self.prior(past)))


@pytest.mark.parametrize("kind", ["vrnn", "vrnn_i", "rnn"])
@pytest.mark.parametrize("output", ["strokes", "gaussian", "mixture", "logistics", "bernoulli"])
@pytest.mark.parametrize("autoregressive", [False, True])
def test_every_recurrent_model_learns_the_identity(kind, output, autoregressive):
    torch.manual_seed(0)
    options = OutputOptions(output, 5, autoregressive, masked_dim=16)
    core = Vrnn(3, VrnnOptions(kind, "gru", 32, 8, 32, 32, output=options))
    check_identity(core, options, 3)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("output", ["bernoulli", "gaussian"])
def test_every_vae_learns_the_identity(kind, output):
    torch.manual_seed(0)
    options = VaeOutputOptions(output)
    core = Vae(16, VaeOptions(kind, 8, 64, channels=8, output=options), (4, 4))
    check_identity(core, options, 16)


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Detached, r"no gradient of log p\(x \| z\) reaches .*encoder\.0"),
        (HalfDetached, r"no gradient of log p\(x \| z\) of a first step reaches .*encoder\.0"),
        (Blind, r"no gradient of log p\(x \| z\) reaches .*phi_x\.0\.weight"),
        (Deaf, r"no gradient of the bound reaches prior\.0\.0\.weight"),
    ],
)
def test_planted_a_part_without_gradient_is_named(cls, said):
    with pytest.raises(UserError, match=said):
        check_identity(vrnn(cls=cls), OutputOptions("strokes"), 3)


class Shuffled(Vrnn):
    """The encoder sees another sequence of the batch."""

    def read(self, x_features, noise):
        return super().read(x_features.roll(1, 0), noise)


@pytest.mark.parametrize("kind", ["vrnn", "rnn"])
def test_planted_input_of_another_sequence_cannot_be_repeated(monkeypatch, kind):
    monkeypatch.setattr(latent, "UPDATES", 100)
    what = "tell the next step" if kind == "rnn" else "repeat its input"
    with pytest.raises(UserError, match=rf"does not learn to {what} in 100 updates.*\n.*recurr"):
        check_identity(vrnn(kind, Shuffled, "gaussian"), OutputOptions("gaussian"), 3)


def model(core=None, std=(5.0, 0.02, 1.0)):
    """As the recipe has it, in double precision: one value varies little, the pen has no units."""
    found = SequenceModel(core or vrnn(), 3).double().eval()
    found.norm.set_statistics(torch.tensor([1.0, 0.1, 0.0]), torch.tensor(std))
    return found


def batch():
    x = torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(1)).double()
    x[..., 2] = x[..., 2].gt(0)
    return SequenceBatch(x, torch.tensor([7, 2, 4]), ["a", "b", "c"])


def loss_of(model):
    return make_loss(model, BoundOptions())


@pytest.mark.parametrize("kind", ["vrnn", "vrnn_i", "rnn"])
def test_batches_and_units_are_right(kind):
    right = model(vrnn(kind))
    check_batch(right, loss_of(right), batch())
    check_units(right, loss_of(right), batch())


def test_batches_of_images_are_right():
    torch.manual_seed(0)
    core = Vae(3, VaeOptions(hidden_dim=8, output=VaeOutputOptions("gaussian")))
    check_batch(model(core), loss_of(model(core)), batch())


def altered(right, change):
    """A loss that is changed."""

    def loss_function(wrapped, batch):
        return change(right(wrapped, batch), batch)

    return loss_function


def per_sequence(loss: Loss, batch):
    return dataclasses.replace(loss, tokens=len(batch.ids))


def all_steps(loss: Loss, batch):
    return dataclasses.replace(loss, tokens=batch.values.shape[0] * batch.values.shape[1])


@pytest.mark.parametrize("mistake", [per_sequence, all_steps])
def test_planted_a_mean_that_is_not_over_steps_is_seen(mistake):
    right = model()
    with pytest.raises(UserError, match=r"'a', 'b', 'c'.* weighed by their lengths"):
        check_batch(right, altered(loss_of(right), mistake), batch())


class Unmasked(Vrnn):
    """Steps of the padding count."""

    def forward(self, x, lengths, noise=None):
        x = x.nan_to_num(0.0)
        return super().forward(x, torch.full_like(lengths, x.shape[1]), noise)


def test_planted_padding_that_counts_is_seen():
    wrong = model(vrnn(cls=Unmasked))
    with pytest.raises(UserError, match="missing padding mask"):
        check_batch(wrong, loss_of(wrong), batch())
    even = SequenceBatch(batch().values[:, :2], torch.tensor([2, 2, 2]), ["a", "b", "c"])
    with pytest.raises(UserError, match="100 more steps of padding"):
        check_batch(wrong, loss_of(wrong), even)


def test_planted_a_validation_that_trains_is_named():
    right = model()

    def trains(loss, batch):
        with torch.no_grad():
            right.core.output.parameters_of.bias.add_(1e-7)
            right.steps.add_(1)
        return loss

    with pytest.raises(
        UserError,
        match=r"the loss in validation changes steps, core\.output\.parameters_of\.bias; it must",
    ):
        check_batch(right, altered(loss_of(right), trains), batch())


def test_unchanged_looks_at_buffers_and_at_each_bit():
    right = model()
    with unchanged(right, "nothing"):
        right.norm.mean.add_(0)
    with pytest.raises(UserError, match=r"it changes norm\.mean"), unchanged(right, "it"):
        right.norm.mean[0] = torch.nextafter(right.norm.mean[0], torch.tensor(9.0).double())


def test_planted_a_loss_that_is_not_finite_names_the_sequences():
    nan = lambda loss, batch: dataclasses.replace(loss, total=loss.total * math.nan)  # noqa: E731
    with pytest.raises(UserError, match=r"loss is nan on \['a', 'b', 'c'\]"):
        check_batch(model(), altered(loss_of(model()), nan), batch())


def test_planted_densities_of_normalised_values_are_seen(monkeypatch):
    monkeypatch.setattr(SequenceModel, "log_scale", torch.zeros(()))
    wrong = model()
    with pytest.raises(UserError, match=r"is -?0\.0000 nats a step larger; of 2 values.* 13\.8629"):
        check_units(wrong, loss_of(wrong), batch())


def test_planted_a_scale_of_all_values_alike_is_seen(monkeypatch):
    half = property(lambda self: self.norm.std.log().sum() / 2)
    monkeypatch.setattr(SequenceModel, "log_scale", half)
    wrong = model()
    with pytest.raises(UserError, match=r"is 6\.9315 nats a step larger.*\n.*log-scale"):
        check_units(wrong, loss_of(wrong), batch())


def test_planted_a_standard_deviation_that_is_clamped_is_seen():
    """As the recipe once had it: features of speech are divided by `MIN_STD` at least."""
    wrong = model()
    wrong.norm.min_std = MIN_STD
    with pytest.raises(UserError, match="log-scale of the normaliser"):
        check_units(wrong, loss_of(wrong), batch())


def test_units_are_as_they_were_afterwards():
    right = model()
    with unchanged(right, "the check"):
        check_units(right, loss_of(right), batch())
