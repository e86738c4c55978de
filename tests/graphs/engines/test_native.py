"""Our engine against enumeration, k2, exact counts, and finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from plateau.graphs import reference
from plateau.graphs.counts import chain_count_label, chain_count_paths
from plateau.graphs.ctc import ctc_graphs
from plateau.graphs.engines import kernels, native
from plateau.graphs.engines.layout import layout_of
from plateau.graphs.graph import Arc, arcs_of, from_arcs, stack
from plateau.graphs.loss import label_graphs
from plateau.graphs.topology import TOPOLOGIES, chain, chains, standard_segments
from tests.graphs.enumeration import total, walk

TRANSCRIPTS = [[[1, 2], [3]], [], [[2, 2]], [[3], [1], [3, 3, 1]], [[1]]]


@pytest.fixture(params=["scaled", "exact"])
def kernel(request, monkeypatch):
    """Both ways to sum; usually the second is for what the first cannot do."""
    if request.param == "exact":
        monkeypatch.setattr(kernels, "scaled_sums", nothing_done)


def nothing_done(which, layout, *arguments):
    arguments[-1].fill(np.nan)


def full_sum(scores, lengths, graphs, delay_penalty=0.0):
    """Totals and gradients, of scores and of weights; each utterance's has another factor."""
    scores = scores.detach().requires_grad_()
    weights = graphs.weights.detach().clone().requires_grad_()
    sums = native.totals(scores, lengths, graphs.with_weights(weights), 0.0, delay_penalty)
    factors = torch.arange(1.0, len(graphs) + 1, dtype=torch.float64)
    return sums.detach(), *torch.autograd.grad(sums @ factors, (scores, weights))


def by_k2(scores, lengths, graphs):
    pytest.importorskip("k2")
    from plateau.graphs.engines import k2 as engine

    scores = scores.detach().requires_grad_()
    sums = engine.totals(scores, lengths, graphs, 0.0, 0.0)
    factors = torch.arange(1.0, len(graphs) + 1, dtype=torch.float64)
    return sums.detach(), torch.autograd.grad(sums @ factors, scores)[0]


def random_logits(*shape, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator)


