from collections import Counter
from itertools import count

import pytest
import torch

from bench import train_step
from bench.train_step import Clock, TimedLoader, TimedLoss, main, print_shares, time_loss
from plateau.config import UserError
from plateau.data.loading import Batch
from plateau.training.interfaces import Loss


@pytest.fixture
def clock(monkeypatch):
    """A clock that says one second more whenever it is asked."""
    seconds = count()
    monkeypatch.setattr(train_step.time, "perf_counter", lambda: float(next(seconds)))
    return Clock(torch.device("cpu"))


def make_batch(seconds=1.0):
    return Batch(torch.ones(1, 4, 2), torch.tensor([4]), ["a"], ["x"], seconds)


class Loader:
    total_size, unit, memory_option = 6.0, "s", "loading.max_duration"

    def __init__(self):
        self.epochs = []

    def batches(self, epoch):
        self.epochs.append(epoch)
        return iter([make_batch(10 * epoch + i) for i in range(3)])


def test_loader_gives_as_many_batches_as_asked_over_epochs(clock):
    inner = Loader()
    loader = TimedLoader(inner, clock, num_steps=5)
    seen = [batch.seconds for batch in loader.batches()]
    assert seen == loader.seconds == [0, 1, 2, 10, 11]
    assert inner.epochs == [0, 1]
    # The wait for an epoch's first batch is apart from the others.
    assert [step["epoch start"] for step in clock.steps] == [1, 0, 0, 1, 0]
    assert [step["loading"] for step in clock.steps] == [0, 1, 1, 0, 1]


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 3)

    def forward(self, features, lengths):
        return self.linear(features).log_softmax(-1), lengths


def loss_function(model, batch):
    log_probs, _ = model(batch.features, batch.lengths)
    return Loss(log_probs[:, :, 1].square().sum(), tokens=1, counts={}, frames=4)


def test_loss_and_encoder_are_told_apart_and_nothing_changes(clock):
    model = Model()
    loss_function(model, make_batch()).total.backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()

    order = []
    lap = clock.lap

    def noted_lap(part):
        order.append(part)
        lap(part)

    clock.lap = noted_lap
    timed_loss = TimedLoss(loss_function, model, clock, keep=1)
    timed_loss(model, make_batch()).total.backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)
    forward = ["other", "loss forward", "encoder forward", "loss forward"]
    assert order == [*forward, "other", "loss backward"]
    assert sum(clock.steps[0].values()) == len(order)  # no time is lost
    log_probs, lengths, texts = timed_loss.kept[0]
    assert not log_probs.requires_grad and lengths.tolist() == [4] and texts == ["a"]


def test_shares(capsys):
    step = Counter({"loading": 0.06, "loss forward": 0.02, "loss backward": 0.01, "other": 0.91})
    first = step + Counter({"epoch start": 2.0})
    print_shares([first, *[step] * 5], seconds=[50.0] * 6, total_seconds=400.0)
    lines = {
        line.split()[0]: " ".join(line.split())
        for line in capsys.readouterr().out.split("\n")
        if line.strip()
    }
    assert lines["loading"] == "loading 60.0 ms 6.0 % ≤ 5 %: not met"
    assert lines["loss"] == "loss 30.0 ms 3.0 % ≤ 5 %: met"
    assert lines["step"] == "step 1000.0 ms 100.0 %"
    assert lines["50"].startswith("50 s of audio per second")
    assert "2.00 s until the first batch, and 8.0 s of steps: 20.0 %" in lines["start"]


def test_time_loss_covers_the_gradient(clock):
    log_probs = torch.tensor([1.0, 2.0])
    called = []

    def loss(x):
        x.register_hook(lambda gradient: called.append(gradient.tolist()))
        return x.square().sum()

    assert time_loss(loss, log_probs) == (1.0, 5.0)
    assert called == [[2.0, 4.0]]


def test_an_experiment_that_is_not_prepared(tmp_path):
    with pytest.raises(UserError, match=r"run \./run.sh --stop-stage 4 first") as error:
        main(tmp_path / "exp")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="--steps"):
        main(tmp_path, steps=0)
