"""Other losses, and other ways of training: Viterbi, priors, generative models, modifiers."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

from toy_peaky.catalogue.measures import (
    EVEN,
    UNEVEN,
    blank_share,
    by_name,
    centred,
    final_loss,
    frame_error,
    histogram,
    is_peaky,
    percent,
    spread,
    width,
)
from toy_peaky.experiment import Experiment, Results, Section
from toy_peaky.options import Options
from toy_peaky.pictures import blank_histogram, loss_curves, loss_map, posteriors_over_time
from toy_peaky.training import Result

MANY = Options(
    model="mem", frames=100, target="0", classes=1, init="normal", seeds="0:200", steps=50
)
SMALL = replace(MANY, rnd_scale=0.01)
LINEAR = Options(model="linear", bias=False, classes=1)
THREE = replace(LINEAR, classes=3)
FREE = Options(model="model_free", classes=1, input=centred(10), steps=300)
LOSSES = ("sum", "sum_with_prior", "sum_with_prior_sg")


def _evenly_spread(results: Results) -> tuple[str, bool]:
    seen, holds = [], True
    for name, runs in results.items():
        full = _all_but_one(runs)
        seen.append(f"{name}: {spread(runs)}, 99 blanks of 100 in {percent(full)} of runs")
        if "max" in name:
            holds &= full < 0.05 and (histogram(runs) > 0).sum() >= 12
    return "; ".join(seen), holds


def _no_run_is_all_blank(results: Results) -> tuple[str, bool]:
    seen = "; ".join(f"{name}: {spread(runs)}" for name, runs in results.items())
    return seen, all(blank_share(run) < 0.95 for runs in results.values() for run in runs)


def _more_random(results: Results) -> tuple[str, bool]:
    widths = {name: width(runs) for name, runs in results.items()}
    none = all(blank_share(run) < 0.95 for runs in results.values() for run in runs)
    seen = "; ".join(f"{name}: {spread(runs)}" for name, runs in results.items())
    return seen, none and widths["max"] > widths["sum"]


def _noise_makes_it_stable(results: Results) -> tuple[str, bool]:
    losses = {name: final_loss(runs) for name, runs in results.items()}
    widths = {name: width(runs) for name, runs in results.items()}
    seen = "; ".join(
        f"{name}: {spread(runs)}, loss {losses[name]:.2f}" for name, runs in results.items()
    )
    none, small, large = widths.values()
    return seen, large <= none and small <= none


def _similar_but_not_zero(results: Results) -> tuple[str, bool]:
    scaled, prior = results["scale_sm_by_prior"], results["sum_with_prior"]
    seen = "; ".join(
        f"{name}: {spread(runs)}, loss {final_loss(runs):.1f}" for name, runs in results.items()
    )
    near = abs(mean(map(blank_share, scaled)) - mean(map(blank_share, prior))) < 0.05
    return seen, near and final_loss(prior) < -10


def _reconstruction(results: Results) -> tuple[str, bool]:
    errors = {name: frame_error(runs) for name, runs in results.items()}
    seen = by_name(errors)
    peaky = any(is_peaky(run) for runs in results.values() for run in runs)
    return f"frame error: {seen}", not any(errors.values()) and not peaky


def _prior_where_sum_fails(results: Results) -> tuple[str, bool]:
    errors = {name: runs[0].fer_softmax_to_ref for name, runs in results.items()}
    seen = by_name(errors)
    failing = errors.pop("sum", 0.5)
    return f"frame error: {seen}", failing >= 0.5 and not any(errors.values())


def _many_amounts(results: Results) -> tuple[str, bool]:
    (runs,) = results.values()
    bins = histogram(runs)
    amounts = sum(bins >= 0.02 * len(runs))
    right = mean(run.fer_viterbi_to_ref == 0 for run in runs)
    seen = f"bins {bins.tolist()}; {amounts} of 20 bins have 2 % of the runs or more; "
    return f"{seen}no frame error in {percent(right)} of runs", amounts >= 3


def _no_longer_peaky(results: Results) -> tuple[str, bool]:
    runs = {name: run for name, (run,) in results.items()}
    seen = "; ".join(
        f"{name}: {percent(blank_share(run))}, {percent(run.fer_viterbi_to_ref)}"
        for name, run in runs.items()
    )
    plain = runs.pop("plain").fer_viterbi_to_ref
    helped = [run.fer_viterbi_to_ref < plain / 2 for run in runs.values()]
    return f"blank, and frame error: {seen}", all(helped)


def _less_blank(results: Results) -> tuple[str, bool]:
    seen = "; ".join(
        f"{name}: {spread(runs)}, {percent(_all_but_one(runs))}" for name, runs in results.items()
    )
    held = _all_but_one(results["scale_grads_by_1_m_prior"]) < 0.05
    return f"blank, and runs with 99 blanks of 100 in the best alignment: {seen}", held


def _all_but_one(runs: Sequence[Result]) -> float:
    return mean(run.num_blank_viterbi == len(run.viterbi) - 1 for run in runs)


VITERBI = Section(
    "The best alignment instead of all",
    """Viterbi training sees one alignment. Where the start is random, the best alignment is random
