import math

import pytest
import torch

from plateau.graphs.ctc import ctc_graphs
from plateau.graphs.dense import best_paths, full_sum_loss, soft_alignment, viterbi_loss
from plateau.graphs.graph import Arc, arcs_of, from_arcs, stack
from plateau.graphs.topology import Segment, chain, segments_of, standard_segments
from tests.graphs.enumeration import (
    LENGTHS,
    TARGETS,
    ctc_paths,
    random_scores,
    total,
    walk,
)

pytestmark = pytest.mark.usefixtures("engine")  # every test with each engine

# A batch of graphs of several kinds and weights, for the lengths of the CTC batch.
GRAPHS = [
    chain(standard_segments("2label")),
    chain([Segment(3), Segment(0, optional=True)]),
    from_arcs(
        [
            Arc(0, 0, 0, -0.5),
            Arc(0, 1, 1, 0.25),
            Arc(0, 1, 1, 1.5),  # parallel arcs
            Arc(1, 0, 2, -2.0),
            Arc(1, 2, 3, 0.75),
            Arc(2, 2, 3, 0.0),
            Arc(1, 3, -1, -1.0),  # two ways to end
            Arc(2, 3, -1, 0.5),
        ]
    ),
    chain([Segment(2)]),
    chain(standard_segments("3label_sil")),
    chain(segments_of("ctc", [[1, 1, 1]], blank=0)),
]
PATHS = [walk(arcs_of(fsa), int(n)) for fsa, n in zip(GRAPHS, LENGTHS, strict=True)]


def graphs():
    return stack(GRAPHS)


@pytest.mark.parametrize(("loss", "best"), [(full_sum_loss, False), (viterbi_loss, True)])
@pytest.mark.parametrize("normalised", [True, False])
def test_losses_and_soft_alignments_are_those_of_enumeration(loss, best, normalised):
    scores = random_scores(seed=5, normalised=normalised).requires_grad_()
    expected = -torch.stack([total(scores[n], PATHS[n], best) for n in range(len(GRAPHS))])
    weights = torch.arange(1.0, len(GRAPHS) + 1, dtype=torch.float64)  # tells utterances apart
    (expected_gradient,) = torch.autograd.grad(expected @ weights, scores)
    values = loss(scores, LENGTHS, graphs())
    (gradient,) = torch.autograd.grad(values @ weights, scores)
    torch.testing.assert_close(values, expected, rtol=0, atol=5e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-5)

    values, gamma = soft_alignment(scores, LENGTHS, graphs(), loss)
    assert not values.requires_grad and not gamma.requires_grad
    torch.testing.assert_close(values, expected, rtol=0, atol=5e-6)
    torch.testing.assert_close(
        gamma, -expected_gradient / weights[:, None, None], atol=5e-6, rtol=0
    )
    counting = (torch.arange(5) < LENGTHS[:, None]).double()  # (N, T)
    torch.testing.assert_close(gamma.sum(-1), counting, rtol=0, atol=1e-6)
    assert gamma[counting == 0].eq(0).all()


def test_the_best_of_equal_paths_is_one_of_them_and_always_the_same():
    scores = torch.zeros(len(GRAPHS), 5, 4, dtype=torch.float64)
    values, gamma = soft_alignment(scores, LENGTHS, graphs(), viterbi_loss)
    for n, paths in enumerate(PATHS):
        best = max(score for _, score in paths)
        assert float(values[n]) == pytest.approx(-best)
        (length,) = LENGTHS[n : n + 1].tolist()
        assert set(gamma[n, :length].flatten().tolist()) == {0.0, 1.0}
        path = tuple(gamma[n, :length].argmax(-1).tolist())
        assert path in [labels for labels, score in paths if score == best]
    for _ in range(3):
        assert soft_alignment(scores, LENGTHS, graphs(), viterbi_loss)[1].equal(gamma)


def test_gradient_is_that_of_finite_differences():
    scores = random_scores(normalised=False).requires_grad_()
    loss = full_sum_loss(scores, LENGTHS, graphs())
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    step = 2.0**-6  # scores are float32 inside: a coarse step, exact in binary
    generator = torch.Generator().manual_seed(2)
    for index in torch.randint(0, scores.numel(), (30,), generator=generator).tolist():
        values = []
        for sign in (1, -1):
            moved = scores.detach().clone()
            moved.view(-1)[index] += sign * step
            values.append(full_sum_loss(moved, LENGTHS, graphs()).sum())
        difference = (values[0] - values[1]) / (2 * step)
        assert float(gradient.view(-1)[index]) == pytest.approx(float(difference), abs=2e-4)


