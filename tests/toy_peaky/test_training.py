import dataclasses
import json
import math

import pytest
import torch

pytest.importorskip("k2")

from plateau.config import UserError
from plateau.graphs.counts import count_label, count_label_total, count_paths
from plateau.graphs.engines import GraphOptions, use_engine
from tests.graphs.enumeration import (
    STANDARD_PATTERNS,
    num_labels,
    sequences,
    total,
    unweighted,
    walk,
)
from toy_peaky import training
from toy_peaky.models import initial_parameters
from toy_peaky.options import Options
from toy_peaky.training import loss_and_gradient, train


def assert_same(result, expected, atol=1e-7):
    """Two results of a run are the same, but for sums that were added in another order."""
    record, expected_record = result.record(dump=True), expected.record(dump=True)
    assert record.keys() == expected_record.keys()
    for name, value in record.items():
        value = torch.tensor(value, dtype=torch.float64)
        wanted = torch.tensor(expected_record[name], dtype=torch.float64)
        torch.testing.assert_close(
            value, wanted, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


# The notes


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        (dict(target="0 0 1", classes=2), [5.2, 4.6, 90]),
        (dict(target="0 0 1", classes=2, blank_bias_init=-1.0), [69, 28, 3.7]),
        (dict(target="0 1", classes=2, blank_bias_init=-1.0), [48, 48, 3.3]),
        (dict(target="0", classes=2, blank_bias_init=-1.0), [92, 4.2, 3.1]),
        (dict(target="0", classes=2), [4.3, 3.8, 92]),
        (dict(target="0", classes=1, steps=1000), [1.1, 99]),
    ],
)
def test_mem_ends_as_in_the_notes(options, shares):
    (run,) = train(Options(model="mem", frames=100, **options))
    for share, expected in zip(run.avg_softmax, shares, strict=True):
        # In percent; the notes round some of them, and cut others.
        assert 100 * share == pytest.approx(expected, abs=0.1 if expected < 10 else 1)


# The first step


@pytest.mark.parametrize("name", STANDARD_PATTERNS)
def test_counts_predict_the_first_step(name):
    num_frames, lr = 60, 0.1
    mem = Options(model="mem", topology=name, frames=num_frames, lr=lr, steps=2)
    v, alignments = mem.num_labels, count_paths(mem.graph, num_frames)
    counts = count_label(mem.graph, num_frames)
    share = torch.tensor(
        [[at_t[s] / alignments for s in range(v)] for at_t in counts], dtype=torch.float64
    )  # (T, V): C(s, t, T) / C(T)

    losses, gradients = loss_and_gradient(mem, {"mem": torch.zeros(1, num_frames, v)})
    assert losses.item() == pytest.approx(num_frames * math.log(v) - math.log(alignments))
    torch.testing.assert_close(gradients["mem"][0], 1 / v - share, rtol=0, atol=1e-6)
    (run,) = train(mem)
    torch.testing.assert_close(
        run.last.posteriors, (lr * (share - 1 / v)).softmax(-1), rtol=0, atol=1e-6
    )

    bias = dataclasses.replace(mem, model="bias")
    totals = count_label_total(mem.graph, num_frames)
    expected = [num_frames / v - totals[s] / alignments for s in range(v)]
    _, gradients = loss_and_gradient(bias, {"bias": torch.zeros(1, v)})
    assert gradients["bias"][0].tolist() == pytest.approx(expected, abs=1e-5)
    (run,) = train(bias)
    assert max(run.avg_softmax) == run.avg_softmax[max(range(v), key=lambda s: totals[s])]

    inputs = f"{v - 1}x20 0x5 {v - 1}x10 0x25"
    linear = dataclasses.replace(mem, model="linear", input=inputs, frames=None)
    zeros = {"weight": torch.zeros(1, v, v), "bias": torch.zeros(1, 1, v)}
    _, gradients = loss_and_gradient(linear, zeros)
    x = torch.tensor(linear.input_labels)
    for symbol in range(v):
        by_symbol = (1 / v - share)[x == symbol].sum(0)
        torch.testing.assert_close(gradients["weight"][0, symbol], by_symbol, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradients["bias"][0, 0], (1 / v - share).sum(0), rtol=0, atol=1e-5)


# Descent on a formula, by enumeration

PATTERN, NUM_FRAMES = "B*a+B+a+B*b+B*", 6
PATHS = unweighted(sequences(PATTERN, NUM_FRAMES))
NUM_LABELS = num_labels(PATTERN)
PROBLEM = dict(target="0 0 1", frames=NUM_FRAMES, init="normal", seeds="0:3")


