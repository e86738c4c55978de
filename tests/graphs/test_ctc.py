import itertools
import math

import pytest
import torch
from torch.nn import functional

k2 = pytest.importorskip("k2")

from plateau.graphs.ctc import ctc_graphs, ctc_loss, ctc_topology  # noqa: E402
from plateau.graphs.dense import best_paths, dense_fsa_vec, full_sum_loss  # noqa: E402


def collapse(path):
    return [label for label, _ in itertools.groupby(path) if label != 0]


def alignments(target, length, vocab_size):
    """All frame labels of ``length`` that mean ``target``, found by trying every sequence."""
    sequences = itertools.product(range(vocab_size), repeat=length)
    return [path for path in sequences if collapse(path) == list(target)]


def path_score(log_probs, path):
    return sum(log_probs[t, label] for t, label in enumerate(path))


def enumerated_loss(log_probs, length, target):
    paths = alignments(target, length, log_probs.shape[1])
    return -torch.logsumexp(torch.stack([path_score(log_probs, path) for path in paths]), 0)


def torch_loss(log_probs, lengths, targets):
    return functional.ctc_loss(
        log_probs.transpose(0, 1),
        torch.tensor([label for target in targets for label in target]),
        lengths,
        torch.tensor([len(target) for target in targets]),
        reduction="none",
    )


TARGETS = [[1, 2], [], [2, 2], [1], [3, 1, 3], [1, 1, 1]]
LENGTHS = torch.tensor([3, 2, 4, 1, 5, 5])  # the last just fits: 3 labels and 2 blanks


def scores(num_frames=5, vocab_size=4, seed=0, normalised=True, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    values = 2 * torch.randn(len(TARGETS), num_frames, vocab_size, generator=generator)
    values = values.to(dtype)
    return values.log_softmax(-1) if normalised else values


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradient_are_those_of_enumeration(dtype, normalised):
    log_probs = scores(dtype=dtype, normalised=normalised).requires_grad_()
    weights = torch.arange(1.0, len(TARGETS) + 1, dtype=dtype)  # tells utterances apart
    loss = ctc_loss(log_probs, LENGTHS, TARGETS)
    assert loss.shape == (len(TARGETS),) and loss.dtype == dtype
    (gradient,) = torch.autograd.grad(loss @ weights, log_probs)

    double = log_probs.detach().double().requires_grad_()
    expected = torch.stack(
        [enumerated_loss(double[n], int(LENGTHS[n]), TARGETS[n]) for n in range(len(TARGETS))]
    )
    (expected_gradient,) = torch.autograd.grad(expected @ weights.double(), double)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-5)
    for n, length in enumerate(LENGTHS):
        assert gradient[n, length:].eq(0).all()


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


def test_gradient_is_that_of_finite_differences():
    log_probs = scores(normalised=False).requires_grad_()
    (gradient,) = torch.autograd.grad(ctc_loss(log_probs, LENGTHS, TARGETS).sum(), log_probs)
    step = 2.0**-6  # scores are float32 inside: a coarse step, exact in binary
    generator = torch.Generator().manual_seed(2)
    for index in torch.randint(0, log_probs.numel(), (30,), generator=generator).tolist():
        values = []
        for sign in (1, -1):
            moved = log_probs.detach().clone()
            moved.view(-1)[index] += sign * step
            values.append(ctc_loss(moved, LENGTHS, TARGETS).sum())
        difference = (values[0] - values[1]) / (2 * step)
        assert float(gradient.view(-1)[index]) == pytest.approx(float(difference), abs=2e-4)


def test_padding_and_company_change_nothing():
    log_probs = scores()
    together = ctc_loss(log_probs, LENGTHS, TARGETS)
    padded = torch.cat([log_probs, torch.full((len(TARGETS), 3, 4), 5.0)], dim=1)
    torch.testing.assert_close(ctc_loss(padded, LENGTHS, TARGETS), together, rtol=0, atol=0)
    for n, target in enumerate(TARGETS):
        alone = ctc_loss(log_probs[n : n + 1, : LENGTHS[n]], LENGTHS[n : n + 1], [target])
        torch.testing.assert_close(alone, together[n : n + 1])


