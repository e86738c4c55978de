"""Transducer losses against all alignments of tiny problems, one by one, in double precision."""

import itertools

import k2
import pytest
import torch

from plateau.graphs.labels import pad
from plateau.graphs.transducer import (
    K2_TYPES,
    full_loss,
    pruned_loss,
    simple_loss,
)

V = 4
TOPOLOGIES = list(K2_TYPES)
# Different lengths, repeated labels, no labels, one frame, as many labels as frames.
TARGETS = [[1, 2], [3, 3, 1], [], [2], [1, 1, 1]]
LENGTHS = torch.tensor([5, 4, 3, 1, 3])
T, U = int(LENGTHS.max()), 3

every = pytest.mark.parametrize("topology", TOPOLOGIES)


def alignments(topology, num_frames, num_labels):
    """Each as the joiner's outputs that it takes: (t, u, number of the label or None for blank)."""
    choose = itertools.combinations
    if topology == "rnnt":  # any number of labels in a frame
        choose = itertools.combinations_with_replacement
    for emissions in choose(range(num_frames), num_labels):
        steps, u = [], 0
        for t in range(num_frames):
            for _ in range(emissions.count(t)):
                steps.append((t, u, u))
                u += 1
            if topology != "rna" or t not in emissions:
                steps.append((t, u, None))
        yield steps


def enumerated(scores, target, length, topology, delay_penalty=0.0, ranges=None):
    """-log of the sum over alignments of exp of scores (T, U + 1, V); within ranges (T, s)."""
    totals = []
    for steps in alignments(topology, length, len(target)):
        if ranges is not None and any(u not in ranges[t].tolist() for t, u, _ in steps):
            continue
        total = scores.new_zeros(())
        for t, u, label in steps:
            total = total + scores[t, u, 0 if label is None else target[label]]
            if label is not None:
                total = total + delay_penalty * ((length - 1) / 2 - t)
        totals.append(total)
    return -torch.stack(totals).logsumexp(0)


def enumerated_batch(scores, topology, delay_penalty=0.0, ranges=None, targets=TARGETS):
    """Losses (N,) of scores (N, T, U + 1, V)."""
    return torch.stack(
        [
            enumerated(
                scores[n],
                target,
                int(LENGTHS[n]),
                topology,
                delay_penalty,
                None if ranges is None else ranges[n],
            )
            for n, target in enumerate(targets)
        ]
    )


def test_number_of_alignments():
    """Binomials: of the frames that have the labels, with repetition in RNN-T."""
    for topology, count in {"rnnt": 20, "rna": 4, "constrained": 4}.items():
        assert len({tuple(steps) for steps in alignments(topology, 4, 3)}) == count


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5])  # so that gradients are not just of a sum


