import itertools
import math

import pytest
import torch

from plateau.alignment import transducer
from plateau.alignment.transducer import (
    PADDING,
    align,
    alignment_loss,
    best_path,
    blank_and_label,
    full_sum,
    lattice_log_probs,
)
from plateau.graphs.labels import pad
from plateau.models.encoder import EncoderOptions
from plateau.models.joiner import JoinerOptions
from plateau.models.predictor import PredictorOptions
from plateau.models.transducer import TransducerModel

TOPOLOGIES = ["rnnt", "rna", "constrained"]
V = 4
# Frames and targets; in the last two a label must take each frame, or there is no label.
TARGETS = [[1, 2], [3], [2, 2, 1], [1, 3, 3], []]
LENGTHS = [4, 5, 4, 3, 3]


def enumerate_paths(num_frames, num_labels, topology):
    """Every path by the topology's definition: frames of the labels, and its arcs.

    An arc is (t, u, whether it is a label), its score that of this label or of blank at (t, u).
    """
    pick = itertools.combinations_with_replacement if topology == "rnnt" else itertools.combinations
    for frames in pick(range(num_frames), num_labels):
        arcs = []
        for t in range(num_frames):
            labels = [u for u, frame in enumerate(frames) if frame == t]
            arcs += [(t, u, True) for u in labels]
            if topology != "rna" or not labels:
                arcs.append((t, sum(frame <= t for frame in frames), False))
        yield frames, arcs


def path_score(arcs, log_probs, target):
    return sum(log_probs[t, u, target[u] if is_label else 0] for t, u, is_label in arcs)


def every_path(log_probs, target, topology):
    """[(score, frames)] of log_probs (T, U + 1, V)."""
    paths = enumerate_paths(len(log_probs), len(target), topology)
    return [(path_score(arcs, log_probs, target), frames) for frames, arcs in paths]


