"""A bias: the same posteriors at every frame."""

from dataclasses import replace

from toy_peaky.catalogue.measures import (
    blank_share,
    centred,
    final_loss,
    histogram,
    is_peaky,
    only,
    percent,
    share_of_runs,
    shares,
    spread,
)
from toy_peaky.experiment import Experiment, Results, Section
from toy_peaky.options import Options
from toy_peaky.pictures import blank_histogram, loss_map, posteriors_over_time

BIAS = Options(model="bias", frames=100, target="0", classes=1)
MANY = replace(BIAS, init="normal", seeds="0:200", steps=50)


def _almost_only_blank(results: Results) -> tuple[str, bool]:
    run = only(results)
    return f"{shares(run)}; loss {run.loss[-1]:.2f}", is_peaky(run) and blank_share(run) > 0.5


def _not_sharp(results: Results) -> tuple[str, bool]:
    run = only(results)
    seen = (
        f"{shares(run)}; loss {run.loss[-1]:.2f}; blanks of the best alignment: "
        f"{run.num_blank_viterbi} of 5"
    )
    most = run.num_blank_argmax == 5 and run.num_blank_viterbi == 4
    return seen, run.sharpness < 0.9 and most and run.loss[-1] > 0.1


def _reinforced(results: Results) -> tuple[str, bool]:
    run = only(results)
    first = run.snapshots[0].soft_alignment[:, -1].mean().item()
    last = run.avg_soft_alignment[-1]
    return f"blank in the soft alignment: {percent(first)} at first, {percent(last)} at last", (
        last > first > 0.5
    )


def _all_or_nothing(results: Results) -> tuple[str, bool]:
    (runs,) = results.values()
    none, all_ = share_of_runs(runs, 0, 0.05), share_of_runs(runs, 0.95)
    low = final_loss([run for run in runs if blank_share(run) < 0.5])
    high = final_loss([run for run in runs if blank_share(run) > 0.5])
    seen = (
        f"{histogram(runs)[0]} runs below 5 % blank (loss {low:.2f}), {histogram(runs)[-1]} above "
        f"95 % (loss {high:.2f}), of {len(runs)}; in the notes 113 and 87"
    )
    return seen, none + all_ > 0.99 and low < 0.2 and high > 0.9


def _lr_100(results: Results) -> tuple[str, bool]:
    (runs,) = results.values()
    none, all_ = histogram(runs)[0], histogram(runs)[-1]
    seen = f"{none} runs below 5 % blank and {all_} above 95 %; in the notes 113 and 87"
    return seen, none > 50 and all_ > 50 and none + all_ == len(runs)


def _almost_always_blank(results: Results) -> tuple[str, bool]:
    (runs,) = results.values()
    blank = share_of_runs(runs, 0.95)
    loss = final_loss(runs)
    return f"{percent(blank)} of runs: {spread(runs)}; loss {loss:.2f}", blank > 0.9 and loss > 0.5


SECTION = Section(
    "A bias",
    """The smallest model has a logit per label and knows nothing of time. Any frame looks like any
other, so the best that it can do is the share of labels in the soft alignment, and blank's is the
largest. Training makes the share larger still: what blank gains in the posteriors it gains in the
next soft alignment.""",
    (
        Experiment(
            name="bias_blank0",
            source="notes",
            claim="bias, blank 0 at the start, 100 frames, target [0]: peaky, blank almost always.",
            check=_almost_only_blank,
            setups={"bias": BIAS},
            snapshots=(0, 1, 2, 5),
            pictures=(posteriors_over_time,),
        ),
        Experiment(
            name="bias_zero",
            source="notes",
            claim="bias, zero start: at the optimum posteriors are not sharp, but blank is "
            "likeliest everywhere; the loss stays above 0; the best alignment is peaky.",
            check=_not_sharp,
            setups={"bias": replace(BIAS, frames=5, steps=1000)},
            remark="With 5 frames, as in the paper. With 100 the posterior of blank is 99 %: "
            "sharp.",
        ),
        Experiment(
            name="bias_sum",
            source="paper, simulation 4.7",
            claim="bias with CTC converges to peaky, and the dominance of blank is reinforced on "
            "the way (5 frames).",
            check=_reinforced,
            setups={"bias": replace(BIAS, frames=5)},
            snapshots=(0,),
        ),
        Experiment(
            name="bias_random",
            source="notes",
            claim="bias, normal start, 200 seeds: 0 % or 100 % blank. 0 % is the true optimum "
            "with loss 0, 100 % has a high loss.",
            check=_all_or_nothing,
            setups={"normal, scale 1": MANY},
            remark="The notes add that the optimum of the zero start is almost never reached. "
            "Here every run at 100 % blank ends there, at loss 0.98.",
            pictures=(blank_histogram,),
        ),
        Experiment(
            name="bias_random_lr100",
            source="notes",
            claim="The same with learning rate 100 and updates scaled by parameter size: 113 runs "
            "with 0 %, 87 with 100 %.",
            check=_lr_100,
            setups={"lr 100": replace(MANY, lr=100.0, scale_update_inv_param_size=True)},
            remark="Not so here: a first step of 100 times the gradient leaves blank at 0 for "
            "good. The histogram of the notes is what learning rate 0.1 gives (`bias_random`); "
            "their script set that rate for histograms.",
        ),
        Experiment(
            name="bias_random_small",
            source="notes",
            claim="bias, normal start of scale 0.01: almost always 100 % blank, loss above 0.",
            check=_almost_always_blank,
            setups={"normal, scale 0.01": replace(MANY, rnd_scale=0.01)},
            pictures=(blank_histogram,),
        ),
        Experiment(
            name="bias_loss_map",
            source="paper",
            claim="From zero, gradient descent on the bias goes towards blank, though the loss is "
            "lowest where there is no blank at all.",
            check=_almost_only_blank,
            setups={"bias": Options(model="bias", frames=16, classes=1, input=centred(4))},
            pictures=(loss_map,),
        ),
    ),
)