def check(losses, inputs, expected):
    """The losses and the gradients of weighted sums agree."""
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    assert losses.dtype == torch.float32
    ours = torch.autograd.grad((losses * WEIGHTS[: len(losses)]).sum(), inputs, retain_graph=True)
    theirs = torch.autograd.grad((expected * WEIGHTS[: len(expected)]).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        assert b.abs().max() > 0.1
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@every
@pytest.mark.parametrize("delay_penalty", [0.0, 0.3])
def test_full_loss_is_the_sum_over_alignments(topology, delay_penalty):
    logits = random(len(TARGETS), T, U + 1, V)
    log_probs = logits.log_softmax(-1)
    losses = full_loss(log_probs, TARGETS, LENGTHS, topology, delay_penalty)
    check(losses, [logits], enumerated_batch(log_probs, topology, delay_penalty))


def smoothed(am, lm, am_scale, lm_scale):
    """The formula in `simple_loss`'s docstring: (N, T, U + 1, V)."""
    am, lm = am.unsqueeze(2), lm.unsqueeze(1)
    unigram = lm.softmax(-1).mean(dim=(0, 1, 2)).log()
    return (
        (1 - am_scale - lm_scale) * (am + lm).log_softmax(-1)
        + lm_scale * lm.log_softmax(-1)
        + am_scale * (am + unigram).log_softmax(-1)
    )


@every
@pytest.mark.parametrize(
    ("am_scale", "lm_scale", "delay_penalty"), [(0, 0, 0), (0, 0.25, 0), (0.3, 0.2, 0.4)]
)
def test_simple_loss_is_the_sum_over_alignments(topology, am_scale, lm_scale, delay_penalty):
    am, lm = random(len(TARGETS), T, V), random(len(TARGETS), U + 1, V, seed=1)
    losses, _ = simple_loss(
        am, lm, TARGETS, LENGTHS, topology, am_scale, lm_scale, delay_penalty, prune_range=3
    )
    expected = enumerated_batch(smoothed(am, lm, am_scale, lm_scale), topology, delay_penalty)
    check(losses, [am, lm], expected)


@every
@pytest.mark.parametrize("delay_penalty", [0.0, 0.4])
def test_simple_loss_is_that_of_k2(topology, delay_penalty):
    am, lm = (10 * random(5, 40, 30)).float(), (10 * random(5, 21, 30, seed=1)).float()
    generator = torch.Generator().manual_seed(2)
    numbers, lengths = [20, 13, 1, 20, 6], torch.tensor([40, 25, 40, 20, 31])
    targets = [torch.randint(1, 30, (n,), generator=generator).tolist() for n in numbers]
    boundary = torch.tensor([[0, 0, n, t] for n, t in zip(numbers, lengths.tolist(), strict=True)])
    losses, ranges = simple_loss(am, lm, targets, lengths, topology, 0.1, 0.2, delay_penalty, 6)
    expected, gradients = k2.rnnt_loss_smoothed(
        lm,
        am,
        pad(targets),
        0,
        lm_only_scale=0.2,
        am_only_scale=0.1,
        boundary=boundary,
        rnnt_type=K2_TYPES[topology],
        delay_penalty=delay_penalty,
        reduction="none",
        return_grad=True,
    )
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-3)
    if topology == "rnnt":  # for the others, k2's are not good
        assert torch.equal(ranges, k2.get_rnnt_prune_ranges(*gradients, boundary, 6))
    for a, b in zip(
        torch.autograd.grad(losses.sum(), [am, lm]),
        torch.autograd.grad(expected.sum(), [am, lm]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


class Additive(torch.nn.Module):
    """A joiner with parameters, in double precision."""

    def __init__(self, dim):
        super().__init__()
        self.weight = torch.nn.Parameter(random(V, dim, seed=5).detach())

    def forward(self, encoder, predictor):
        return (torch.tanh(encoder + predictor) @ self.weight.T).log_softmax(-1)


def pruning_problem(topology, prune_range, delay_penalty=0.0, targets=TARGETS):
    """Encoder, predictor, joiner, all log-probabilities, and ranges."""
    encoder, predictor = random(len(targets), T, 6), random(len(targets), U + 1, 6, seed=1)
    joiner = Additive(6)
    am, lm = random(len(targets), T, V, seed=2), random(len(targets), U + 1, V, seed=3)
    _, ranges = simple_loss(
        am, lm, targets, LENGTHS, topology, delay_penalty=delay_penalty, prune_range=prune_range
    )
    log_probs = joiner(encoder.unsqueeze(2), predictor.unsqueeze(1))  # (N, T, U + 1, V)
    return encoder, predictor, joiner, log_probs, ranges


@every
@pytest.mark.parametrize("delay_penalty", [0.0, 0.3])
@pytest.mark.parametrize("prune_range", [2, 3, U + 1, U + 7])
def test_pruned_loss_is_the_sum_within_ranges(topology, prune_range, delay_penalty):
    encoder, predictor, joiner, log_probs, ranges = pruning_problem(
        topology, prune_range, delay_penalty
    )
    assert ranges.shape == (len(TARGETS), T, min(prune_range, U + 1))
    losses = pruned_loss(
        encoder, predictor, joiner, ranges, TARGETS, LENGTHS, topology, delay_penalty
    )
    expected = enumerated_batch(log_probs, topology, delay_penalty, ranges)
    check(losses, [encoder, predictor, joiner.weight], expected)
    # A part of the sum is no more than the sum; all of it where nothing is pruned.
    full = full_loss(log_probs, TARGETS, LENGTHS, topology, delay_penalty)
    if prune_range > U:
        torch.testing.assert_close(losses, full)
    else:
        assert (losses >= full - 1e-5).all()
    if prune_range == 2:
        assert (losses > full + 1e-3).any()


def plain_add(encoder, predictor):
    return (encoder + predictor).log_softmax(-1)


@every
def test_pruning_keeps_the_best_alignment_when_the_joiner_only_adds(topology):
    """Scores that make one alignment far likelier than all others; three positions of nine."""
    target, length = [1, 2, 3, 4, 5, 6, 7, 8], 12
    emissions = [0, 2, 2, 4, 7, 9, 9, 11] if topology == "rnnt" else [0, 2, 3, 4, 7, 9, 10, 11]
    am, lm = torch.zeros(1, length, 9), torch.full((1, 9, 9), -100.0)
    am[..., 0], lm[..., 0] = 20.0, 0.0  # blank, if the encoder does not hear the next label
    for u, (t, label) in enumerate(zip(emissions, target, strict=True)):
        am[0, t, label], lm[0, u, label] = 40.0, 0.0
    lengths = torch.tensor([length])
    loss, ranges = simple_loss(am, lm, [target], lengths, topology, lm_scale=0.0, prune_range=3)
    scores = plain_add(am.unsqueeze(2), lm.unsqueeze(1))

    scores = scores[0].tolist()

    def total(steps):
        return sum(scores[t][u][0 if i is None else target[i]] for t, u, i in steps)

    best = max(alignments(topology, length, len(target)), key=total)
    assert [t for t, _, label in best if label is not None] == emissions
    assert -total(best) == pytest.approx(loss.item(), abs=1e-4)
    assert all(u in ranges[0, t] for t, u, _ in best)
    pruned = pruned_loss(am, lm, plain_add, ranges, [target], lengths, topology)
    assert pruned.item() == pytest.approx(loss.item(), abs=1e-4)


def test_ranges_fit_the_labels_and_move_on():
    for topology in TOPOLOGIES:
        ranges = pruning_problem(topology, 2)[-1]
        starts = ranges[:, :, 0]
        assert torch.equal(ranges[:, :, 1], starts + 1)
        assert (ranges >= 0).all() and (ranges <= U).all()
        assert (starts.diff(dim=1) >= 0).all() and (starts.diff(dim=1) <= 1).all()


UNFIT_TARGETS = [[1, 2], [3, 3, 1, 2], [], [2, 1], [1, 1, 1]]  # 1 and 3 do not fit


def all_losses(topology, targets, lengths, prune_range=5):
    """Full, simple and pruned losses and the gradients of each one's input."""
    N, T, U = len(targets), int(lengths.max()), max(map(len, targets))
    logits, am, lm = random(5, 6, 5, V), random(5, 6, V, seed=1), random(5, 5, V, seed=2)
    a, b = am[:N, :T], lm[:N, : U + 1]
    full = full_loss(logits[:N, :T, : U + 1].log_softmax(-1), targets, lengths, topology)
    simple, ranges = simple_loss(a, b, targets, lengths, topology, prune_range=prune_range)
    pruned = pruned_loss(a, b, plain_add, ranges, targets, lengths, topology)
    return [
        (losses, torch.autograd.grad(losses.sum(), inputs, retain_graph=True))
        for losses, inputs in ((full, [logits]), (simple, [am, lm]), (pruned, [am, lm]))
    ]


@pytest.mark.parametrize("topology", ["rna", "constrained"])
def test_too_few_frames_harm_no_other(topology, capfd):
    """The same losses and gradients as with other labels in place of those that do not fit."""
    together = all_losses(topology, UNFIT_TARGETS, LENGTHS.clamp(max=3))
    assert capfd.readouterr() == ("", "")  # k2 warns of utterances whose sum is empty
    fitting = [target if n not in (1, 3) else [1] for n, target in enumerate(UNFIT_TARGETS)]
    others = all_losses(topology, fitting, LENGTHS.clamp(max=3))
    keep = torch.tensor([0, 2, 4])
    assert len(together) == 3
    for (losses, gradients), (expected, expected_gradients) in zip(together, others, strict=True):
        assert losses[[1, 3]].tolist() == [torch.inf] * 2
        torch.testing.assert_close(losses[keep], expected[keep])
        for a, b in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(a[keep], b[keep])
            assert b[keep].abs().max() > 0.1
            assert not a[[1, 3]].any()


def test_rnnt_has_more_labels_than_frames():
    """The batch as well: k2 asserts that its longest has a frame for each label."""
    targets, lengths = [[1, 2, 3, 1], [2, 2]], torch.tensor([2, 1])
    for losses, gradients in all_losses("rnnt", targets, lengths):
        assert losses.isfinite().all()
        assert all(gradient[n].any() for gradient in gradients for n in range(2))
    logits = random(2, 2, 5, V)
    log_probs = logits.log_softmax(-1)
    expected = torch.stack(
        [enumerated(log_probs[n], targets[n], int(lengths[n]), "rnnt") for n in range(2)]
    )
    check(full_loss(log_probs, targets, lengths), [logits], expected)


def test_rnnt_pruned_beyond_what_a_frame_lets_pass():
    """Two positions let one label pass a frame: the pruned sum is empty, the simple one is not."""
    targets, lengths = [[1, 2, 3, 1], [2, 2]], torch.tensor([3, 3])
    full, simple, pruned = all_losses("rnnt", targets, lengths, prune_range=2)
    assert full[0].isfinite().all() and simple[0].isfinite().all()
    assert pruned[0][0] == torch.inf and pruned[0][1].isfinite()
    for gradient in pruned[1]:
        assert not gradient[0].any()
        assert gradient[1].any() and gradient.isfinite().all()
    # One label less passes.
    fits = all_losses("rnnt", [[1, 2, 3], [2, 2]], lengths, prune_range=2)
    assert fits[2][0].isfinite().all()


@every
def test_a_batch_without_labels(topology):
    """Blank in each frame is the only alignment."""
    lengths = torch.tensor([3, 2])
    expected = []
    for n, length in enumerate(lengths.tolist()):
        log_probs = random(5, 6, 5, V)[n].log_softmax(-1)
        expected.append(-log_probs[:length, 0, 0].sum())
    full, simple, pruned = all_losses(topology, [[], []], lengths)
    torch.testing.assert_close(full[0].double(), torch.stack(expected), rtol=1e-5, atol=1e-5)
    am, lm = random(5, 6, V, seed=1), random(5, 5, V, seed=2)
    joint = smoothed(am[:2], lm[:2, :1], 0, 0)[:, :, 0, 0]  # (N, T)
    blank = torch.stack([-joint[n, :length].sum() for n, length in enumerate(lengths.tolist())])
    torch.testing.assert_close(pruned[0].double(), blank, rtol=1e-5, atol=1e-5)
    for losses, gradients in (full, simple, pruned):
        assert losses.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients)


@every
def test_padding_and_company_change_nothing(topology):
    """An utterance alone, and among others with large numbers in the padding."""
    logits = random(len(TARGETS), T + 3, U + 1, V).detach()
    am = random(len(TARGETS), T + 3, V, seed=1).detach()
    lm = random(len(TARGETS), U + 1, V, seed=2).detach()
    for n, (length, target) in enumerate(zip(LENGTHS.tolist(), TARGETS, strict=True)):
        logits[n, length:], logits[n, :, len(target) + 1 :] = 50.0, -50.0
        am[n, length:], lm[n, len(target) + 1 :] = 50.0, -50.0

    def losses(select, frames, labels):
        targets, lengths = [TARGETS[n] for n in select], LENGTHS[select]
        a, b = am[select, :frames], lm[select, : labels + 1]
        log_probs = logits[select, :frames, : labels + 1].log_softmax(-1)
        simple, ranges = simple_loss(a, b, targets, lengths, topology, prune_range=2)
        return torch.stack(
            [
                full_loss(log_probs, targets, lengths, topology),
                simple,
                pruned_loss(a, b, plain_add, ranges, targets, lengths, topology),
            ]
        )

    together = losses(list(range(len(TARGETS))), T + 3, U)
    for n, target in enumerate(TARGETS):
        alone = losses([n], int(LENGTHS[n]), len(target))[:, 0]
        if target:  # alone and without labels, nothing is pruned
            torch.testing.assert_close(together[:, n], alone, rtol=1e-5, atol=1e-4)


@every
def test_half_precision_inputs_give_the_loss_of_float32(topology):
    """Under bfloat16 autocast: the loss itself is computed as if there were none."""
    encoder, predictor, joiner, log_probs, _ = pruning_problem(topology, 3)
    am, lm = random(len(TARGETS), T, V, seed=2).float(), random(len(TARGETS), U + 1, V, seed=3)
    am, lm, log_probs = 10 * am.float(), 10 * lm.float(), log_probs.float()
    encoder, predictor = encoder.float(), predictor.float()
    joiner.float()

    def joiner_outside(a, b):
        """A joiner that is float32 in autocast, too, so that the loss alone is looked at."""
        with torch.autocast("cpu", enabled=False):
            return joiner(a, b)

    def losses():
        simple, ranges = simple_loss(am, lm, TARGETS, LENGTHS, topology, prune_range=3)
        pruned = pruned_loss(encoder, predictor, joiner_outside, ranges, TARGETS, LENGTHS, topology)
        return torch.stack([full_loss(log_probs, TARGETS, LENGTHS, topology), simple, pruned])

    expected = losses()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (am[0] @ lm[0].T).dtype == torch.bfloat16  # autocast is at work
        assert torch.equal(losses(), expected)
        rounded = full_loss(log_probs.bfloat16(), TARGETS, LENGTHS, topology)
    assert torch.equal(rounded, full_loss(log_probs.bfloat16().float(), TARGETS, LENGTHS, topology))


@pytest.mark.parametrize("prune_range", [1, 0, -3])
def test_a_range_of_one_position_lets_nothing_pass(prune_range):
    with pytest.raises(ValueError, match=f"prune_range {prune_range}"):
        simple_loss(
            torch.zeros(1, 3, V),
            torch.zeros(1, 2, V),
            [[1]],
            torch.tensor([3]),
            prune_range=prune_range,
        )