def soft_alignment(scores):
    """γ (T, V)."""
    leaf = scores.detach().requires_grad_()
    return torch.autograd.grad(total(leaf, PATHS), leaf)[0]


def log_average(log_probs):
    return log_probs.exp().mean(0).log()


# An objective has logits (T, V), the step of all steps, and what it remembers of former steps; and
# returns the loss, and what gradient descent follows, if it is another.


def plain(logits, *_):
    return -total(logits.log_softmax(-1), PATHS)


def viterbi(logits, *_):
    return -total(logits.log_softmax(-1), PATHS, best=True)


def with_prior(logits, *_):
    log_probs = logits.log_softmax(-1)
    return -total(log_probs - log_average(log_probs), PATHS)


def with_annealed_prior(logits, step, num_steps, _):
    log_probs = logits.log_softmax(-1)
    scale = 0.9 + (0.1 - 0.9) * step / (num_steps - 1)
    return -total(log_probs - scale * log_average(log_probs), PATHS)


def with_moving_prior(logits, step, num_steps, memory):
    log_probs = logits.log_softmax(-1)
    average = log_probs.exp().mean(0)
    if memory:
        average = 0.8 * memory["average"] + 0.2 * average
    memory["average"] = average.detach()
    return -total(log_probs - average.log(), PATHS)


def softmax_scaled_by_prior(logits, *_):
    normalised = logits - logits.logsumexp(-1, keepdim=True).detach()
    scaled = normalised - log_average(normalised.detach())
    return -total(scaled.log_softmax(-1), PATHS)


def generative(logits, *_):
    return -total(logits, PATHS)


def focal(logits, *_):
    log_probs = logits.log_softmax(-1)
    terms = -soft_alignment(log_probs) * log_probs
    return plain(logits), ((1 - log_probs.exp()) ** 2.5 * terms).sum()


def frames_weighted_by_prior(logits, *_):
    log_probs = logits.log_softmax(-1)
    gamma = soft_alignment(log_probs)
    weights = (gamma / log_average(log_probs.detach()).exp()).sum(-1)
    weights = weights / weights.mean()
    return plain(logits), -(weights * (gamma * log_probs).sum(-1)).sum()


def gradients_scaled_by_1_m_prior(logits, *_):
    loss = plain(logits)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    share = soft_alignment(logits.log_softmax(-1)).mean(0)
    return loss, (logits * gradient * (1 - share)).sum()


def descend(objective, options, seed):
    """Losses and last posteriors of a run, in double; the optimiser is torch's, for this run."""
    shapes = {"mem": (NUM_FRAMES, NUM_LABELS), "bias": (NUM_LABELS,)}
    shapes = {name: shapes[name] for name in options.model.split("+")}
    parameters = initial_parameters(options, shapes, seed)
    for values in parameters.values():
        values.requires_grad_()
    adam = torch.optim.Adam(parameters.values(), lr=options.lr)
    largest = max(values.numel() for values in parameters.values())
    losses, memory = [], {}
    for step in range(options.steps):
        zeros = torch.zeros(NUM_FRAMES, NUM_LABELS, dtype=torch.float64, requires_grad=True)
        logits = sum(parameters.values(), zeros)
        value = objective(logits, step, options.steps, memory)
        loss, followed = value if isinstance(value, tuple) else (value, value)
        losses.append(loss.item())
        if step == options.steps - 1:
            return losses, logits.detach().softmax(-1)
        gradients = torch.autograd.grad(followed, [*parameters.values()])
        for values, gradient in zip(parameters.values(), gradients, strict=True):
            if options.scale_update_inv_param_size:
                gradient = gradient * values.numel() / largest
            values.grad = gradient
            if options.optimizer == "sgd":
                values.data -= options.lr * gradient
        if options.optimizer == "adam":
            adam.step()