too: blank has no majority to win by. So the histograms are flat, and the result is as good as the
first guess.""",
    (
        Experiment(
            name="max_random",
            source="notes",
            claim="Loss max almost never gives 100 % blank; blank's share is much more evenly "
            "spread.",
            check=_evenly_spread,
            setups={
                "sum": SMALL,
                "max": replace(SMALL, loss="max"),
                "sum+max": replace(SMALL, loss="sum+max"),
            },
            pictures=(blank_histogram,),
            remark="From a start of scale 0.01. At zero all alignments tie, and which one is the "
            "best is k2's choice.",
        ),
    ),
)

PRIOR = Section(
    "Dividing by the prior",
    """Blank dominates because it is frequent. Posteriors divided by their own average over time,
as a hybrid HMM divides by its label prior, have no frequent label: the linear layer copies its
input, and no start ends in blank alone. The price: this loss has no fixed optimum at 0, and
whatever shares of labels one starts near are kept. A generative model, p(input | label), does not
have the problem in the first place.""",
    (
        Experiment(
            name="scale_sm_by_prior",
            source="notes",
            claim="scale_sm_by_prior solves the case of 100 % blank for any start.",
            check=_no_run_is_all_blank,
            setups={
                f"{model}, {start}": replace(MANY, model=model, scale_sm_by_prior=True, **options)
                for model in ("mem", "mem+bias")
                for start, options in {
                    "zero": {"init": "zero", "seeds": "0"},
                    "scale 0.01": {"rnd_scale": 0.01},
                    "scale 1": {},
                }.items()
            },
            pictures=(blank_histogram,),
            remark="With mem+bias and a start of scale 1 the alignments still come in two kinds, "
            "with much blank or little. In a bias alone nothing is left to learn: the prior is the "
            "posterior.",
        ),
        Experiment(
            name="scale_sm_by_prior_max",
            source="notes",
            claim="scale_sm_by_prior with loss max works too, but more randomly.",
            check=_more_random,
            setups={
                "sum": replace(SMALL, scale_sm_by_prior=True),
                "max": replace(SMALL, scale_sm_by_prior=True, loss="max"),
            },
            pictures=(blank_histogram,),
        ),
        Experiment(
            name="scale_sm_by_prior_noise",
            source="notes",
            claim="scale_sm_by_prior with weight noise 0.1 seems even more stable, better 0.01, "
            "which is the scale of the start.",
            check=_noise_makes_it_stable,
            setups={
                f"noise {noise:g}": replace(SMALL, scale_sm_by_prior=True, weight_noise=noise)
                for noise in (0.0, 0.01, 0.1)
            },
            remark="“Stable” is taken as: the shares of blank over 200 seeds are no wider apart.",
        ),
        Experiment(
            name="sum_with_prior_mem",
            source="notes",
            claim="Loss sum_with_prior in place of scale_sm_by_prior works similarly, but the "
            "optimum is not at 0 any more.",
            check=_similar_but_not_zero,
            setups={
                "scale_sm_by_prior": replace(SMALL, scale_sm_by_prior=True),
                "sum_with_prior": replace(SMALL, loss="sum_with_prior"),
            },
        ),
        Experiment(
            name="ffnn_sum_with_prior",
            source="paper, simulation 7.5",
            claim="The linear layer that gets peaky with CTC (n = 4) does not with the prior, nor "
            "with the stop-gradient prior (remark 7.6).",
            check=_prior_where_sum_fails,
            setups={loss: replace(LINEAR, input=centred(4), loss=loss) for loss in LOSSES},
            snapshots=(0, 2, 5, 20),
            pictures=(posteriors_over_time,),
        ),
        Experiment(
            name="linear_sum_with_prior",
            source="notes",
            claim="linear, no bias, ground truth even or not, zero start, sum_with_prior: perfect "
            "reconstruction, not peaky.",
            check=_reconstruction,
            setups={
                "one label, even": replace(LINEAR, input="1x25 0x50 1x25", loss="sum_with_prior"),
                "one label, uneven": replace(LINEAR, input="1x40 0x20 1x40", loss="sum_with_prior"),
                "three labels, even": replace(THREE, input=EVEN, loss="sum_with_prior"),
                "three labels, uneven": replace(THREE, input=UNEVEN, loss="sum_with_prior"),
            },
            snapshots=(0, 5),
            pictures=(posteriors_over_time,),
            remark="The uneven ground truth with three labels is not reconstructed from zero by "
            "this loss (with SGD or Adam, learning rates 0.01 and 0.1). With the stop-gradient "
            "prior and rate 0.1, a prior of scale 0.5, or a moving average "
            "(`prior_moving_average`), it is.",
        ),
        Experiment(
            name="linear_sum_with_prior_random",
            source="notes",
            claim="linear, no bias, ground truth even, normal start of scale 1, sum_with_prior: "
            "many possible amounts of blank.",
            check=_many_amounts,
            setups={
                "three labels": replace(
                    THREE, input=EVEN, loss="sum_with_prior", init="normal", seeds="0:200"
                )
            },
            pictures=(blank_histogram,),
        ),
        Experiment(
            name="generative_sum",
            source="paper, simulation 7.13",
            claim="A generative model, p(input | label), trained with the full sum, is not peaky.",
            check=_prior_where_sum_fails,
            setups={
                "n = 4": replace(
                    FREE, model="gen_model_free", loss="gen_sum", input=centred(4), steps=100
                )
            },
            snapshots=(0, 5, 20),
            pictures=(posteriors_over_time,),
        ),
        Experiment(
            name="loss_map_prior",
            source="paper",
            claim="In the plane of θ, descent from zero leads to the right labels with the prior, "
            "with the stop-gradient prior, and with the generative model.",
            check=_prior_where_sum_fails,
            setups={
                "sum_with_prior": replace(FREE, loss="sum_with_prior"),
                "sum_with_prior_sg": replace(FREE, loss="sum_with_prior_sg"),
                "gen_sum": replace(FREE, model="gen_model_free", loss="gen_sum"),
            },
            pictures=(loss_map,),
        ),
    ),
)

MODIFIERS = Section(
    "What else was thought of",
    """The notes end with thoughts: a focal loss against class imbalance, frames weighted by the
