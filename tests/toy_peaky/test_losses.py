"""Every loss three ways: dense (as trained), composed graphs, and enumeration in double."""

import pytest
import torch

pytest.importorskip("k2")

from plateau.graphs.composition import (
    bias_graph,
    clock,
    compose,
    memory_graph,
    prior_graph,
    total,
)
from plateau.graphs.graph import stack
from tests.graphs import enumeration
from tests.graphs.enumeration import (
    OTHER_PATTERNS,
    STANDARD_PATTERNS,
    sequences,
    unweighted,
    walk,
)
from toy_peaky.options import Options
from toy_peaky.training import loss_and_gradient, train

LOSSES = ["sum", "max", "sum+max", "sum_with_prior", "sum_with_prior_sg", "gen_sum"]
NUM_RUNS, NUM_FRAMES = 3, 6

# An FSA of a user: cyclic, weighted, with parallel arcs and two final states.
USER_FSA = "0 0 2 -0.5\n0 1 0 0.25\n0 1 0 1.5\n1 0 1 -2\n1 2 1 0.75\n2 2 2\n1 -1\n2 0.5\n"
USER_ARCS = [
    *((0, 0, 2, -0.5), (0, 1, 0, 0.25), (0, 1, 0, 1.5), (1, 0, 1, -2.0)),
    *((1, 2, 1, 0.75), (2, 2, 2, 0.0), (1, 3, -1, -1.0), (2, 3, -1, 0.5)),
]

# The options of each target, and its paths.
TARGETS = {
    **{name: dict(topology=name) for name in STANDARD_PATTERNS},
    **{f"{name} {labels}": dict(topology=name, target=labels) for name, labels in OTHER_PATTERNS},
}
PATHS = {
    name: unweighted(sequences(pattern, NUM_FRAMES))
    for name, pattern in zip(
        TARGETS, [*STANDARD_PATTERNS.values(), *OTHER_PATTERNS.values()], strict=True
    )
}
PATHS["user"] = walk(USER_ARCS, NUM_FRAMES)


@pytest.fixture(params=PATHS)
def target(request):
    return request.param


@pytest.fixture
def options(target, tmp_path):
    """Options of a target, without model and loss."""
    if target != "user":
        return dict(TARGETS[target], frames=NUM_FRAMES, seeds=f"0:{NUM_RUNS}")
    path = tmp_path / "user.txt"
    path.write_text(USER_FSA)
    return dict(fsa=path, frames=NUM_FRAMES, seeds=f"0:{NUM_RUNS}")


def random_parameters(model, num_labels):
    generator = torch.Generator().manual_seed(8)
    shapes = {"mem": (NUM_RUNS, NUM_FRAMES, num_labels), "bias": (NUM_RUNS, num_labels)}
    return {
        name: 1.5 * torch.randn(shapes[name], generator=generator, dtype=torch.float64)
        for name in model.split("+")
    }


def logits_of(parameters):
    """(R, T, V)."""
    logits = torch.zeros(NUM_RUNS, NUM_FRAMES, 1, dtype=torch.float64)
    if "mem" in parameters:
        logits = logits + parameters["mem"]
    if "bias" in parameters:
        logits = logits + parameters["bias"].unsqueeze(1)
    return logits


def log_average(logits):
    """The log of the average posterior, (R, 1, V)."""
    return logits.softmax(-1).mean(1, keepdim=True).log()


def enumerated(loss, logits, paths):
    """(R,)."""
    scores = logits if loss == "gen_sum" else logits.log_softmax(-1)
    if loss == "sum_with_prior":
        scores = scores - log_average(logits)
    if loss == "sum_with_prior_sg":
        scores = scores - log_average(logits.detach())
    kinds = {"max": [True], "sum+max": [False, True]}.get(loss, [False])
    totals = [enumeration.total(run, paths, best) for best in kinds for run in scores]
    return -torch.stack(totals).unflatten(0, (len(kinds), NUM_RUNS)).mean(0)


def composed(loss, parameters, targets):
    """(R,), from the graphs of the model, of the prior and of the targets."""
    num_labels = next(iter(parameters.values())).shape[-1]
    if "mem" in parameters:
        graphs = [memory_graph(parameters["mem"])]
    else:
        graphs = [clock(NUM_RUNS, NUM_FRAMES, num_labels)]
    if "bias" in parameters:
        graphs.append(bias_graph(parameters["bias"]))
    normalisation = 0 if loss == "gen_sum" else total(compose(*graphs))
    logits = logits_of(parameters)
    if loss == "sum_with_prior":
        graphs.append(prior_graph(log_average(logits).squeeze(1)))
    if loss == "sum_with_prior_sg":
        graphs.append(prior_graph(log_average(logits.detach()).squeeze(1)))
    paths = compose(*graphs, targets)
    kinds = {"max": [False], "sum+max": [True, False]}.get(loss, [True])
    return normalisation - torch.stack([total(paths, kind) for kind in kinds]).mean(0)