@pytest.mark.parametrize("loss", [full_sum_loss, viterbi_loss])
def test_padding_and_company_change_nothing(loss):
    scores = random_scores()
    together = loss(scores, LENGTHS, graphs())
    padded = torch.cat([scores, torch.full((len(GRAPHS), 3, 4), 5.0)], dim=1)
    torch.testing.assert_close(loss(padded, LENGTHS, graphs()), together, rtol=0, atol=0)
    for n, fsa in enumerate(GRAPHS):
        one = slice(n, n + 1)
        alone = loss(scores[one, : LENGTHS[n]], LENGTHS[one], fsa)
        torch.testing.assert_close(alone, together[one])


@pytest.mark.parametrize("loss", [full_sum_loss, viterbi_loss])
@pytest.mark.parametrize("unfit", [[1, 1], [1, 2, 3], [1, 2, 1, 2, 1]])
def test_an_utterance_without_enough_frames_has_infinite_loss_and_harms_no_other(unfit, loss):
    lengths = torch.tensor([4, 2, 5])
    targets = [[1, 2], unfit, [3, 3]]
    scores = random_scores()[:3].requires_grad_()
    values = loss(scores, lengths, ctc_graphs(targets))
    assert values[1] == math.inf
    gradients = [
        torch.autograd.grad(part, scores, retain_graph=True)[0]
        for part in (values.sum(), values[[0, 2]].sum())
    ]
    for gradient in gradients:
        assert gradient[1].eq(0).all()
    others = torch.tensor([0, 2])
    alone = scores.detach()[others].requires_grad_()
    values_alone = loss(alone, lengths[others], ctc_graphs([targets[0], targets[2]]))
    (expected,) = torch.autograd.grad(values_alone.sum(), alone)
    torch.testing.assert_close(values[others], values_alone)
    torch.testing.assert_close(gradients[0][others], expected)
    torch.testing.assert_close(gradients[1][others], expected)


def test_a_batch_in_which_nothing_fits():
    scores = random_scores()[:2].requires_grad_()
    loss = full_sum_loss(scores, torch.tensor([1, 2]), ctc_graphs([[1, 2], [3, 3]]))
    assert loss.tolist() == [math.inf, math.inf]
    loss.sum().backward()
    assert scores.grad.eq(0).all()


@pytest.mark.parametrize("lengths", [[3, 0], [6, 2], [-1, 2]])
def test_lengths_out_of_range(lengths):
    with pytest.raises(ValueError, match=r"1\.\.5"):
        full_sum_loss(random_scores()[:2], torch.tensor(lengths), ctc_graphs([[1], [2]]))


def log_total_of_chain(log_probs, segments):
    """Forward algorithm over a chain of segments, in double."""
    width = len(segments)
    never = -1e9  # an infinity would have no gradient
    labels = torch.tensor([segment.label for segment in segments])
    enters = torch.full((width + 1, width), never, dtype=torch.float64)  # row 0: the start
    for target in range(width):
        for source in range(target - 1, -2, -1):
            enters[source + 1, target] = 0.0
            if source >= 0 and not segments[source].optional:
                break
    stays = enters[1:].clone().fill_diagonal_(0.0)
    ends = [i for i in range(width) if all(segment.optional for segment in segments[i + 1 :])]
    state = enters[0] + log_probs[0, labels]
    for frame in log_probs[1:]:
        state = (state.unsqueeze(1) + stays).logsumexp(0) + frame[labels]
    return state[ends].logsumexp(0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0])
def test_many_frames_are_as_in_double_precision(scale):
    # Flat scores have long beams, sharp ones large sums.
    segments = standard_segments("2label")
    generator = torch.Generator().manual_seed(6)
    logits = scale * torch.randn(2_000, 3, dtype=torch.float64, generator=generator)
    log_probs = logits.log_softmax(-1).requires_grad_()
    expected = -log_total_of_chain(log_probs, segments)
    (expected_gradient,) = torch.autograd.grad(expected, log_probs)
    fsa = chain(segments)
    (loss,), (gamma,) = soft_alignment(log_probs[None], torch.tensor([2_000]), fsa)
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=1e-5)
    torch.testing.assert_close(gamma, -expected_gradient, rtol=0, atol=1e-5)


def test_best_paths_are_those_of_enumeration():
    scores = random_scores(seed=3)
    for fsas, all_paths in (
        (graphs(), PATHS),
        (
            ctc_graphs(TARGETS),
            [ctc_paths(x, int(n)) for x, n in zip(TARGETS, LENGTHS, strict=True)],
        ),
    ):
        for n, path in enumerate(best_paths(scores, LENGTHS, fsas)):
            best = max(all_paths[n], key=lambda path: total(scores[n], [path]))
            assert path == list(best[0])


def test_best_path_is_empty_where_none_fits():
    paths = best_paths(
        random_scores()[:3], torch.tensor([2, 3, 1]), ctc_graphs([[1, 1], [2], [1, 2]])
    )
    assert [len(path) for path in paths] == [0, 3, 0]
