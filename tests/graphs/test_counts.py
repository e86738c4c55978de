from collections import Counter
from math import comb

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from plateau.graphs.counts import (
    chain_count_label,
    chain_count_label_total,
    chain_count_paths,
    count_label,
    count_label_total,
    count_paths,
    paths,
    shortest_path,
)
from plateau.graphs.graph import Arc, arcs_of, from_arcs
from plateau.graphs.topology import Segment, chain, segments_of, standard_segments
from tests.graphs.enumeration import (
    OTHER_PATTERNS,
    STANDARD_PATTERNS,
    num_labels,
    sequences,
    walk,
)


def check(fsa, num_frames, expected, segments=None):
    """All counts of the FSA, and of the chain of segments, are those of the expected paths."""
    assert count_paths(fsa, num_frames) == len(expected)
    at_frames = [Counter(at_t) for at_t in zip(*expected, strict=True)]
    at_frames = at_frames or [Counter()] * num_frames
    assert [+counter for counter in count_label(fsa, num_frames)] == at_frames
    assert count_label_total(fsa, num_frames) == sum(at_frames, Counter())
    if segments is not None:
        assert chain_count_paths(segments, num_frames) == len(expected)
        for label in {segment.label for segment in segments}:
            at_label = [
                chain_count_label(segments, label, t, num_frames) for t in range(num_frames)
            ]
            assert at_label == [counter[label] for counter in at_frames]
            assert chain_count_label_total(segments, label, num_frames) == sum(at_label)


@pytest.mark.parametrize(("name", "pattern"), STANDARD_PATTERNS.items())
def test_counts_of_standard_topologies_are_those_of_their_regular_expressions(name, pattern):
    segments = standard_segments(name)
    for num_frames in range(1, {2: 9, 3: 9}.get(num_labels(pattern), 7)):
        check(chain(segments), num_frames, sequences(pattern, num_frames), segments)


@pytest.mark.parametrize(("topology", "pattern"), OTHER_PATTERNS.items(), ids=str)
def test_counts_of_other_topologies_are_those_of_their_regular_expressions(topology, pattern):
    name, target = topology
    words = [[int(label) for label in word.split()] for word in target.split("|")]
    segments = segments_of(name, words, num_labels(pattern) - 1)
    for num_frames in range(1, 8):
        check(chain(segments), num_frames, sequences(pattern, num_frames), segments)


SEGMENT = st.builds(Segment, st.integers(0, 2), st.booleans())


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(SEGMENT, min_size=1, max_size=5), st.integers(1, 8))
@example([Segment(0)] * 3, 6)  # equal labels: paths that cannot be told apart all count
@example([Segment(0, optional=True)] * 4 + [Segment(1)], 8)
def test_counts_of_any_chain_are_those_of_its_paths(segments, num_frames):
    assume(not all(segment.optional for segment in segments))
    fsa = chain(segments)
    expected = [labels for labels, _ in walk(arcs_of(fsa), num_frames)]
    check(fsa, num_frames, expected, segments)


STATE = st.integers(0, 3)
ARC = st.builds(Arc, STATE, STATE, st.integers(0, 2), st.integers(-8, 8).map(lambda n: n / 8))
ENDING = st.builds(Arc, STATE, st.just(4), st.just(-1), st.integers(-8, 8).map(lambda n: n / 8))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(ARC, min_size=1, max_size=7),
    st.lists(ENDING, min_size=1, max_size=3),
    st.integers(1, 5),
)
@example([Arc(0, 0, 1, 0.5)] * 2, [Arc(0, 4, -1, 0.0)] * 2, 4)  # 2 ** 4 * 2 paths
def test_counts_of_any_fsa_are_those_of_its_paths(arcs, endings, num_frames):
    fsa = from_arcs([*arcs, *endings])
    expected = walk([*arcs, *endings], num_frames)
    assert sorted(paths(fsa, num_frames)) == expected
    check(fsa, num_frames, [labels for labels, _ in expected])
    fitting = [t for t in range(1, 6) if walk([*arcs, *endings], t)]
    if fitting:
        assert shortest_path(fsa) == fitting[0]


def test_a_loop_of_seven_states_fits_every_seventh_length():
    fsa = from_arcs([*(Arc(i, (i + 1) % 7, 0, 0.0) for i in range(7)), Arc(0, 7, -1, 0.0)])
    assert [t for t in range(1, 30) if count_paths(fsa, t)] == [7, 14, 21, 28]
    assert shortest_path(fsa) == 7  # not 0


def test_counts_of_10_000_frames_are_exact():
    num_frames = 10_000
    segments = standard_segments("3label_blank")
    fsa = chain(segments)
    assert count_paths(fsa, num_frames) == comb(num_frames + 3, 6)  # binom(T + N, 2 N)
    at_frames = count_label(fsa, num_frames)
    for label in range(4):
        for t in (0, 1, 4_999, 9_999):
            assert at_frames[t][label] == chain_count_label(segments, label, t, num_frames)
        counted = sum(at_t[label] for at_t in at_frames)
        assert counted == chain_count_label_total(segments, label, num_frames)
    assert all(sum(at_t.values()) == comb(num_frames + 3, 6) for at_t in at_frames)


def test_counts_that_no_float_holds_are_exact():
    loops = from_arcs([Arc(0, 0, 0, 0.0), Arc(0, 0, 1, 0.0), Arc(0, 0, 2, 0.0), Arc(0, 1, -1, 0.0)])
    assert count_paths(loops, 2_000) == 3**2_000
    assert count_label(loops, 2_000)[17] == {label: 3**1_999 for label in range(3)}
    assert count_label_total(loops, 2_000)[1] == 2_000 * 3**1_999


def test_blank_has_more_of_a_ctc_alignment_than_all_labels_together():
    # Zeyer et al. 2021: N + 1 blank segments have nearly the frames of as many labels. With T
    # large, blank's share goes to (N + 1) / (2 N + 1).
    segments = standard_segments("2label")
    share = chain_count_label_total(segments, 2, 10_000) / (
        10_000 * chain_count_paths(segments, 10_000)
    )
    assert share == pytest.approx(3 / 5, abs=1e-3)
