"""The open questions of the notes, with first answers."""

from dataclasses import replace
from statistics import mean

from toy_peaky.catalogue.measures import (
    EVEN,
    UNEVEN,
    agreement,
    blank_share,
    by_name,
    final_loss,
    frame_error,
    percent,
    shares,
)
from toy_peaky.experiment import Experiment, Results, Section
from toy_peaky.options import Options
from toy_peaky.pictures import loss_curves, posteriors_over_time

LINEAR = Options(model="linear", bias=False, classes=3)
SEEDS = replace(LINEAR, input=EVEN, init="normal", rnd_scale=0.1, seeds="0:50", steps=300)
BLSTM = Options(
    model="blstm", classes=3, input=UNEVEN, init="normal", rnd_scale=0.01, seeds="0:10", steps=200
)


def _agreement_ranks(results: Results) -> tuple[str, bool]:
    error = {name: frame_error(runs) for name, runs in results.items()}
    agreed = {name: agreement(runs) for name, runs in results.items()}
    entropy = {name: mean(run.entropy for run in runs) for name, runs in results.items()}
    seen = "; ".join(
        f"{name}: {percent(error[name])}, {percent(agreed[name])}, {entropy[name]:.2f}"
        for name in results
    )
    best_first = sorted(results, key=error.get)
    by_agreement = sorted(results, key=agreed.get, reverse=True)
    by_entropy = sorted(results, key=entropy.get)
    return f"frame error, agreement, entropy in nats: {seen}", (
        by_agreement == best_first != by_entropy
    )


def _share_error(results: Results) -> tuple[str, bool]:
    truth = [Options(input=UNEVEN).input_labels.count(label) / 100 for label in range(4)]
    errors = {
        name: sum(abs(a - b) for a, b in zip(runs[0].avg_softmax, truth, strict=True)) / 2
        for name, runs in results.items()
    }
    seen = "; ".join(
        f"{name}: {shares(runs[0])} (off by {percent(errors[name])})"
        for name, runs in results.items()
    )
    return seen, errors["sum_with_prior_sg"] < 0.02 < errors["sum"]


def _moving_average(results: Results) -> tuple[str, bool]:
    errors = {name: frame_error(runs) for name, runs in results.items()}
    seen = by_name(errors)
    moving = [error for name, error in errors.items() if name.startswith("moving")]
    this_step = [error for name, error in errors.items() if name.startswith("this step")]
    return f"frame error: {seen}", max(moving) == 0 < max(this_step)


def _annealing(results: Results) -> tuple[str, bool]:
    seen = "; ".join(
        f"{name}: loss {final_loss(runs):.2f}, frame error {percent(frame_error(runs))}"
        for name, runs in results.items()
    )
    plain, annealed = results["sum"], results["annealed"]
    return seen, (
        frame_error(annealed) == 0 < frame_error(plain) and final_loss(annealed) < final_loss(plain)
    )


def _recurrent(results: Results) -> tuple[str, bool]:
    seen = "; ".join(
        f"{name}: blank {percent(mean(map(blank_share, runs)))}, frame error "
        f"{percent(frame_error(runs))}, agreement {percent(agreement(runs))}"
        for name, runs in results.items()
    )
    return seen, frame_error(results["sum_with_prior_sg"]) < frame_error(results["sum"])


SECTION = Section(
    "Open questions",
    """What is a good alignment, and can it be measured? How can the true distribution of labels be
estimated? How does one stay out of bad optima from any start? First answers on these toys: frame
error against the ground truth where there is one, agreement over seeds and entropy where there is
none; the prior-scaled loss of a model without bias and context, as an estimate of label shares; a
prior that moves slowly; and annealing from the prior-scaled loss to the plain one.""",
    (
        Experiment(
            name="quality",
            source="open question",
            claim="Without a ground truth, agreement over seeds tells a good alignment: over five "
            "losses it has the order of the frame error (linear, normal start of scale 0.1). "
            "Entropy does not.",
            check=_agreement_ranks,
            setups={
                "sum": SEEDS,
                "max": replace(SEEDS, loss="max"),
                "sum_with_prior": replace(SEEDS, loss="sum_with_prior"),
                "sum_with_prior_sg": replace(SEEDS, loss="sum_with_prior_sg"),
                "scale_sm_by_prior": replace(SEEDS, scale_sm_by_prior=True),
            },
        ),
        Experiment(
            name="true_distribution",
            source="open question",
            claim="A linear layer without bias, trained with the stop-gradient prior, estimates "
            "the true shares of labels; plain CTC does not.",
            check=_share_error,
            setups={
                loss: replace(LINEAR, input=UNEVEN, loss=loss)
                for loss in ("sum", "sum_with_prior_sg")
            },
            remark="The truth is 15, 10, 20 and 55 % blank.",
        ),
        Experiment(
            name="prior_moving_average",
            source="open question",
            claim="A prior that is a moving average (momentum 0.9) reconstructs ground truths "
            "that the prior of each step does not.",
            check=_moving_average,
            setups={
                f"{kind}, {truth}": replace(
                    LINEAR,
                    input=labels,
                    loss="sum_with_prior_sg",
                    lr=0.01,
                    steps=400,
                    prior_momentum=momentum,
                )
                for kind, momentum in {"this step": 0.0, "moving": 0.9}.items()
                for truth, labels in {"even": EVEN, "uneven": UNEVEN}.items()
            },
            snapshots=(0, 20, 100),
            pictures=(posteriors_over_time,),
        ),
        Experiment(
            name="annealing",
            source="open question",
            claim="Annealing the prior's exponent from 1 to 0 ends at plain CTC's loss without "
            "frame errors, lower than plain CTC alone comes to.",
            check=_annealing,
            setups={
                "sum": replace(LINEAR, input=EVEN, lr=0.01, steps=400),
                "annealed": replace(
                    LINEAR,
                    input=EVEN,
                    lr=0.01,
                    steps=400,
                    loss="sum_with_prior_sg",
                    prior_scale_end=0.0,
                ),
            },
            snapshots=(0, 50, 200),
            pictures=(posteriors_over_time, loss_curves),
        ),
        Experiment(
            name="annealing_uneven",
            source="open question",
            claim="The same with the uneven ground truth.",
            check=_annealing,
            setups={
                "sum": replace(LINEAR, input=UNEVEN, lr=0.01, steps=400),
                "annealed": replace(
                    LINEAR,
                    input=UNEVEN,
                    lr=0.01,
                    steps=400,
                    loss="sum_with_prior_sg",
                    prior_scale_end=0.0,
                    prior_momentum=0.9,
                ),
            },
            snapshots=(0, 50, 200),
            pictures=(posteriors_over_time,),
            remark="With a moving average as prior; with that of each step the shortest label is "
            "lost.",
        ),
        Experiment(
            name="prior_blstm",
            source="open question",
            claim="With a blstm the prior lowers the frame error, too.",
            check=_recurrent,
            setups={
                "sum": BLSTM,
                "sum_with_prior_sg": replace(BLSTM, loss="sum_with_prior_sg"),
                "annealed": replace(
                    BLSTM, loss="sum_with_prior_sg", prior_scale_end=0.0, prior_momentum=0.9
                ),
            },
            snapshots=(0, 50),
            pictures=(posteriors_over_time,),
            remark="It does not. A model that sees the whole input can place labels where it "
            "likes: the prior fixes how many frames they have, not which. And agreement over seeds "
            "is no measure here: peaky alignments agree with each other, not with the truth.",
        ),
    ),
)
