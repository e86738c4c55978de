import re

import pytest
import torch

pytest.importorskip("k2")

from bench import transducer_loss
from bench.transducer_loss import (
    FULL,
    METHODS,
    PRUNED,
    Measured,
    Problem,
    Shape,
    check_same,
    faster,
    main,
    memory,
    memory_in_a_fresh_process,
    print_rows,
    smaller,
    step,
)
from plateau.config import UserError
from plateau.graphs.transducer import simple_loss

SMALL = Shape(N=2, T=12, U=4, V=9)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(transducer_loss, "JOINER_DIM", 8)
    monkeypatch.setattr(transducer_loss, "SHAPES", (SMALL,))


@pytest.fixture
def threads():
    """What `memory` sets is of its process; here it is the tests'."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.installed])
def test_methods_compute_the_same(name):
    problem = Problem(SMALL)
    _, _, expected = step(METHODS[FULL], problem)
    gradients = {n: p.grad for n, p in problem.named_parameters() if p.grad is not None}
    assert {"encoder", "predictor", "joiner.output.weight"} <= gradients.keys()
    forward, backward, losses = step(METHODS[name], problem)
    assert forward > 0 and backward > 0
    if name == PRUNED:
        # It keeps 5 positions, which are all, and the simple loss is in it.
        am, lm = problem.am(problem.encoder), problem.lm(problem.predictor)
        simple, _ = simple_loss(am, lm, problem.targets.tolist(), problem.lengths)
        torch.testing.assert_close(losses, expected + simple, rtol=1e-5, atol=1e-4)
        assert problem.am.weight.grad.any() and problem.lm.weight.grad.any()
    else:
        torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-4)
        for n, gradient in gradients.items():
            ours = dict(problem.named_parameters())[n].grad
            torch.testing.assert_close(ours, gradient, rtol=1e-3, atol=1e-4)


def test_the_problem_is_the_same_each_time():
    for (_, a), (_, b) in zip(
        Problem(SMALL).named_parameters(), Problem(SMALL).named_parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_times_of_other_computations_are_not_compared():
    expected = torch.tensor([100.0, 50.0])
    check_same({FULL: expected, "other": expected * (1 + 1e-6), PRUNED: expected * 2})
    with pytest.raises(RuntimeError, match=r"other: losses differ .* by 1e-02"):
        check_same({FULL: expected, "other": expected * torch.tensor([1.0, 1.01])})
    with pytest.raises(RuntimeError, match="other: losses differ"):
        check_same({FULL: expected, "other": expected * torch.nan})


def test_memory_is_the_peak_of_a_step(threads, monkeypatch):
    """A step that holds 200 MiB for a moment."""

    def loss(problem):
        torch.ones(50 * 2**20).sum()  # float32
        return problem.encoder.sum().reshape(1)

    assert memory(FULL, SMALL, threads) < 50
    monkeypatch.setitem(METHODS, "holds", transducer_loss.Method(loss))
    assert 190 < memory("holds", SMALL, threads) < 230


MEASURED = {
    FULL: Measured(forward=[2.0, 3.0, 8.0], backward=[2.0, 3.0, 8.0], mib=600.0),
    PRUNED: Measured(forward=[0.5, 1.0, 1.0], backward=[0.5, 1.0, 1.0], mib=100.0),
}


def test_ratios_are_of_the_same_repetition():
    assert faster(MEASURED, PRUNED) == 4.0  # the median of 4, 3 and 8
    assert smaller(MEASURED, PRUNED) == 6.0
    assert faster(MEASURED, FULL) == smaller(MEASURED, FULL) == 1.0


def test_rows(capsys):
    print_rows(Shape(8, 400, 100, 5000), {PRUNED: MEASURED[PRUNED]}, max_gib=8)
    rows = dict(
        re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines()[2:]
    )
    # 7 × 8 × 400 × 101 × 5000 × 4 bytes
    assert rows[FULL] == "left out: about 42 GiB, more than 8"
    assert rows[PRUNED].split() == ["1000", "1000", "–", "100", "–"]
    if not METHODS["full, torchaudio"].installed:
        assert rows["full, torchaudio"] == "torchaudio is not installed"


def test_the_table(capsys, monkeypatch):
    monkeypatch.setattr(transducer_loss, "TARGET_SHAPE", SMALL)
    monkeypatch.setattr(
        transducer_loss, "memory_in_a_fresh_process", lambda name, shape: float(len(name))
    )
    main(repetitions=2)
    lines = capsys.readouterr().out.splitlines()
    assert "threads, torch" in lines[0]
    assert "N, T, U, V = 2, 12, 4, 9" in lines
    rows = [line for line in lines if re.search(r"\d\.\d\d$", line)]
    installed = [name for name, method in METHODS.items() if method.installed]
    assert [row[:22].strip() for row in rows] == installed
    assert rows[0].split()[-3:] == ["1.00", "8", "1.00"]
    assert re.fullmatch(r"pruned ≥ 4 × faster than full: (not )?met", lines[-2])
    assert lines[-1] == "pruned ≥ 5 × smaller than full: not met"  # 8 letters and 10


def test_memory_in_a_fresh_process():
    """Where J is 512: the joiner's output (8, 30, 11, 500) is 5 MiB, and there are some of it."""
    shape = Shape(N=8, T=30, U=10, V=500)
    assert 10 < memory_in_a_fresh_process(FULL, shape) < 100


@pytest.mark.parametrize("numbers", [{"repetitions": 0}, {"max_gib": 0.0}])
def test_mistakes(numbers, capsys):
    with pytest.raises(UserError, match="--repetitions must be at least 1, and --max-gib"):
        main(**numbers)
    assert capsys.readouterr().out == ""