@pytest.mark.parametrize("model", ["mem", "bias", "mem+bias"])
@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (plain, dict()),
        (plain, dict(optimizer="adam")),
        (plain, dict(scale_update_inv_param_size=True)),
        (viterbi, dict(loss="max")),
        (with_prior, dict(loss="sum_with_prior")),
        (with_annealed_prior, dict(loss="sum_with_prior", prior_scale=0.9, prior_scale_end=0.1)),
        (with_moving_prior, dict(loss="sum_with_prior", prior_momentum=0.8)),
        (generative, dict(loss="gen_sum")),
        (softmax_scaled_by_prior, dict(scale_sm_by_prior=True)),
        (focal, dict(focal_factor=2.5)),
        (frames_weighted_by_prior, dict(frame_weights_by_prior=True)),
        (gradients_scaled_by_1_m_prior, dict(scale_grads_by_1_m_prior=True)),
    ],
)
def test_training_is_descent_on_the_formula(objective, options, model):
    # A bias has many best paths, but they have the same labels, and so the same gradient.
    options = Options(model=model, lr=0.2, steps=8, **PROBLEM, **options)
    for run in train(options):
        losses, posteriors = descend(objective, options, run.seed)
        assert run.loss == pytest.approx(losses, abs=2e-5)
        if options.scale_sm_by_prior:  # the posteriors are those of the scaled logits
            scaled = posteriors / posteriors.mean(0)
            posteriors = scaled / scaled.sum(-1, keepdim=True)
        torch.testing.assert_close(run.last.posteriors, posteriors, rtol=0, atol=2e-5)


def test_update_exact_makes_the_soft_alignment_the_posterior():
    options = Options(update_exact=True, steps=4, **PROBLEM)
    for run in train(options, snapshots=range(4)):
        for step in range(3):
            before, after = run.snapshots[step], run.snapshots[step + 1]
            gamma = soft_alignment(before.posteriors.log())
            torch.testing.assert_close(before.soft_alignment, gamma, rtol=0, atol=1e-6)
            torch.testing.assert_close(after.posteriors, before.soft_alignment, rtol=0, atol=1e-6)
        assert run.loss == sorted(run.loss, reverse=True)


# Company


def networks(model, **options):
    """Configurations of three lengths, with targets and seeds of their own."""
    return [
        Options(
            model=model, classes=2, init="normal", lr=0.05, steps=5, hidden_dim=3, **own, **options
        )
        for own in (
            dict(input="0x4 1x3 2x10", target="0 1", seeds="0:2"),
            dict(input="2 1 1 2 1 2", target="1 0", seeds="1:4"),
            dict(input="2x7 0x2", target="0", seeds="2"),
        )
    ]


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("linear", dict(logits_time_dropout=0.4, weight_noise=0.1)),
        ("linear", dict(loss="sum_with_prior", gradient_noise=0.1)),
        ("ffnn", dict(optimizer="adam", loss="sum+max", num_layers=2)),
        ("blstm", dict(optimizer="adam", scale_sm_by_prior=True, num_layers=2)),
        ("blstm", dict(frame_weights_by_prior=True, logits_time_dropout=0.2)),
        ("bias", dict(loss="sum_with_prior_sg", prior_momentum=0.5, prior_scale_end=0.5)),
        ("bias", dict(scale_grads_by_1_m_prior=True, scale_sm_by_prior=True)),
        ("bias", dict(focal_factor=1.0, scale_update_inv_param_size=True)),
    ],
)
def test_a_run_in_company_is_the_run_alone(model, options):
    configurations = networks(model, **options)
    alone = [
        train(dataclasses.replace(configuration, seeds=str(seed)))[0]
        for configuration in configurations
        for seed in configuration.seed_list
    ]
    together = train(configurations)
    assert len(together) == len(alone) == 6
    for result, expected in zip(together, alone, strict=True):
        assert_same(result, expected)


def test_mem_of_many_seeds_and_targets_in_one_batch():
    configurations = [
        Options(classes=3, target=target, frames=9, init="uniform", seeds=seeds, steps=5, lr=1.0)
        for target, seeds in (("0 1", "0:30"), ("2", "3:5"), ("1 1 2 0", "4"))
    ]
    together = train(configurations)
    assert [run.seed for run in together] == [*range(30), 3, 4, 4]
    for i, configuration, seed in ((0, 0, 0), (29, 0, 29), (31, 1, 4), (32, 2, 4)):
        (alone,) = train(dataclasses.replace(configurations[configuration], seeds=str(seed)))
        assert_same(together[i], alone)


@pytest.mark.parametrize("frames_at_once", [1, 40])  # a run at once, or two
def test_handing_runs_to_k2_in_parts_changes_nothing(monkeypatch, frames_at_once):
    configurations = networks("linear", loss="sum+max")
    expected = train(configurations)
    monkeypatch.setattr(training, "FRAMES_AT_ONCE", frames_at_once)
    assert len(training.Runs(configurations).parts()) == 6 // max(1, frames_at_once // 17)
    for result, other in zip(train(configurations), expected, strict=True):
        assert_same(result, other)


