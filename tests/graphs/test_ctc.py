import itertools

import pytest
import torch
from torch.nn import functional

k2 = pytest.importorskip("k2")

from plateau.graphs.ctc import ctc_graphs, ctc_loss, ctc_topology  # noqa: E402
from plateau.graphs.dense import best_paths, full_sum_loss  # noqa: E402
from plateau.graphs.graph import stack  # noqa: E402
from plateau.graphs.k2_graphs import to_k2  # noqa: E402
from tests.graphs.enumeration import (  # noqa: E402
    LENGTHS,
    TARGETS,
    collapse,
    ctc_paths,
    random_scores,
    total,
)


def torch_loss(log_probs, lengths, targets):
    return functional.ctc_loss(
        log_probs.transpose(0, 1),
        torch.tensor([label for target in targets for label in target]),
        lengths,
        torch.tensor([len(target) for target in targets]),
        reduction="none",
    )


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradient_are_those_of_enumeration(dtype, normalised):
    log_probs = random_scores(dtype=dtype, normalised=normalised).requires_grad_()
    weights = torch.arange(1.0, len(TARGETS) + 1, dtype=dtype)  # tells utterances apart
    loss = ctc_loss(log_probs, LENGTHS, TARGETS)
    assert loss.shape == (len(TARGETS),) and loss.dtype == dtype
    (gradient,) = torch.autograd.grad(loss @ weights, log_probs)

    double = log_probs.detach().double().requires_grad_()
    paths = [ctc_paths(target, int(n)) for target, n in zip(TARGETS, LENGTHS, strict=True)]
    expected = -torch.stack([total(double[n], paths[n]) for n in range(len(TARGETS))])
    (expected_gradient,) = torch.autograd.grad(expected @ weights.double(), double)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-5)
    for n, length in enumerate(LENGTHS):
        assert gradient[n, length:].eq(0).all()


def begin(path):
    """Frames at which tokens begin."""
    return [t for t, label in enumerate(path) if label and (t == 0 or path[t - 1] != label)]


def test_a_delay_penalty_rewards_early_beginnings():
    log_probs = random_scores().requires_grad_()
    loss = ctc_loss(log_probs, LENGTHS, TARGETS, delay_penalty=0.3)
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)

    def enumerated(n, length):
        paths = [path for path, _ in ctc_paths(TARGETS[n], length)]
        gains = [sum(0.3 * ((length - 1) / 2 - t) for t in begin(path)) for path in paths]
        return -total(log_probs[n], list(zip(paths, gains, strict=True)))

    expected = torch.stack([enumerated(n, length) for n, length in enumerate(LENGTHS.tolist())])
    (expected_gradient,) = torch.autograd.grad(expected.sum(), log_probs)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("n", "t", "target_length", "scale"), [(8, 80, 20, 1.0), (8, 80, 20, 5.0), (1, 800, 150, 1.0)]
)
def test_loss_and_gradient_are_those_of_torch_at_real_size(n, t, target_length, scale):
    # In the long, flat case too much pruning would tell.
    generator = torch.Generator().manual_seed(1)
    v = 50
    logits = scale * torch.randn(n, t, v, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    lengths = t - 2 * torch.randperm(n, generator=generator)
    targets = torch.randint(1, v, (n, target_length), generator=generator).tolist()
    targets[1:3] = [[], [7] * target_length][: n - 1]
    loss = ctc_loss(logits.log_softmax(-1), lengths, targets)
    expected = torch_loss(logits.log_softmax(-1), lengths, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=2e-6)


def test_a_forbidden_label():
    log_probs = random_scores()
    log_probs[:, :, 3] = -torch.inf
    log_probs.requires_grad_()
    loss = ctc_loss(log_probs, LENGTHS, TARGETS)
    assert loss[4] == torch.inf  # needs label 3
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
    assert gradient.isfinite().all()
    expected = torch_loss(log_probs.detach(), LENGTHS, TARGETS)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


def test_total_over_the_topology_is_the_total_over_all_label_sequences():
    # Every frame labelling is one path of the topology, and normalised scores sum to 1.
    graphs = stack([ctc_topology(4)] * len(TARGETS))
    loss = full_sum_loss(random_scores(), LENGTHS, graphs)
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-6)


def test_topology_outputs_are_the_collapsed_labels():
    topology = k2.arc_sort(to_k2(ctc_topology(4))[0])
    for path in itertools.product(range(4), repeat=4):
        read = k2.intersect(topology, k2.arc_sort(k2.linear_fsa(list(path))), False)
        outputs = k2.connect(read).aux_labels.tolist()  # one path: its arcs are in order
        assert [label for label in outputs if label > 0] == collapse(path)


def test_best_path_through_the_topology_is_the_likeliest_label_of_each_frame():
    log_probs = random_scores(seed=4)
    paths = best_paths(log_probs, LENGTHS, ctc_topology(4))  # one graph that all share
    likeliest = log_probs.argmax(-1)
    assert paths == [likeliest[n, :length].tolist() for n, length in enumerate(LENGTHS)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_agrees():
    log_probs = random_scores()
    on_gpu = log_probs.cuda()
    torch.testing.assert_close(
        ctc_loss(on_gpu, LENGTHS, TARGETS).cpu(), ctc_loss(log_probs, LENGTHS, TARGETS)
    )
    graphs = ctc_graphs(TARGETS)
    assert best_paths(on_gpu, LENGTHS, graphs) == best_paths(log_probs, LENGTHS, graphs)
