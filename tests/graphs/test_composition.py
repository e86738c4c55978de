import pytest
import torch

from plateau.graphs.composition import (
    bias_graph,
    clock,
    compose,
    memory_graph,
    prior_graph,
    total,
)
from plateau.graphs.graph import arcs_of, stack
from plateau.graphs.topology import chain, standard_segments
from tests.graphs import enumeration
from tests.graphs.enumeration import walk
from tests.graphs.test_dense import GRAPHS

pytestmark = pytest.mark.usefixtures("engine")  # every test with each engine

NUM_RUNS, NUM_FRAMES, NUM_LABELS = len(GRAPHS), 5, 4
GENERATOR = torch.Generator().manual_seed(7)
MEM = torch.randn(NUM_RUNS, NUM_FRAMES, NUM_LABELS, generator=GENERATOR, dtype=torch.float64)
BIAS = torch.randn(NUM_RUNS, NUM_LABELS, generator=GENERATOR, dtype=torch.float64)
LOG_PRIOR = torch.randn(NUM_RUNS, NUM_LABELS, generator=GENERATOR).double().log_softmax(-1)


def model_graph(mem, bias):
    """mem, bias (cut to T frames) or both, as graphs; and the logits that they stand for."""
    if bias is None:
        return memory_graph(mem), mem
    by_frame = bias.unsqueeze(1).expand(-1, NUM_FRAMES, -1)
    if mem is None:
        return compose(clock(NUM_RUNS, NUM_FRAMES, NUM_LABELS), bias_graph(bias)), by_frame
    return compose(memory_graph(mem), bias_graph(bias)), mem + by_frame


MODELS = {"mem": (MEM, None), "bias": (None, BIAS), "mem+bias": (MEM, BIAS)}


@pytest.mark.parametrize("model", MODELS)
def test_total_of_a_model_is_its_normalisation(model):
    graph, logits = model_graph(*MODELS[model])
    torch.testing.assert_close(total(graph), logits.logsumexp(-1).sum(-1), rtol=0, atol=5e-6)
    best = total(graph, log_semiring=False)
    torch.testing.assert_close(best, logits.amax(-1).sum(-1), rtol=0, atol=5e-6)


@pytest.mark.parametrize("log_semiring", [True, False])
@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("model", MODELS)
def test_composed_with_targets_totals_and_gradients_are_those_of_enumeration(
    model, scale, log_semiring
):
    weights = torch.arange(1.0, NUM_RUNS + 1, dtype=torch.float64)  # tells runs apart
    leaves = [x if x is None else x.clone().requires_grad_() for x in MODELS[model]]
    log_prior = LOG_PRIOR.clone().requires_grad_()
    graph, logits = model_graph(*leaves)
    if scale is not None:
        graph = compose(graph, prior_graph(log_prior, scale))
        logits = logits - scale * log_prior.unsqueeze(1)
    values = total(compose(graph, stack(GRAPHS)), log_semiring)
    paths = [walk(arcs_of(fsa), NUM_FRAMES) for fsa in GRAPHS]
    expected = torch.stack(
        [enumeration.total(logits[n], paths[n], best=not log_semiring) for n in range(NUM_RUNS)]
    )
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-5)
    leaves = [leaf for leaf in (*leaves, log_prior) if leaf is not None]
    gradients = torch.autograd.grad(values @ weights, leaves, allow_unused=True)
    expected_gradients = torch.autograd.grad(expected @ weights, leaves, allow_unused=True)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert (gradient is None) == (expected_gradient is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-5)


def test_a_target_that_no_path_of_the_model_fits():
    bias = torch.zeros(2, 4, requires_grad=True)
    targets = stack([chain(standard_segments(name)) for name in ("1label", "3label_blank")])
    values = total(compose(clock(2, 2, 4), bias_graph(bias), targets))
    assert values.exp().tolist() == pytest.approx([3.0, 0.0])  # aa, aB, Ba; T is too short
    (gradient,) = torch.autograd.grad(values[0], bias)
    # Label 0 stands in 4 of 6 places, the first label's blank, 1, in 2.
    assert gradient.tolist() == [pytest.approx([4 / 3, 2 / 3, 0, 0]), [0, 0, 0, 0]]


def test_no_label_is_an_epsilon():
    # In k2.compose and k2.intersect, label 0 is read by nothing.
    only_zeros = stack([chain(standard_segments("1label"))])
    logits = torch.tensor([[[2.0, 0.0], [3.0, 0.0]]])
    paths = compose(memory_graph(logits), only_zeros)
    assert walk(arcs_of(paths[0]), 2) == [((0, 0), 5.0), ((0, 1), 2.0), ((1, 0), 3.0)]


def test_the_best_of_equal_paths_is_always_the_same():
    bias = torch.zeros(1, 3, requires_grad=True)
    target = stack([chain(standard_segments("2label"))])
    gradients = []
    for _ in range(4):
        best = total(compose(clock(1, 5, 3), bias_graph(bias), target), log_semiring=False)
        gradients.append(torch.autograd.grad(best, bias)[0].tolist())
    counts = [
        [path.count(label) for label in range(3)]
        for path, _ in walk(arcs_of(target[0]), num_frames=5)
    ]
    assert gradients[0][0] in counts
    assert gradients == [gradients[0]] * 4