@pytest.mark.parametrize("unfit", [[1, 1], [1, 2, 3], [1, 2, 1, 2, 1]])
def test_an_utterance_without_enough_frames_has_infinite_loss_and_harms_no_other(unfit):
    lengths = torch.tensor([4, 2, 5])
    targets = [[1, 2], unfit, [3, 3]]
    log_probs = scores()[:3].requires_grad_()
    loss = ctc_loss(log_probs, lengths, targets)
    assert loss[1] == math.inf
    gradients = [
        torch.autograd.grad(total, log_probs, retain_graph=True)[0]
        for total in (loss.sum(), loss[[0, 2]].sum())
    ]
    for gradient in gradients:
        assert gradient[1].eq(0).all()
    others = torch.tensor([0, 2])
    alone = log_probs.detach()[others].requires_grad_()
    loss_alone = ctc_loss(alone, lengths[others], [targets[0], targets[2]])
    (expected,) = torch.autograd.grad(loss_alone.sum(), alone)
    torch.testing.assert_close(loss[others], loss_alone)
    torch.testing.assert_close(gradients[0][others], expected)
    torch.testing.assert_close(gradients[1][others], expected)


def test_a_batch_in_which_nothing_fits():
    log_probs = scores()[:2].requires_grad_()
    loss = ctc_loss(log_probs, torch.tensor([1, 2]), [[1, 2], [3, 3]])
    assert loss.tolist() == [math.inf, math.inf]
    loss.sum().backward()
    assert log_probs.grad.eq(0).all()


def test_a_forbidden_label():
    log_probs = scores()
    log_probs[:, :, 3] = -math.inf
    log_probs.requires_grad_()
    loss = ctc_loss(log_probs, LENGTHS, TARGETS)
    assert loss[4] == math.inf  # needs label 3
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
    assert gradient.isfinite().all()
    expected = torch_loss(log_probs.detach(), LENGTHS, TARGETS)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("lengths", [[3, 0], [6, 2], [-1, 2]])
def test_lengths_out_of_range(lengths):
    with pytest.raises(ValueError, match=r"1\.\.5"):
        ctc_loss(scores()[:2], torch.tensor(lengths), [[1], [2]])


def test_dense_order_is_by_length_and_leads_back():
    dense, order = dense_fsa_vec(scores(), LENGTHS)
    assert dense.duration.tolist() == sorted(LENGTHS.tolist(), reverse=True)
    assert dense.duration[order.argsort()].tolist() == LENGTHS.tolist()


def test_total_over_the_topology_is_the_total_over_all_label_sequences():
    # Every frame labelling is one path of the topology, and normalised scores sum to 1.
    graphs = k2.create_fsa_vec([ctc_topology(4)] * len(TARGETS))
    loss = full_sum_loss(scores(), LENGTHS, graphs)
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-6)


def test_topology_outputs_are_the_collapsed_labels():
    topology = ctc_topology(4)
    for path in itertools.product(range(4), repeat=4):
        read = k2.intersect(topology, k2.arc_sort(k2.linear_fsa(list(path))), False)
        outputs = k2.connect(read).aux_labels.tolist()  # one path: its arcs are in order
        assert [label for label in outputs if label > 0] == collapse(path)


def test_best_paths_are_those_of_enumeration():
    log_probs = scores(seed=3)
    paths = best_paths(log_probs, LENGTHS, ctc_graphs(TARGETS))
    for n, (path, target) in enumerate(zip(paths, TARGETS, strict=True)):
        candidates = alignments(target, int(LENGTHS[n]), 4)
        assert path == list(max(candidates, key=lambda p: path_score(log_probs[n], p)))


def test_best_path_through_a_shared_graph_is_the_likeliest_label_of_each_frame():
    log_probs = scores(seed=4)
    paths = best_paths(log_probs, LENGTHS, ctc_topology(4))
    likeliest = log_probs.argmax(-1)
    assert paths == [likeliest[n, :length].tolist() for n, length in enumerate(LENGTHS)]


def test_best_path_is_empty_where_none_fits():
    paths = best_paths(scores()[:3], torch.tensor([2, 3, 1]), ctc_graphs([[1, 1], [2], [1, 2]]))
    assert [len(path) for path in paths] == [0, 3, 0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_agrees():
    log_probs = scores()
    on_gpu = log_probs.cuda()
    torch.testing.assert_close(
        ctc_loss(on_gpu, LENGTHS, TARGETS).cpu(), ctc_loss(log_probs, LENGTHS, TARGETS)
    )
    graphs = ctc_graphs(TARGETS, "cuda")
    assert best_paths(on_gpu, LENGTHS, graphs) == best_paths(log_probs, LENGTHS, graphs.to("cpu"))