# Noise


@pytest.mark.parametrize(
    "noise",
    [
        dict(weight_noise=0.3),
        dict(gradient_noise=0.3),
        dict(logits_time_dropout=0.3, init="normal", seeds="5"),  # the start is that of seed 5
    ],
)
def test_noise_is_that_of_the_seed(noise):
    options = dict(target="0 1", frames=8, steps=6, seeds="0:4") | noise
    first, second = train(Options(**options)), train(Options(**options))
    assert [run.loss for run in first] == [run.loss for run in second]
    assert len({tuple(run.loss) for run in first}) == len(first)
    quiet = train(Options(**{**options, next(iter(noise)): 0.0}))
    assert all(run.loss != other.loss for run, other in zip(first, quiet, strict=True))


def test_gradient_noise_has_its_standard_deviation():
    options = Options(target="0", classes=2, frames=100, lr=0.5, steps=2, seeds="0:20")
    noisy = train(dataclasses.replace(options, gradient_noise=0.8))
    (quiet, *_) = train(options)
    added = torch.stack([run.last.posteriors.log() - quiet.last.posteriors.log() for run in noisy])
    added -= added.mean(-1, keepdim=True)  # logits are known up to a constant: 2 of 3 dimensions
    assert math.sqrt(added.square().mean() * 3 / 2) == pytest.approx(0.5 * 0.8, rel=0.05)


def test_weight_noise_is_drawn_anew_and_leaves_parameters_as_they_are():
    options = Options(target="0", classes=1, frames=50, lr=0.0, weight_noise=0.5, steps=12)
    (run,) = train(options, snapshots=range(12))
    differences = torch.stack(
        [run.snapshots[step].posteriors.log().diff(dim=-1).squeeze(-1) for step in range(12)]
    )  # (steps, T): of two logits
    deviation = differences.std(dim=1)
    assert deviation.tolist() == pytest.approx([0.5 * math.sqrt(2)] * 12, rel=0.35)
    assert torch.corrcoef(differences).fill_diagonal_(0).abs().max() < 0.5


def test_dropout_leaves_some_frames_without_logits_and_scales_the_others():
    options = Options(target="0", frames=2000, init="normal", steps=1, logits_time_dropout=0.25)
    (dropped,), (whole,) = (
        train(options),
        train(dataclasses.replace(options, logits_time_dropout=0.0)),
    )
    p = dropped.last.posteriors
    flat = (p - 0.5).abs().amax(-1) < 1e-12
    assert flat.double().mean().item() == pytest.approx(0.25, abs=0.03)
    expected = (whole.last.posteriors.log() / 0.75).softmax(-1)
    torch.testing.assert_close(p[~flat], expected[~flat])


# Results


def test_what_a_result_says():
    inputs = "2 2 0 0 1 2 2"
    options = Options(
        model="linear", classes=2, target="0 1", input=inputs, init="normal", steps=4, seeds="0:5"
    )
    reference = [int(label) for label in inputs.split()]
    paths = sequences("B*a+B*b+B*", 7)
    for run in train(options, snapshots=[0, 2]):
        p = run.last.posteriors
        assert sorted(run.snapshots) == [0, 2, 3] and run.last is run.snapshots[3]
        assert len(run.loss) == 4
        assert p.shape == run.last.soft_alignment.shape == (7, 3)
        torch.testing.assert_close(p.sum(-1), torch.ones(7, dtype=torch.float64))
        rows = p.tolist()
        assert run.loss[3] == pytest.approx(
            -math.log(sum(math.prod(rows[t][s] for t, s in enumerate(path)) for path in paths)),
            abs=1e-5,
        )
        for step, snapshot in run.snapshots.items():
            assert run.loss[step] == pytest.approx(
                -total(snapshot.posteriors.log(), unweighted(paths)).item(), abs=1e-5
            )
        average = [sum(row[s] for row in rows) / 7 for s in range(3)]
        assert run.avg_softmax == pytest.approx(average)
        assert run.peakiness == pytest.approx(max(average))
        assert run.avg_soft_alignment == pytest.approx(run.last.soft_alignment.mean(0).tolist())
        assert sum(run.avg_soft_alignment) == pytest.approx(1)
        assert run.min_blank_prob == min(row[2] for row in rows)
        assert run.sharpness == pytest.approx(sum(max(row) for row in rows) / 7)
        assert run.entropy == pytest.approx(-sum(x * math.log(x) for row in rows for x in row) / 7)
        likeliest = [row.index(max(row)) for row in rows]
        assert run.num_blank_argmax == likeliest.count(2)
        best = max(paths, key=lambda path: math.prod(rows[t][s] for t, s in enumerate(path)))
        score = math.prod(rows[t][s] for t, s in enumerate(best))
        found = math.prod(rows[t][s] for t, s in enumerate(run.viterbi))
        # Frames with the same input have the same posteriors: some best paths are equal.
        assert tuple(run.viterbi) in paths and found == pytest.approx(score)
        assert run.num_blank_viterbi == run.viterbi.count(2)
        errors = sum(a != b for a, b in zip(run.viterbi, reference, strict=True))
        assert run.fer_viterbi_to_ref == pytest.approx(errors / 7)
        errors = sum(a != b for a, b in zip(likeliest, reference, strict=True))
        assert run.fer_softmax_to_ref == pytest.approx(errors / 7)


