import random
from itertools import product

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

k2 = pytest.importorskip("k2")

from plateau.config import UserError  # noqa: E402
from plateau.graphs.dense import full_sum_loss  # noqa: E402
from plateau.graphs.graph import arcs_of  # noqa: E402
from plateau.graphs.k2_graphs import from_k2  # noqa: E402
from plateau.graphs.topology import (  # noqa: E402
    STANDARD,
    TOPOLOGIES,
    Segment,
    chain,
    read_fsa,
    segments_of,
    standard_segments,
)
from tests.graphs.enumeration import (  # noqa: E402
    OTHER_PATTERNS,
    STANDARD_PATTERNS,
    collapse,
    num_labels,
    sequences,
    unweighted,
    walk,
)


def accepted(fsa, num_frames):
    return walk(arcs_of(fsa), num_frames)


@pytest.mark.parametrize(("name", "pattern"), STANDARD_PATTERNS.items())
def test_a_standard_topology_has_one_path_for_each_match_of_its_regular_expression(name, pattern):
    fsa = chain(standard_segments(name))
    for num_frames in range(1, 7):
        assert accepted(fsa, num_frames) == unweighted(sequences(pattern, num_frames))


@pytest.mark.parametrize(("topology", "pattern"), OTHER_PATTERNS.items(), ids=str)
def test_a_topology_has_one_path_for_each_match_of_its_regular_expression(topology, pattern):
    name, target = topology
    words = [[int(label) for label in word.split()] for word in target.split("|")]
    fsa = chain(segments_of(name, words, blank=num_labels(pattern) - 1))
    for num_frames in range(1, 8):
        assert accepted(fsa, num_frames) == unweighted(sequences(pattern, num_frames))


def test_every_topology_is_among_those_tested():
    assert list(STANDARD_PATTERNS) == list(STANDARD)
    assert {name for name, _ in OTHER_PATTERNS} == set(TOPOLOGIES)


TRANSCRIPTS = st.lists(st.integers(0, 2), min_size=1, max_size=4)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(TRANSCRIPTS, st.integers(1, 5))
def test_ctc_accepts_what_collapses_to_the_transcript(labels, num_frames):
    fsa = chain(segments_of("ctc", [labels], blank=3))
    every = product(range(4), repeat=num_frames)
    expected = [path for path in every if collapse(path, blank=3) == labels]
    assert accepted(fsa, num_frames) == unweighted(expected)


@settings(deadline=None, derandomize=True, max_examples=10)
@given(TRANSCRIPTS)
def test_ctc_is_that_of_k2_with_another_number_for_blank(labels):
    k2_graph = from_k2(k2.ctc_graph([[1 + label for label in labels]]))
    ours = chain(segments_of("ctc", [labels], blank=3))
    renumbered = [
        (s, t, (label + 1) % 4 if label >= 0 else -1, w) for s, t, label, w in arcs_of(ours)
    ]
    for num_frames in range(1, 7):
        assert walk(renumbered, num_frames) == accepted(k2_graph, num_frames)
    generator = torch.Generator().manual_seed(len(labels))
    scores = torch.randn(1, 12, 4, dtype=torch.float64, generator=generator)  # blank is first
    loss = full_sum_loss(scores, torch.tensor([12]), k2_graph)
    blank_last = scores[:, :, [1, 2, 3, 0]]
    torch.testing.assert_close(full_sum_loss(blank_last, torch.tensor([12]), ours), loss)


def test_blank_may_be_any_label():
    fsa = chain(segments_of("ctc", [[4, 2]], blank=3))
    assert [labels for labels, _ in accepted(fsa, 3)] == [
        (3, 4, 2),
        (4, 2, 2),
        (4, 2, 3),
        (4, 3, 2),
        (4, 4, 2),
    ]


def test_hmm_counts_every_way_to_part_equal_labels():
    fsa = chain(segments_of("hmm", [[0, 0, 0]], blank=1))
    assert accepted(fsa, 5) == [((0,) * 5, 0.0)] * 6  # 2 borders in 4 places


@pytest.mark.parametrize(
    "segments", [[], [Segment(0, optional=True)] * 2, segments_of("ctc", [], blank=0)]
)
def test_a_chain_without_a_needed_segment(segments):
    with pytest.raises(ValueError, match="not optional"):
        chain(segments)