STATE = st.integers(0, 3)
WEIGHT = st.floats(-3, 3)
ARC = st.builds(Arc, STATE, STATE, st.integers(0, 2), WEIGHT)
ENDING = st.builds(Arc, STATE, st.just(4), st.just(-1), WEIGHT)
FSA = st.builds(
    lambda arcs, ends: from_arcs([*arcs, *ends]),
    st.lists(ARC, min_size=1, max_size=8),
    st.lists(ENDING, min_size=1, max_size=3),
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(FSA, min_size=1, max_size=3), st.integers(0, 100), st.floats(0, 30), st.booleans())
@example([from_arcs([Arc(0, 1, 1, 0.0)])], 0, 1.0, False)  # no path at all
@example([from_arcs([Arc(0, 0, 1, 900.0), Arc(0, 1, -1, -900.0)])], 0, 1.0, False)
def test_sums_and_gradients_of_any_graph_are_those_of_enumeration(fsas, seed, scale, exact):
    graphs = stack(fsas)
    scores = random_logits(len(fsas), 5, 3, scale=scale, seed=seed).double()
    lengths = torch.tensor([4, 1, 5][: len(fsas)])
    with pytest.MonkeyPatch.context() as patch:
        if exact:
            patch.setattr(kernels, "scaled_sums", nothing_done)
        sums, of_scores, of_weights = full_sum(scores, lengths, graphs)
    paths = native.best_paths(scores, lengths, graphs, math.inf)
    for n, fsa in enumerate(fsas):
        length = int(lengths[n])
        all_paths = walk(arcs_of(fsa), length)
        found = of_weights[graphs.graph_of_arc == n]
        if not all_paths:
            assert sums[n] == -math.inf and paths[n] == ([], [])
            assert of_scores[n].eq(0).all() and found.eq(0).all()
            continue
        frames = scores[n].clone().requires_grad_()
        expected = total(frames[:length], all_paths)
        torch.testing.assert_close(sums[n], expected.detach(), rtol=1e-10, atol=1e-9)
        (gradient,) = torch.autograd.grad((n + 1) * expected, frames)
        torch.testing.assert_close(of_scores[n], gradient, rtol=0, atol=1e-9)
        best = total(frames[:length], all_paths, best=True)
        of_labels = [weight for labels, weight in all_paths if list(labels) == paths[n][0]]
        score = sum(float(frames[t, label]) for t, label in enumerate(paths[n][0]))
        assert score + max(of_labels) == pytest.approx(float(best), abs=1e-9)
        if n == 0:  # shares of arcs: what a path more or less changes
            moved = [arc._replace(score=arc.score + 1e-6) for arc in arcs_of(fsa)]
            for i, arc in enumerate(moved):
                arcs = [*arcs_of(fsa)[:i], arc, *arcs_of(fsa)[i + 1 :]]
                more = total(scores[n, :length], walk(arcs, length))
                assert float(found[i]) == pytest.approx(float(more - sums[n]) / 1e-6, abs=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_topology_is_as_by_k2(topology, scale, kernel):
    """Flat, usual and sure scores, not normalised; lengths from one frame on, and too few."""
    lengths = torch.tensor([40, 1, 25, 9, 3])
    scores = random_logits(5, 40, 4, scale=scale)
    graphs = label_graphs(topology, TRANSCRIPTS)
    sums, gradient, _ = full_sum(scores, lengths, graphs)
    expected_sums, expected = by_k2(scores, lengths, graphs)
    torch.testing.assert_close(sums, expected_sums, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=5e-6)  # k2's are float32


@pytest.mark.parametrize("delay_penalty", [0.0, 0.2])
def test_gradients_are_those_of_finite_differences(delay_penalty, kernel):
    graphs = stack([*(label_graphs("ctc", [words]) for words in TRANSCRIPTS[:3]), CYCLIC])
    lengths = torch.tensor([6, 4, 5, 6])
    scores = random_logits(4, 6, 4, scale=2.0).double().requires_grad_()
    weights = random_logits(len(graphs.labels)).double().requires_grad_()

    def loss(scores, weights):
        return native.totals(scores, lengths, graphs.with_weights(weights), 0.0, delay_penalty)

    assert torch.autograd.gradcheck(loss, (scores, weights))


CYCLIC = from_arcs(
    [
        Arc(0, 1, 1, -0.5),
        Arc(1, 0, 2, 0.25),
        Arc(1, 1, 1, 0.0),
        Arc(0, 2, 3, 1.0),
        Arc(2, 0, 0, -1.0),
        Arc(1, 3, -1, 0.5),
        Arc(2, 3, -1, 0.0),
    ]
)


@pytest.mark.parametrize("name", ["2label", "3label_sil"])
def test_10_000_flat_frames_are_as_counted(name, kernel):
    """log C(T) - T log V and C(s, t, T) / C(T), in Python's integers."""
    segments, num_frames = standard_segments(name), 10_000
    num_labels = 1 + max(segment.label for segment in segments)
    scores = torch.zeros(1, num_frames, num_labels)
    sums, gradient, _ = full_sum(scores, torch.tensor([num_frames]), chain(segments))
    count = chain_count_paths(segments, num_frames)
    assert float(sums) == pytest.approx(math.log(count), rel=1e-12)
    for t in (0, 1, 137, 5_000, 9_999):
        for label in range(num_labels):
            share = chain_count_label(segments, label, t, num_frames) / count
            assert float(gradient[0, t, label]) == pytest.approx(share, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("nats", [5.0, 60.0, 5e3, 1e8])
def test_what_underflows_is_summed_all_the_same(nats):
    """A model of nothing but blank: the sum over paths is far below that of all blanks."""
    labels = [1 + n % 3 for n in range(60)]
    scores = random_logits(1, 150, 4).double()
    scores[:, :, 1:] -= nats
    lengths = torch.tensor([150])
    graphs = ctc_graphs([labels])
    sums, gradient, _ = full_sum(scores, lengths, graphs)
    loss, gamma = reference.soft_alignment(scores, lengths, [labels])
    torch.testing.assert_close(sums, -loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, gamma, rtol=0, atol=1e-9 if nats < 1e6 else 1e-5)
    quick = np.zeros(1)
    layout = layout_of(graphs, False)
    arrays = np.zeros((1, 150, 4)), np.zeros(0), np.zeros(len(layout.end_weights)), quick
    kernels.scaled_sums(np.arange(1), layout, scores.numpy(), lengths.numpy(), 0.0, *arrays)
    assert np.isnan(quick).item() == (nats > 5)


def test_scores_of_minus_infinity_and_nan(kernel):
    scores = random_logits(4, 5, 4)
    lengths = torch.tensor([5, 5, 5, 4])
    graphs = ctc_graphs([[1], [3], [1, 2], [2]])
    scores[:2, :, 3] = -math.inf  # the first does not need it
    scores[2, 3, 2] = math.nan
    scores[3, 4] = math.nan  # padding
    scores[3, 0, 3] = math.nan  # no label of its graph
    sums, gradient, _ = full_sum(scores, lengths, graphs)
    clean = scores.nan_to_num(nan=0.0, neginf=-1e4).double()
    expected, gamma = reference.soft_alignment(clean, lengths, [[1], [3], [1, 2], [2]])
    for n, factor in ((0, 1), (3, 4)):
        torch.testing.assert_close(sums[n], -expected[n], rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient[n].double(), factor * gamma[n], rtol=0, atol=1e-6)
    assert sums[1] == -math.inf and gradient[1].eq(0).all()
    assert sums[2].isnan() and gradient[2].isnan().any()


def test_a_delay_penalty_is_not_pruned():
    """k2 drops what is 40 nats below the best before it is rewarded; nothing is dropped here."""
    scores = random_logits(1, 60, 3).log_softmax(-1).double()
    lengths = torch.tensor([60])
    sums, *_ = full_sum(scores, lengths, ctc_graphs([[1, 2, 1]]), delay_penalty=3.0)
    # The same as a loss of scores by hand: a state for each token that has begun.
    segments = [0, 1, 0, 2, 0, 1, 0]
    gains = 3.0 * (29.5 - torch.arange(60.0, dtype=torch.float64))
    state = torch.full((7,), -math.inf, dtype=torch.float64)
    state[0], state[1] = scores[0, 0, 0], scores[0, 0, 1] + gains[0]
    for t in range(1, 60):
        former, state = state, torch.empty_like(state)
        for s, label in enumerate(segments):
            enter = [former[s - 1]] * (s > 0) + [former[s - 2]] * (s > 1 and s % 2)
            gain = gains[t] if label else 0.0
            ways = torch.stack([former[s], *(x + gain for x in enter)])
            state[s] = ways.logsumexp(0) + scores[0, t, label]
    torch.testing.assert_close(sums[0], state[-2:].logsumexp(0), rtol=1e-12, atol=0)


def test_company_order_and_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr(native, "WORTH_THREADS", 0)
    lengths = torch.tensor([300, 1, 7, 150, 299])
    scores = random_logits(5, 300, 4, scale=3.0)
    graphs = [label_graphs("ctc", [words]) for words in TRANSCRIPTS]
    before = torch.get_num_threads()

    def run(order, threads):
        torch.set_num_threads(threads)
        index = torch.tensor(order)
        batch = stack([graphs[n] for n in order])
        leaf = scores[index].requires_grad_()
        sums = native.totals(leaf, lengths[index], batch, 0.3, 0.1)
        sums.sum().backward()
        return sums.detach(), leaf.grad, native.best_paths(leaf, lengths[index], batch, math.inf)

    try:
        sums, gradient, paths = run([0, 1, 2, 3, 4], 1)
        for order, threads in (([4, 2, 0, 1, 3], 3), ([1], 1), ([0, 3], 2), ([0, 1, 2, 3, 4], 4)):
            found, of_scores, found_paths = run(order, threads)
            assert found.equal(sums[order]) and of_scores.equal(gradient[order])
            assert found_paths == [paths[n] for n in order]
    finally:
        torch.set_num_threads(before)


def test_one_label_and_half_precision():
    graphs = chains([standard_segments("1label")] * 2)
    scores = random_logits(2, 9, 2).half()
    sums, gradient, _ = full_sum(scores, torch.tensor([9, 4]), graphs)
    expected, of_float, _ = full_sum(scores.float(), torch.tensor([9, 4]), graphs)
    assert sums.equal(expected) and gradient.dtype == torch.float16
    torch.testing.assert_close(gradient.float(), of_float, rtol=1e-3, atol=1e-3)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(FSA, st.integers(0, 100), st.floats(0.5, 6))
def test_a_beam_drops_states_of_a_frame(fsa, seed, beam):
    """As by hand: after each frame, states that are too far below the best are left out."""
    assume(len(fsa.labels))
    scores = random_logits(1, 5, 3, scale=2.0, seed=seed).double()
    alive = {0: (0.0, ())}
    for row in scores[0].tolist():
        limit = max((score for score, _ in alive.values()), default=0.0) - beam
        ways = {}
        for arc in arcs_of(fsa):
            if arc.label >= 0 and arc.source in alive and alive[arc.source][0] >= limit:
                score, path = alive[arc.source]
                way = (score + arc.score + row[arc.label], (*path, arc.label))
                ways[arc.target] = max(ways.get(arc.target, way), way)
        alive = ways
    ends = [
        (alive[arc.source][0] + arc.score, alive[arc.source][1])
        for arc in arcs_of(fsa)
        if arc.label < 0 and arc.source in alive
    ]
    ((labels, _),) = native.best_paths(scores, torch.tensor([5]), fsa, beam)
    assert tuple(labels) == (max(ends)[1] if ends else ())


def test_a_label_into_the_final_state():
    graphs = ctc_graphs([[1]])
    final = int(graphs.num_states) - 1
    wrong = graphs.targets.where(graphs.labels != 1, torch.tensor(final, dtype=torch.int32))
    broken = type(graphs)(graphs.sources, wrong, *graphs.of_arcs[2:], graphs.splits)
    with pytest.raises(ValueError, match="final state"):
        native.totals(torch.zeros(1, 3, 2), torch.tensor([3]), broken, 0.0, 0.0)


def test_nowhere_to_keep_what_is_compiled(monkeypatch):
    """As in a folder that cannot be written, without a home."""
    import numba

    njit = numba.njit

    def refuse(**options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", refuse)
    assert kernels.compiled(lambda x: x + 1)(1) == 2
