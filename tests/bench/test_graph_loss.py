import re

import pytest
import torch

from bench import graph_loss
from bench.graph_loss import TOPOLOGIES, Problem, Shape, check_same, main, methods
from plateau.config import UserError
from plateau.graphs.engines import GraphOptions, use_engine

SMALL = Shape(N=2, T=30, U=7, V=5)


@pytest.fixture(autouse=True)
def as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    use_engine(GraphOptions())


@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_all_methods_have_the_same_losses(topology, sure):
    check_same(Problem(SMALL, sure), topology)


def test_other_losses_are_found_out(monkeypatch):
    wrong = {**methods(), "torch": lambda problem, topology: problem.log_probs.sum((1, 2))}
    monkeypatch.setattr(graph_loss, "methods", lambda: wrong)
    with pytest.raises(UserError, match="and torch differ"):
        check_same(Problem(SMALL, False), "ctc")


def test_sure_posteriors_are_sure_of_the_transcript():
    losses = graph_loss.by_torch(Problem(SMALL, True), "ctc")
    assert (losses < graph_loss.by_torch(Problem(SMALL, False), "ctc") / 20).all()


def test_table(monkeypatch, capsys):
    monkeypatch.setattr(graph_loss, "SHAPES", (SMALL,))
    main(repetitions=1)
    text = capsys.readouterr().out
    rows = re.findall(r"^(\w+) +(flat|sure) (\w+) +([\d.]+) +([\d.]+) +([\d.]+)", text, re.M)
    assert len(rows) == 2 * len(TOPOLOGIES) * len(methods())
    assert all(float(row[5]) == 1 for row in rows if row[2] == next(iter(methods())))


@pytest.mark.parametrize("wrong", [{"repetitions": 0}, {"threads": 0}])
def test_wrong_numbers(wrong):
    with pytest.raises(UserError, match="at least 1"):
        main(**wrong)
