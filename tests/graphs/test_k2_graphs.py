import pytest
import torch

k2 = pytest.importorskip("k2")

from plateau.graphs.ctc import ctc_graphs, ctc_topology  # noqa: E402
from plateau.graphs.graph import Arc, arcs_of, connect, from_arcs, stack  # noqa: E402
from plateau.graphs.k2_graphs import from_k2, to_k2  # noqa: E402
from tests.graphs.enumeration import TARGETS, walk  # noqa: E402


def test_there_and_back():
    weighted = from_arcs([Arc(0, 0, 2, 0.5), Arc(0, 1, 1, -1.5), Arc(1, 2, -1, 0.25)])
    graphs = stack([*(ctc_graphs([target]) for target in TARGETS), weighted])
    fsas = to_k2(graphs)
    back = from_k2(fsas)
    for name, values in vars(graphs).items():
        assert getattr(back, name).equal(values), name
    for n in range(len(graphs)):  # as k2 makes them one by one
        lines = [f"{a.source} {a.target} {a.label} {a.score}" for a in arcs_of(graphs[n])]
        fsa = k2.Fsa.from_str("\n".join([*lines, str(int(graphs[n].num_states) - 1)]))
        assert str(k2.create_fsa_vec([fsa]).arcs) == str(k2.create_fsa_vec([fsas[n]]).arcs)
        assert arcs_of(from_k2(fsa)) == arcs_of(graphs[n])
    assert fsas.aux_labels[fsas.labels == -1].eq(-1).all()


def test_weights_have_gradients():
    graphs = ctc_graphs(TARGETS)
    weights = torch.zeros(len(graphs.labels), requires_grad=True)
    (to_k2(graphs.with_weights(weights)).scores ** 2 + 3 * weights).sum().backward()
    assert weights.grad.eq(3).all()


def test_a_batch_with_an_empty_graph():
    graphs = connect(stack([ctc_graphs([[1]]), from_arcs([Arc(0, 1, 1, 0.0)])]))
    fsas = to_k2(graphs)
    assert fsas.shape[0] == 2 and fsas[1].num_arcs == 0
    assert from_k2(fsas).splits.equal(graphs.splits)


def test_ctc_graphs_and_topology_are_those_of_k2():
    ours, theirs = ctc_graphs(TARGETS), from_k2(k2.ctc_graph(TARGETS))
    for n in range(len(TARGETS)):
        for num_frames in range(1, 7):
            paths = walk(arcs_of(ours[n]), num_frames)
            assert paths == walk(arcs_of(theirs[n]), num_frames)
    topology = from_k2(k2.arc_sort(k2.ctc_topo(3)))
    assert walk(arcs_of(ctc_topology(4)), 4) == walk(arcs_of(topology), 4)
