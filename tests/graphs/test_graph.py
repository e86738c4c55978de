import re

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plateau.graphs.graph import Arc, arcs_of, connect, draw, from_arcs, stack, token_graph
from plateau.graphs.topology import chain, standard_segments
from tests.graphs.enumeration import walk

STATE = st.integers(0, 4)
ARC = st.builds(Arc, STATE, STATE, st.integers(0, 2), st.integers(-8, 8).map(lambda n: n / 8))
ENDING = st.builds(Arc, STATE, st.just(5), st.just(-1), st.integers(-8, 8).map(lambda n: n / 8))
ARCS = st.builds(lambda a, b: a + b, st.lists(ARC, max_size=8), st.lists(ENDING, max_size=2))


def on_paths(arcs):
    """States from which and to which arcs lead, by following them one by one."""
    from_start, to_end = {0}, {arc.target for arc in arcs if arc.label == -1}
    for _ in arcs:
        from_start |= {arc.target for arc in arcs if arc.source in from_start}
        to_end |= {arc.source for arc in arcs if arc.target in to_end}
    return from_start & to_end


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(ARCS.filter(len), min_size=1, max_size=4))
@example([[Arc(0, 2, 1, 0.0)], [Arc(0, 1, 0, 0.5), Arc(1, 5, -1, 0.0), Arc(1, 3, 2, 0.0)]])
def test_connected_graphs_have_the_states_on_paths_alone(batch):
    graphs = connect(stack([token_graph(arcs) for arcs in batch]))
    assert len(graphs) == len(batch)
    for n, arcs in enumerate(batch):
        graph, kept = graphs[n], sorted(on_paths(arcs))
        if 0 not in kept:
            assert arcs_of(graph) == [] and graph.num_states.tolist() == [0]
            continue
        numbers = {state: number for number, state in enumerate(kept)}
        expected = [
            (numbers[a.source], numbers[a.target], *a[2:])
            for a in arcs
            if {a.source, a.target} <= numbers.keys()
        ]
        assert sorted(arcs_of(graph)) == sorted(expected)
        assert graph.num_states.tolist() == [len(kept)]
        assert graph.sources.tolist() == sorted(graph.sources.tolist())
        for num_frames in range(4):
            assert walk(arcs_of(graph), num_frames) == walk(arcs, num_frames)
        assert arcs_of(from_arcs(arcs)) == sorted(expected)


def test_a_batch_is_its_graphs():
    parts = [chain(standard_segments(name)) for name in ("2label", "1label", "3label_sil")]
    graphs = stack(parts)
    assert [arcs_of(graphs[n]) for n in range(3)] == [arcs_of(part) for part in parts]
    assert arcs_of(graphs[-1]) == arcs_of(parts[-1])
    assert graphs.num_states.tolist() == [int(part.num_states) for part in parts]
    assert graphs.graph_of_arc.tolist() == [n for n in range(3) for _ in arcs_of(parts[n])]
    two = graphs[1:]
    assert len(two) == 2 and [arcs_of(two[n]) for n in range(2)] == [arcs_of(p) for p in parts[1:]]
    assert len(graphs[2:2]) == 0
    assert arcs_of(stack([graphs[:1], two])[1]) == arcs_of(parts[1])
    for wrong in (graphs, graphs[:0]):
        with pytest.raises(ValueError, match="one graph"):
            arcs_of(wrong)
    with pytest.raises(ValueError, match="without gaps"):
        graphs[::2]


def test_a_drawing_has_every_arc(tmp_path):
    graph = chain(standard_segments("2label"))
    graph = graph.with_weights((1 + torch.arange(len(graph.weights))) / 4)
    draw(graph, tmp_path / "graph.dot", title='two "labels"')
    text = (tmp_path / "graph.dot").read_text()
    assert text.startswith("digraph") and r"two \"labels\"" in text
    drawn = re.findall(r'(\d+) -> (\d+) \[label="(-?\d+)/([\d.]+)"\]', text)
    arcs = [(int(s), int(t), int(label), float(score)) for s, t, label, score in drawn]
    assert sorted(arcs) == sorted(tuple(arc) for arc in arcs_of(graph))