def test_losses_are_those_before_each_update():
    options = Options(target="0 1", frames=6, init="normal", lr=0.5)
    (long,) = train(dataclasses.replace(options, steps=5), snapshots=range(5))
    for steps in (1, 2, 3, 4):
        (short,) = train(dataclasses.replace(options, steps=steps))
        assert short.loss == long.loss[:steps]
        assert short.last.posteriors.equal(long.snapshots[steps - 1].posteriors)
    assert long.loss == sorted(long.loss, reverse=True)


def test_a_record_is_json_and_has_references_and_posteriors_if_there_are_some():
    (run,) = train(Options(target="0", frames=4, steps=2))
    record = json.loads(json.dumps(run.record()))
    names = {field.name for field in dataclasses.fields(run)} - {"snapshots"}
    assert set(record) == names - {"fer_viterbi_to_ref", "fer_softmax_to_ref"}
    assert record["viterbi"] == run.viterbi and record["loss"] == run.loss
    posteriors = torch.tensor(run.record(dump=True)["posteriors"], dtype=torch.float64)
    assert posteriors.equal(run.last.posteriors)
    (run,) = train(Options(target="0", input="0 0 1", steps=2))
    assert set(run.record()) == names


def test_targets_may_be_weighted_fsas(tmp_path):
    (tmp_path / "fsa.txt").write_text("0 0 1 0.5\n0 1 0 1.5\n1 1 1 -0.5\n1 0\n")
    arcs = [(0, 0, 1, 0.5), (0, 1, 0, 1.5), (1, 1, 1, -0.5), (1, 2, -1, 0.0)]
    (run,) = train(Options(fsa=tmp_path / "fsa.txt", frames=5, steps=30, lr=0.5))
    uniform = torch.full((5, 2), math.log(0.5), dtype=torch.float64)
    assert run.loss[0] == pytest.approx(-total(uniform, walk(arcs, 5)).item(), abs=1e-5)
    assert run.viterbi == [1, 1, 1, 1, 0]  # 0.5 a frame before the label, -0.5 after it


@pytest.fixture
def with_k2():
    """In float32, k2 loses all paths of scores that are some 1e9."""
    use_engine(GraphOptions(engine="k2"))
    yield
    use_engine(GraphOptions())


@pytest.mark.parametrize(
    ("options", "seed", "step"),
    [
        (dict(seeds="4"), 4, 1),
        (dict(loss="gen_sum", seeds="7:9"), 7, 1),
        (dict(loss="gen_sum", seeds="4"), 4, 2),
    ],
)
def test_a_loss_that_is_not_finite_names_seed_and_step(options, seed, step, with_k2):
    with pytest.raises(
        UserError, match=f"seed {seed} is (inf|-inf|nan) at step {step}: "
    ) as caught:
        # The ends of their ranges.
        train(Options(target="0 1", frames=5, lr=1e6, gradient_noise=1000.0, **options))
    assert "\n" not in str(caught.value)


def test_impossible_options_are_found_before_training():
    with pytest.raises(UserError, match="the shortest has 3"):
        train([Options(target="0 1", classes=2), Options(target="0 0", frames=2, classes=2)])


@pytest.mark.parametrize(
    "other",
    [
        dict(target="0 1"),  # another number of labels
        dict(lr=0.2),
        dict(model="bias"),
        dict(frames=7),  # mem has parameters for each frame
        dict(input="0x6"),
    ],
)
def test_what_cannot_be_in_one_batch(other):
    options = dict(model="mem", target="0", frames=6)
    with pytest.raises(ValueError, match="one batch"):
        train([Options(**options), Options(**{**options, **other})])