# Reading FSAs. Scores are eighths, which float32 has exactly.
STATES = [0, 7, 3, 10**12]  # as the file names them
STATE = st.sampled_from(STATES)
SCORE = st.integers(-40, 40).map(lambda n: n / 8)
ARC = st.tuples(STATE, STATE, st.integers(0, 3), SCORE)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(ARC, max_size=6), st.dictionaries(STATE, SCORE, max_size=3), st.randoms())
@example([(0, 0, 0, 0.5), (0, 0, 0, 0.5)], {0: -1.0}, random.Random(0))  # two equal arcs, cyclic
def test_openfst_form_is_read_as_it_stands(tmp_path_factory, arcs, finals, shuffler):
    path = tmp_path_factory.getbasetemp() / "openfst.txt"
    lines = [f"{s}\t{t} {label} {w}" if w else f"{s} {t} {label}" for s, t, label, w in arcs]
    lines += [f"{s} {w:e}" if w else f"{s}" for s, w in finals.items()]
    lines += ["", "# 1 2 3", "  "]
    shuffler.shuffle(lines)
    path.write_text("\n".join(lines))
    endings = [(state, -1, -1, score) for state, score in finals.items()]
    expected = {t: walk([*arcs, *endings], t) for t in range(1, len(STATES) + 1)}
    if any(expected.values()):
        fsa = read_fsa(path)
        assert {t: accepted(fsa, t) for t in expected} == expected
    else:  # a path with a label, if there is one, needs no more labels than there are states
        with pytest.raises(UserError, match=r"openfst\.txt: no path"):
            read_fsa(path)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 3), SCORE)), SCORE)
def test_the_form_that_k2_writes_is_read_back(tmp_path_factory, arcs, final_score):
    lines = [f"{s} {t} {label} {w}" for s, t, label, w in sorted([*arcs, (0, 2, 1, 0.25)])]
    fsa = k2.Fsa.from_str("\n".join([*lines, f"3 4 -1 {final_score}", "4"]))
    fsa = k2.connect(fsa)
    path = tmp_path_factory.getbasetemp() / "k2.txt"
    path.write_text(k2.to_str_simple(fsa))
    expected = {t: accepted(from_k2(fsa), t) for t in range(1, 4)}
    if any(expected.values()):
        assert {t: accepted(read_fsa(path), t) for t in expected} == expected


def test_both_forms_may_have_scores_at_the_end(tmp_path):
    path = tmp_path / "fsa.txt"
    for text in ("0 1 3 2\n1 0.75\n", "0 1 3 2\n1 2 -1 0.75\n2\n", "0 1 3 2\n1 2 -1 0.5\n2 0.25"):
        path.write_text(text)
        assert accepted(read_fsa(path), 1) == [((3,), 2.75)]


def test_openfst_form_is_read_as_k2_reads_it_but_for_the_sign(tmp_path):
    text = "0 1 2 0.5\n0 2 1 0\n1 1 3 -1.5\n1 2 2 2\n2 0 1 0.25\n2 0.75\n1 0\n"
    path = tmp_path / "fsa.txt"
    path.write_text(text.replace(" 0\n", "\n"))  # OpenFst may leave out scores of 0, k2 may not
    as_costs = k2.Fsa.from_openfst(text, acceptor=True)
    for num_frames in range(1, 6):
        costs = [(labels, -score) for labels, score in accepted(from_k2(as_costs), num_frames)]
        assert accepted(read_fsa(path), num_frames) == sorted(costs)
        assert len(costs) >= 2


@pytest.mark.parametrize(
    "line",
    [
        "0 1 1 0.5 0.5",
        "0 1 one",
        "0 1 1.5",
        "0 -1 1",
        "-1 0 1",
        "0 1 -2",
        "0 1 2147483648",
        "0 1 -99999999999999",
        "0 1 1 nan",
        "0 1 1 -inf",
        "0 1 1 1e39",
        "0.5",
        "-1",
        "0 x",
        "0 inf",
        "<eps>",
        "9" * 5000,
    ],
)
def test_a_malformed_line_is_named(tmp_path, line):
    path = tmp_path / "fsa.txt"
    path.write_text(f"# an FSA\n0 1 1\n{line}\n1\n")
    with pytest.raises(UserError, match=r"fsa\.txt:3: .* is neither an arc"):
        read_fsa(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no path"),
        ("0", "no path"),  # the empty alignment alone
        ("0 1 -1\n1", "no path"),
        ("0 1 1", "no path"),  # nothing is final
        ("1 2 1\n2", "no path"),  # the initial state is 0
        ("0 1 1\n1 2 -1\n3", "leads to 2, which is not a final state"),
        ("0 1 1\n1 2 -1\n1 2 3\n2", r"'1 2 3' cannot"),
        ("0 1 1\n1 2 -1\n2\n2 2 3", r"'2 2 3' cannot"),
    ],
)
def test_an_fsa_that_makes_no_sense(tmp_path, text, said):
    path = tmp_path / "fsa.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"fsa\.txt: .*{said}") as caught:
        read_fsa(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"missing\.txt: no such file"):
        read_fsa(tmp_path / "missing.txt")
    with pytest.raises(UserError, match="cannot be read"):
        read_fsa(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="binary: UTF-16, not UTF-8"):
        read_fsa(tmp_path / "binary")
