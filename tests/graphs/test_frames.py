"""Frames of token graphs, against all ways in which tokens last for frames."""

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.graphs.frames import to_ctc_frames, to_segment_frames
from plateau.graphs.graph import arcs_of, token_graph
from tests.graphs.enumeration import collapse, walk

STATE = st.integers(0, 2)
WEIGHT = st.integers(-8, 8).map(lambda n: n / 8)
ARCS = st.lists(st.tuples(STATE, STATE, st.integers(1, 3), WEIGHT), min_size=1, max_size=5)
ENDS = st.lists(st.tuples(STATE, st.just(3), st.just(-1), WEIGHT), min_size=1, max_size=2)
SILENCE = 3


@settings(deadline=None, derandomize=True, max_examples=40)
@given(ARCS, ENDS, st.integers(1, 4))
def test_ctc_frames_are_those_that_collapse_to_the_tokens(arcs, ends, num_frames):
    graph = to_ctc_frames(token_graph([*arcs, *ends]))
    token_paths = [path for k in range(num_frames + 1) for path in walk([*arcs, *ends], k)]
    expected = [
        (frames, weight)
        for frames in product(range(4), repeat=num_frames)
        for labels, weight in token_paths
        if tuple(collapse(frames)) == labels
    ]
    assert walk(arcs_of(graph), num_frames) == sorted(expected)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(ARCS, ENDS, st.integers(1, 4))
def test_segment_frames_are_tokens_that_last(arcs, ends, num_frames):
    graph = to_segment_frames(token_graph([*arcs, *ends]), SILENCE)
    expected = []
    for durations in (d for k in range(1, num_frames + 1) for d in product(range(1, 5), repeat=k)):
        if sum(durations) == num_frames:
            for labels, weight in walk([*arcs, *ends], len(durations)):
                twice = pairwise(labels)
                if (SILENCE, SILENCE) not in twice:
                    lasting = zip(labels, durations, strict=True)
                    frames = tuple(label % SILENCE for label, n in lasting for _ in range(n))
                    expected.append((frames, weight))
    assert walk(arcs_of(graph), num_frames) == sorted(expected)


@pytest.mark.parametrize("silence", [None, 3])
def test_outputs_are_on_the_arc_that_begins_a_token(silence):
    tokens = token_graph([(0, 1, 2, 0.5), (1, 2, 3, 0.0), (2, 3, -1, 0.0)])
    graph = to_ctc_frames(tokens) if silence is None else to_segment_frames(tokens, silence)
    outputs = {
        (label, output)
        for source, target, label, output in zip(
            graph.sources.tolist(), graph.targets.tolist(), graph.labels.tolist(),
            graph.outputs.tolist(), strict=True,
        )
        if output and source != target
    }  # fmt: skip
    assert outputs == ({(2, 2), (3, 3)} if silence is None else {(2, 2)})
    loops = graph.sources == graph.targets
    assert graph.outputs[loops].eq(0).all() and graph.outputs[graph.labels < 0].eq(0).all()