def batch(seed=0, dtype=torch.float64, targets=TARGETS, lengths=LENGTHS):
    """Log-probabilities (N, T, U + 1, V), targets, lengths and numbers of labels."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(targets), max(lengths), max(map(len, targets)) + 1, V
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    target_lengths = torch.tensor([len(target) for target in targets])
    return logits.log_softmax(-1).to(dtype), pad(targets), torch.tensor(lengths), target_lengths


def own(log_probs, n):
    """What belongs to utterance n: (T_n, U_n + 1, V)."""
    return log_probs[n, : LENGTHS[n], : len(TARGETS[n]) + 1]


def test_number_of_paths():
    for topology, number in [("rnnt", math.comb(4 + 2, 3)), ("rna", math.comb(4, 3))]:
        assert len(list(enumerate_paths(4, 3, topology))) == number


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_full_sum_and_its_gradients_are_those_of_all_paths(topology):
    log_probs, targets, lengths, target_lengths = batch()
    log_probs.requires_grad_()
    losses = full_sum(*blank_and_label(log_probs, targets), lengths, target_lengths, topology)
    truth = torch.stack(
        [
            -torch.stack([s for s, _ in every_path(own(log_probs, n), target, topology)]).logsumexp(
                0
            )
            for n, target in enumerate(TARGETS)
        ]
    )
    torch.testing.assert_close(losses, truth, rtol=1e-12, atol=1e-12)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5])
    (gradient,) = torch.autograd.grad((losses * weights).sum(), log_probs)
    (true_gradient,) = torch.autograd.grad((truth * weights).sum(), log_probs)
    torch.testing.assert_close(gradient, true_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("seed", range(4))
def test_best_path_is_the_best_of_all_paths(topology, seed):
    log_probs, targets, lengths, target_lengths = batch(seed)
    frames, scores = best_path(
        *blank_and_label(log_probs, targets), lengths, target_lengths, topology
    )
    assert frames.dtype == torch.int64
    for n, target in enumerate(TARGETS):
        *others, (score, path) = sorted(every_path(own(log_probs, n), target, topology))
        assert not others or score > others[-1][0] + 1e-9, "the truth must be unique"
        assert frames[n].tolist() == [*path, *[PADDING] * (targets.shape[1] - len(path))]
        assert scores[n].item() == pytest.approx(float(score), abs=1e-12)


def test_of_equal_paths_the_early_one():
    zeros = torch.zeros(1, 3, 3), torch.zeros(1, 3, 2)
    for topology, early in [("rnnt", [0, 0]), ("rna", [0, 1]), ("constrained", [0, 1])]:
        frames, _ = best_path(*zeros, torch.tensor([3]), torch.tensor([2]), topology)
        assert frames.tolist() == [early]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_full_sum_is_that_of_k2(topology):
    k2_loss = pytest.importorskip("plateau.graphs.transducer", exc_type=ImportError).full_loss
    generator = torch.Generator().manual_seed(1)
    targets = [torch.randint(1, 7, (u,), generator=generator).tolist() for u in (9, 4, 1)]
    lengths = torch.tensor([20, 31, 9])
    log_probs = torch.randn(3, 31, 10, 7, generator=generator).log_softmax(-1).requires_grad_()
    target_lengths = torch.tensor([9, 4, 1])
    lattice = blank_and_label(log_probs, pad(targets))
    losses = full_sum(*lattice, lengths, target_lengths, topology)
    theirs = k2_loss(log_probs, targets, lengths, topology)
    torch.testing.assert_close(losses, theirs, rtol=1e-5, atol=1e-4)
    # k2's own gradient is by the scores before its log_softmax: take ours there, too.
    gradients = [torch.autograd.grad(x.sum(), log_probs)[0] for x in (losses, theirs)]
    ours = gradients[0] - log_probs.exp() * gradients[0].sum(-1, keepdim=True)
    torch.testing.assert_close(ours.detach(), gradients[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_padding_and_company_change_nothing(topology):
    log_probs, targets, lengths, target_lengths = batch()
    for n, target in enumerate(TARGETS):
        log_probs[n, LENGTHS[n] :] = float("nan")
        log_probs[n, :, len(target) + 1 :] = float("nan")
    log_probs.requires_grad_()
    arguments = lengths, target_lengths, topology
    losses = full_sum(*blank_and_label(log_probs, targets), *arguments)
    (gradients,) = torch.autograd.grad(losses.sum(), log_probs)
    frames, scores = best_path(*blank_and_label(log_probs, targets), *arguments)
    for n, target in enumerate(TARGETS):
        alone = own(log_probs, n).unsqueeze(0)
        lattice = blank_and_label(alone, pad([target]))
        mine = lengths[n : n + 1], target_lengths[n : n + 1], topology
        loss = full_sum(*lattice, *mine)
        assert torch.equal(loss, losses[n : n + 1])
        (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
        assert torch.equal(gradient[n], gradients[n])
        frames_alone, score = best_path(*lattice, *mine)
        assert torch.equal(frames_alone[0], frames[n, : len(target)])
        assert torch.equal(score, scores[n : n + 1])


@pytest.mark.parametrize("topology", ["rna", "constrained"])
def test_an_impossible_utterance_has_no_path_and_does_no_harm(topology):
    log_probs, targets, lengths, target_lengths = batch()
    lengths[2] = 2  # for 3 labels
    log_probs.requires_grad_()
    lattice = blank_and_label(log_probs, targets)
    losses = full_sum(*lattice, lengths, target_lengths, topology)
    assert torch.isinf(losses).tolist() == [False, False, True, False, False]
    assert losses[2] > 0
    (gradient,) = torch.autograd.grad(losses.sum(), log_probs)
    assert gradient.isfinite().all() and not gradient[2].any() and gradient[3].any()
    frames, scores = best_path(*lattice, lengths, target_lengths, topology)
    assert scores[2] == -math.inf and frames[2].tolist() == [PADDING] * 3
    assert scores[[0, 1, 3, 4]].isfinite().all()
    assert full_sum(*lattice, lengths, target_lengths, "rnnt").isfinite().all()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_forbidden_label_has_no_gradient_and_no_path(topology):
    log_probs, targets, lengths, target_lengths = batch()
    allowed = log_probs.clone()
    allowed[1, :, :, 3] = -math.inf  # utterance 1 wants it
    allowed[0, 0, :, 1] = -math.inf  # utterance 0 can take it later
    allowed[2] = -math.inf
    allowed.requires_grad_()
    lattice = blank_and_label(allowed, targets)
    losses = full_sum(*lattice, lengths, target_lengths, topology)
    assert torch.isinf(losses).tolist() == [False, True, True, False, False]
    assert torch.autograd.grad(losses[0], allowed)[0].isfinite().all()
    frames, scores = best_path(*lattice, lengths, target_lengths, topology)
    assert torch.equal(scores == -math.inf, torch.isinf(losses)) and frames[0, 0] > 0
    assert (frames[1:3] == PADDING).all()


def test_half_precision_is_summed_in_single():
    log_probs, targets, lengths, target_lengths = batch()
    halves = blank_and_label(log_probs.bfloat16(), targets)
    losses = full_sum(*halves, lengths, target_lengths)
    assert losses.dtype == torch.float32
    exact = full_sum(*(x.double() for x in halves), lengths, target_lengths)
    torch.testing.assert_close(losses, exact.float(), rtol=1e-6, atol=1e-5)


# With a model


def make_model(kind="additive"):
    torch.manual_seed(0)
    encoder = EncoderOptions()  # its layers do not matter, only that padding does not
    model = TransducerModel(
        8,
        V,
        encoder,
        PredictorOptions(dim=6, dropout=0.0),
        JoinerOptions(kind=kind, dim=5),
    )
    for parameter in model.joiner.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def inputs(model):
    """Features, their lengths, and targets."""
    factor = model.encoder.subsampling_factor
    features = torch.randn(5, 5 * factor, 8, generator=torch.Generator().manual_seed(3))
    return features, torch.tensor(LENGTHS) * factor, pad(TARGETS)


@pytest.fixture(scope="module")
def output(model, inputs):
    return model(*inputs)


def full_joiner(model, output):
    return model.joiner(output.encoder.unsqueeze(2), output.predictor.unsqueeze(1))


def test_lattice_in_pieces_is_the_lattice_at_once(model, inputs, monkeypatch):
    results = {}
    for scores_at_once in (2**24, 2 * 5 * 4 * V):  # all, and two frames
        monkeypatch.setattr(transducer, "_CHUNK_SCORES", scores_at_once)
        sizes = []
        hook = model.joiner.register_forward_hook(lambda *a, s=sizes: s.append(a[2].shape[1]))
        output = model(*inputs)
        lattice = lattice_log_probs(model, output, inputs[2])
        forward = list(sizes)
        parameters = list(model.parameters())
        losses = full_sum(*lattice, output.lengths, torch.tensor([2, 1, 3, 3, 0]))
        gradients = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
        hook.remove()
        results[scores_at_once] = *lattice, *(g for g in gradients if g is not None)
        with torch.no_grad():
            for with_gradients, without in zip(
                lattice, lattice_log_probs(model, output, inputs[2]), strict=True
            ):
                torch.testing.assert_close(with_gradients, without)
    assert forward == [2, 2, 1] and sorted(sizes[3:]) == [1, 2, 2]  # the backward pass once more
    at_once, in_pieces = results.values()
    assert len(at_once) > 10
    for a, b in zip(at_once, in_pieces, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    whole = full_joiner(model, output)
    torch.testing.assert_close(at_once[0], whole[..., 0])
    torch.testing.assert_close(at_once[1][:, :, 1], whole[range(5), :, 1, inputs[2][:, 1]])


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_align_finds_the_best_of_all_paths(model, inputs, output, topology):
    features, lengths, _ = inputs
    alignments = align(model, features, lengths, TARGETS, topology)
    log_probs = full_joiner(model, output).detach().double()
    for n, (target, alignment) in enumerate(zip(TARGETS, alignments, strict=True)):
        score, frames = max(every_path(own(log_probs, n), target, topology))
        assert alignment.frames == frames
        assert alignment.score == pytest.approx(float(score), abs=1e-4)
        assert alignment.num_frames == LENGTHS[n]


def test_align_says_where_no_path_fits(model, inputs):
    features, lengths, _ = inputs
    long = [[1] * 6, *TARGETS[1:]]
    first, *others = align(model, features, lengths, long, "rna")
    assert first.frames == () and first.score == -math.inf
    assert others == align(model, features, lengths, TARGETS, "rna")[1:]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_viterbi_loss_is_minus_the_score_of_the_path(model, inputs, output, topology):
    """With its gradient, for every path, not the best only."""
    log_probs = full_joiner(model, output)
    paths = [list(enumerate_paths(LENGTHS[n], len(t), topology)) for n, t in enumerate(TARGETS)]
    for k in range(4):
        chosen = [every[(7 * k) % len(every)] for every in paths]
        frames = pad([frames for frames, _ in chosen], PADDING)
        losses = alignment_loss(model.joiner, output, inputs[2], frames, topology)
        truth = torch.stack(
            [
                -path_score(arcs, log_probs[n], target)
                for n, (target, (_, arcs)) in enumerate(zip(TARGETS, chosen, strict=True))
            ]
        )
        torch.testing.assert_close(losses, truth, rtol=1e-5, atol=1e-5)
        weight = model.joiner.output.weight
        ours, true = (
            torch.autograd.grad(x.sum(), [weight, output.encoder], retain_graph=True)
            for x in (losses, truth)
        )
        for a, b in zip(ours, true, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_viterbi_loss_of_the_best_path_is_minus_its_score(model, inputs, output):
    for topology in TOPOLOGIES:
        alignments = align(model, inputs[0], inputs[1], TARGETS, topology)
        frames = pad([alignment.frames for alignment in alignments], PADDING)
        losses = alignment_loss(model.joiner, output, inputs[2], frames, topology)
        scores = torch.tensor([alignment.score for alignment in alignments])
        torch.testing.assert_close(losses, -scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["additive", "separate_blank"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_focal_factor_and_label_smoothing_by_their_definitions(kind, topology, inputs):
    model = make_model(kind)
    output = model(*inputs)
    log_probs = full_joiner(model, output)
    gamma, epsilon = 1.5, 0.2
    chosen = [
        next(iter(enumerate_paths(LENGTHS[n], len(t), topology))) for n, t in enumerate(TARGETS)
    ]
    frames = pad([frames for frames, _ in chosen], PADDING)
    losses = alignment_loss(model.joiner, output, inputs[2], frames, topology, gamma, epsilon)
    for n, (target, (_, arcs)) in enumerate(zip(TARGETS, chosen, strict=True)):
        total = 0.0
        for t, u, is_label in arcs:
            wanted = torch.zeros(V)  # the distribution to learn
            wanted[target[u] if is_label else 0] = 1
            if is_label:
                wanted = (1 - epsilon) * wanted
                wanted[1:] += epsilon / (V - 1)
            p = float(log_probs[n, t, u, target[u] if is_label else 0].exp())
            total += (1 - p) ** gamma * -float(wanted @ log_probs[n, t, u])
        assert losses[n].item() == pytest.approx(total, rel=1e-4)


def test_focal_gradient_is_finite_for_certain_steps(inputs):
    model = make_model()
    with torch.no_grad():  # blank everywhere, with probability 1
        model.joiner.output.weight.zero_()
        model.joiner.output.bias.copy_(torch.tensor([200.0, 0, 0, 0]))
    output = model(*inputs)
    frames = pad([range(len(target)) for target in TARGETS], PADDING)
    for focal in (0.5, 2.0):
        losses = alignment_loss(model.joiner, output, inputs[2], frames, "rna", focal)
        gradients = torch.autograd.grad(losses.sum(), model.joiner.output.bias)[0]
        assert gradients.isfinite().all() and gradients[0] > 0


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_chunks_are_pieces_whose_mean_is_the_whole(model, topology, monkeypatch):
    factor = model.encoder.subsampling_factor
    features = torch.randn(2, 7 * factor, 8, generator=torch.Generator().manual_seed(5))
    targets, frames = pad([[1, 2, 3], [2]]), pad([[1, 3, 6], [0]], PADDING)
    output = model(features, torch.tensor([7, 2]) * factor, targets)
    log_probs = full_joiner(model, output)
    whole = alignment_loss(model.joiner, output, targets, frames, topology)

    # Pieces of at most 3 of 7 frames: 2, 2 and 3; of 2 frames: 1.
    arcs = next(arcs for f, arcs in enumerate_paths(7, 3, topology) if f == (1, 3, 6))
    expected = {
        round(
            -3 * float(path_score([a for a in arcs if a[0] in piece], log_probs[0], [1, 2, 3])), 2
        )
        for piece in (range(0, 2), range(2, 4), range(4, 7))
    }
    assert len(expected) == 3
    widths = []
    hook = model.joiner.register_forward_hook(lambda *a: widths.append(a[2].shape[1]))
    torch.manual_seed(0)
    losses = [
        alignment_loss(model.joiner, output, targets, frames, topology, chunk=3) for _ in range(30)
    ]
    hook.remove()
    assert max(widths) <= 3 + (topology != "rna") * 2  # frames, and labels within them
    values = {round(loss[0].item(), 2): loss[0].item() for loss in losses}
    assert values.keys() == expected
    assert sum(values.values()) / 3 == pytest.approx(whole[0].item(), rel=1e-4)
    assert all(loss[1].item() == pytest.approx(whole[1].item(), rel=1e-5) for loss in losses)
    long = alignment_loss(model.joiner, output, targets, frames, topology, chunk=7)
    torch.testing.assert_close(long, whole)


@pytest.mark.parametrize(
    ("frames", "topology"),
    [
        ([[0, 4], [0]], "rnnt"),  # beyond the end
        ([[2, 1], [0]], "rnnt"),  # backwards
        ([[1, 1], [0]], "rna"),  # two in a frame
        ([[1, 1], [0]], "constrained"),
        ([[1], [0]], "rna"),  # too few
        ([[1, 2], [0, 1]], "rna"),  # too many
    ],
)
def test_frames_that_are_no_path_are_refused(model, frames, topology):
    factor = model.encoder.subsampling_factor
    targets = pad([[1, 2], [3]])
    output = model(torch.zeros(2, 4 * factor, 8), torch.tensor([4, 4]) * factor, targets)
    frames = torch.nn.functional.pad(pad(frames, PADDING), (0, 2), value=PADDING)[:, :2]
    with pytest.raises(ValueError, match=f"no path of {topology}"):
        alignment_loss(model.joiner, output, targets, frames, topology)