prior, masked logits, gradients scaled by one minus the prior. None of them replaces dividing by
the prior. They act on frames or on sizes of steps; the cause is which alignments are counted.""",
    (
        Experiment(
            name="thoughts_linear",
            source="notes, thoughts",
            claim="A focal factor, frame weights by the prior, logits dropout or scaled gradients "
            "keep CTC from getting peaky on the even ground truth (linear, zero start).",
            check=_no_longer_peaky,
            setups={
                name: replace(THREE, input=EVEN, **options)
                for name, options in {
                    "plain": {},
                    "focal 1": {"focal_factor": 1.0},
                    "focal 2": {"focal_factor": 2.0},
                    "frame weights": {"frame_weights_by_prior": True},
                    "dropout 0.5": {"logits_time_dropout": 0.5},
                    "scaled gradients": {"scale_grads_by_1_m_prior": True},
                }.items()
            },
            pictures=(loss_curves,),
            remark="A question of the notes, not a finding. The answer is no, for each of them.",
        ),
        Experiment(
            name="scale_grads",
            source="notes, thoughts",
            claim="scale_grads_by_1_m_prior keeps mem away from 100 % blank.",
            check=_less_blank,
            setups={
                "plain": SMALL,
                "scale_grads_by_1_m_prior": replace(SMALL, scale_grads_by_1_m_prior=True),
            },
            remark="A question of the notes, too. A gradient of 0 stays 0 whatever scales it: the "
            "same alignments are reached, only later.",
            pictures=(blank_histogram,),
        ),
    ),
)