@pytest.mark.parametrize("model", ["mem", "bias", "mem+bias"])
@pytest.mark.parametrize("loss", LOSSES)
def test_dense_is_composed_is_enumeration(loss, model, target, options):
    options = Options(model=model, loss=loss, **options)
    parameters = random_parameters(model, options.num_labels)
    dense, dense_gradients = loss_and_gradient(options, parameters)

    leaves = {name: values.clone().requires_grad_() for name, values in parameters.items()}
    expected = enumerated(loss, logits_of(leaves), PATHS[target])
    expected_gradients = torch.autograd.grad(expected.sum(), [*leaves.values()])
    targets = stack([options.graph] * NUM_RUNS)
    graph = composed(loss, leaves, targets)
    graph_gradients = torch.autograd.grad(graph.sum(), [*leaves.values()])

    torch.testing.assert_close(dense, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(graph, expected, rtol=0, atol=1e-5)
    for i, name in enumerate(leaves):
        torch.testing.assert_close(dense_gradients[name], expected_gradients[i], rtol=0, atol=1e-5)
        torch.testing.assert_close(graph_gradients[i], expected_gradients[i], rtol=0, atol=1e-5)


def test_gradient_with_stopped_prior_is_posterior_minus_soft_alignment():
    options = Options(topology="2label", frames=NUM_FRAMES, loss="sum_with_prior_sg", seeds="0:3")
    parameters = random_parameters("mem", 3)
    losses, gradients = loss_and_gradient(options, parameters)
    with_gradient = loss_and_gradient(
        Options(topology="2label", frames=NUM_FRAMES, loss="sum_with_prior", seeds="0:3"),
        parameters,
    )
    torch.testing.assert_close(losses, with_gradient[0])
    for run, logits in enumerate(parameters["mem"]):
        p = logits.softmax(-1)
        scores = logits.log_softmax(-1) - p.mean(0).log()
        weights = torch.stack(
            [sum(scores[t, s] for t, s in enumerate(path)) for path, _ in PATHS["2label"]]
        ).softmax(0)  # of each path, given the target
        gamma = torch.zeros_like(p)
        for weight, (path, _) in zip(weights, PATHS["2label"], strict=True):
            gamma[torch.arange(NUM_FRAMES), list(path)] += weight
        torch.testing.assert_close(gradients["mem"][run], p - gamma, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 0.3])
@pytest.mark.parametrize("loss", ["sum_with_prior", "sum_with_prior_sg"])
def test_prior_scale_is_the_exponent_of_the_prior(loss, scale):
    parameters = random_parameters("mem+bias", 3)
    options = Options(
        model="mem+bias",
        topology="2label",
        frames=NUM_FRAMES,
        seeds="0:3",
        loss=loss,
        prior_scale=scale,
    )
    losses, gradients = loss_and_gradient(options, parameters)
    leaves = {name: values.clone().requires_grad_() for name, values in parameters.items()}
    logits = logits_of(leaves)
    prior = log_average(logits if loss == "sum_with_prior" else logits.detach())
    scores = logits.log_softmax(-1) - scale * prior
    expected = -torch.stack([enumeration.total(run, PATHS["2label"]) for run in scores])
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-5)
    for name, gradient in gradients.items():
        (wanted,) = torch.autograd.grad(expected.sum(), leaves[name], retain_graph=True)
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-5)


def test_of_equal_alignments_viterbi_training_sees_one_and_always_the_same():
    options = Options(topology="2label", frames=NUM_FRAMES, loss="max", seeds="0:3")
    zeros = {"mem": torch.zeros(NUM_RUNS, NUM_FRAMES, 3)}
    losses, gradients = loss_and_gradient(options, zeros)
    torch.testing.assert_close(
        losses, torch.full_like(losses, NUM_FRAMES).mul(torch.tensor(3).log())
    )
    gamma = 1 / 3 - gradients["mem"]
    alignment = gamma.argmax(-1)
    one_hot = torch.nn.functional.one_hot(alignment, 3)
    torch.testing.assert_close(gamma, one_hot.double(), rtol=0, atol=1e-6)
    for run in alignment.tolist():
        assert (tuple(run), 0.0) in PATHS["2label"]
        assert run == alignment[0].tolist()
    for _ in range(3):
        assert loss_and_gradient(options, zeros)[1]["mem"].equal(gradients["mem"])


@pytest.mark.parametrize("target", ["ctc 0 0 1", "3label_sil", "user"], indirect=True)
def test_first_loss_and_alignment_of_training_are_those_of_enumeration(target, options):
    for loss in LOSSES[:-1]:  # in gen_sum the loss depends on more than posteriors
        drawn = Options(model="mem", loss=loss, init="normal", steps=1, **options)
        for run in train(drawn):
            posteriors = run.last.posteriors
            logits = posteriors.log().requires_grad_()
            expected = enumerated(loss, logits.expand(NUM_RUNS, -1, -1), PATHS[target])[0]
            (gradient,) = torch.autograd.grad(expected, logits)
            assert run.loss == [pytest.approx(float(expected), abs=1e-5)]
            if loss != "sum_with_prior":  # there the gradient has a term of the prior too
                gamma = posteriors - gradient
                torch.testing.assert_close(run.last.soft_alignment, gamma, rtol=0, atol=1e-5)
