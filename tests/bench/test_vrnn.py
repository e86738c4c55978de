import pytest
import torch

from bench import vrnn
from bench.vrnn import FUSED, METHODS, RECURRENCE, Problem, Shape, main, measure, slower, step
from plateau.config import UserError

SMALL = Shape(N=2, T=5, H=6, F=4, Z=3)


def test_the_fused_lstm_has_the_size_of_the_models_recurrence():
    problem = Problem(SMALL)
    recurrent = problem.model.recurrence
    assert [p.shape for p in problem.lstm.parameters()] == [p.shape for p in recurrent.parameters()]


def test_the_recurrence_is_that_of_the_model():
    """Its parts are those of the whole bound's forward pass, with the same x features."""
    problem = Problem(SMALL)
    x_features = problem.model.phi_x(problem.x)
    problem.inputs = torch.cat([x_features, x_features], dim=2)
    past, posterior, z, z_features, _ = problem.model.read(x_features, problem.noise)
    expected = past.sum() + z_features.sum() + posterior.mean.sum() + posterior.stddev.sum()
    torch.testing.assert_close(METHODS[RECURRENCE](problem), expected)
    terms = problem.model(problem.x, problem.lengths, problem.noise)
    torch.testing.assert_close(terms.latents, z)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_takes_time_and_gives_gradients(name):
    problem = Problem(SMALL)
    forward, backward = step(METHODS[name], problem)
    assert forward > 0 and backward > 0
    models = (problem.lstm, problem.model, problem.without_latents)
    assert sum(p.grad is not None for model in models for p in model.parameters()) >= 4


def test_the_ratio_is_of_both_passes_and_the_median(monkeypatch):
    seconds = {
        FUSED: [(1.0, 1.0), (2.0, 2.0), (1.0, 3.0)],
        "x": [(2.0, 4.0), (4.0, 4.0), (9.0, 9.0)],
    }
    assert slower(seconds, "x") == 3.0  # of 3, 2 and 4.5
    calls = []
    monkeypatch.setattr(vrnn, "METHODS", {"a": calls.append, "b": calls.append})
    monkeypatch.setattr(vrnn, "step", lambda method, problem: method(problem) or (1.0, 2.0))
    assert measure(7, 2) == {"a": [(1.0, 2.0)] * 2, "b": [(1.0, 2.0)] * 2}
    assert len(calls) == 6  # one turn to warm up


def test_the_table(monkeypatch, capsys):
    monkeypatch.setattr(vrnn, "SHAPES", (SMALL,))
    main(repetitions=1)
    lines = capsys.readouterr().out.splitlines()
    for name in METHODS:
        assert any(line.startswith(name) for line in lines)
    assert lines[-1].startswith("recurrence ≤ 2 × the time of the fused LSTM: ")
    with pytest.raises(UserError, match="repetitions"):
        main(repetitions=0)
