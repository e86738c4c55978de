import math

import pytest
import torch
import torch.distributed as dist

from plateau.config import UserError
from plateau.models.prior import LabelPrior, PriorOptions

LENGTHS = torch.tensor([5, 2, 4])


def batches(count, seed=0):
    """Posteriors (3, 5, 4) with rubbish in the padding."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        shares = torch.randn(3, 5, 4, generator=generator).softmax(-1)
        shares[1, 2:], shares[2, 4:] = math.nan, 7.0
        found.append(shares)
    return found


def average(*some):
    """The mean over all frames that count, by loops."""
    sums, frames = [0.0] * 4, 0
    for shares in some:
        for n, length in enumerate(LENGTHS.tolist()):
            for t in range(length):
                frames += 1
                for label in range(4):
                    sums[label] += float(shares[n, t, label])
    return torch.tensor([value / frames for value in sums], dtype=torch.float64)


def close(prior, expected):
    torch.testing.assert_close(prior.log_prior.exp(), expected, rtol=1e-6, atol=1e-7)


def test_before_anything_is_seen_it_is_uniform():
    prior = LabelPrior(4, PriorOptions("batch"))
    close(prior, torch.full((4,), 0.25, dtype=torch.float64))


def test_batch():
    prior = LabelPrior(4, PriorOptions("batch"))
    for shares in batches(3):
        prior.update(shares, LENGTHS)
        close(prior, average(shares))
        assert not prior.log_prior.requires_grad


def test_moving_average():
    prior = LabelPrior(4, PriorOptions("moving_average", decay=0.8))
    expected = None
    for shares in batches(4):
        prior.update(shares.requires_grad_(), LENGTHS)
        new = average(shares)
        expected = new if expected is None else 0.8 * expected + 0.2 * new
        close(prior, expected)
        assert not prior.log_prior.requires_grad  # a constant to the gradient


def test_epoch():
    prior = LabelPrior(4, PriorOptions("epoch"))
    first, second = batches(3), batches(2, seed=1)
    for shares in first:
        prior.update(shares, LENGTHS)
        close(prior, torch.full((4,), 0.25, dtype=torch.float64))
    prior.finish_epoch()
    close(prior, average(*first))
    for shares in second:
        prior.update(shares, LENGTHS)
        close(prior, average(*first))
    prior.finish_epoch()
    close(prior, average(*second))
    prior.finish_epoch()  # an epoch of which nothing was finite
    close(prior, average(*second))


def test_utterances_without_alignment_do_not_count():
    prior, other = (LabelPrior(4, PriorOptions("batch")) for _ in range(2))
    (shares,) = batches(1)
    prior.update(torch.cat([shares[:1], torch.zeros(1, 5, 4)]), torch.tensor([5, 5]))
    other.update(shares[:1], LENGTHS[:1])
    torch.testing.assert_close(prior.log_prior, other.log_prior)


def test_floor():
    prior = LabelPrior(4, PriorOptions("batch", floor=1e-3))
    shares = torch.tensor([0.9995, 0.0005, 0.0, 0.0]).expand(1, 5, 4)
    prior.update(shares, torch.tensor([5]))
    expected = torch.tensor([0.9995, 1e-3, 1e-3, 1e-3], dtype=torch.float64)
    close(prior, expected)


@pytest.mark.parametrize("estimator", ["batch", "epoch", "moving_average"])
def test_a_batch_that_is_not_finite_is_passed_over(estimator):
    prior = LabelPrior(4, PriorOptions(estimator))
    (shares,) = batches(1)
    prior.update(shares, LENGTHS)
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    prior.update(torch.full((3, 5, 4), math.nan), LENGTHS)
    prior.update(torch.zeros(3, 5, 4), LENGTHS)
    assert all(prior.state_dict()[name].equal(value) for name, value in before.items())


@pytest.mark.parametrize("estimator", ["batch", "epoch", "moving_average"])
def test_a_run_that_goes_on_from_its_checkpoint_has_the_same_prior(estimator):
    options = PriorOptions(estimator, decay=0.9)
    undisturbed, killed = LabelPrior(4, options), LabelPrior(4, options)
    for i, shares in enumerate(batches(8)):
        undisturbed.update(shares, LENGTHS)
        killed.update(shares, LENGTHS)
        if i in (1, 4):  # in the midst of an epoch
            resumed = LabelPrior(4, options)
            resumed.load_state_dict(killed.state_dict())
            killed = resumed
        if i % 3 == 2:
            undisturbed.finish_epoch()
            killed.finish_epoch()
        assert killed.log_prior.equal(undisturbed.log_prior)


@pytest.mark.parametrize("estimator", ["batch", "epoch", "moving_average"])
def test_processes_share_one_prior(estimator, monkeypatch):
    options = PriorOptions(estimator, decay=0.7)
    alone = LabelPrior(4, options)
    workers = [LabelPrior(4, options) for _ in range(2)]
    for shares in batches(3):
        alone.update(shares, LENGTHS)
        parts = [(shares[:1], LENGTHS[:1]), (shares[1:], LENGTHS[1:])]
        kept = shares.clone()
        kept[1, 2:], kept[2, 4:] = 0, 0
        total = kept.double().sum((0, 1))  # of both, as all_reduce makes it
        with monkeypatch.context() as patch:
            patch.setattr(dist, "is_initialized", lambda: True)
            patch.setattr(dist, "all_reduce", lambda sums, total=total: sums.copy_(total))
            for worker, part in zip(workers, parts, strict=True):
                worker.update(*part)
    for prior in [alone, *workers]:
        prior.finish_epoch()
    for worker in workers:
        torch.testing.assert_close(worker.log_prior, alone.log_prior)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": -0.1}, "loss.prior.scale is -0.1; it must be at least 0"),
        ({"floor": 0.0}, "loss.prior.floor is 0.0"),
        ({"decay": 1.0}, "loss.prior.decay is 1.0"),
    ],
)
def test_options_that_cannot_be(values, message):
    with pytest.raises(UserError, match=message):
        PriorOptions(**values)
