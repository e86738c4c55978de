"""How long the input is for its labels, and what blank may do."""

from dataclasses import replace
from itertools import pairwise
from statistics import mean

from toy_peaky.catalogue.measures import by_name, frame_error, is_peaky, percent, shares
from toy_peaky.experiment import Experiment, Results, Section
from toy_peaky.graph_pictures import graphs
from toy_peaky.options import Options
from toy_peaky.pictures import posteriors_over_time, ratio_over_length

WORD = "3x20 0x10 1x30 2x20 3x20"  # one word of three labels, 3 is blank or silence
TWO_WORDS = "4x10 0x30 1x30 2x30 4x10 3x30 4x10"
LINEAR = Options(model="linear", optimizer="adam")


def _longer_is_peakier(results: Results) -> tuple[str, bool]:
    first, last, steps = [], [], []
    for runs in results.values():
        first.append(mean(r.snapshots[0].soft_alignment[:, -1].mean().item() for r in runs))
        last.append(mean(run.avg_soft_alignment[-1] for run in runs))
        steps.append(mean(run.steps_below(1.0) for run in runs))
    seen = ", ".join(
        f"{name}: {percent(a)} → {percent(b)}, {n:.0f} steps"
        for name, a, b, n in zip(results, first, last, steps, strict=True)
    )
    return f"blank in the soft alignment, first → last: {seen}", all(
        a < b for values in (first, last, steps) for a, b in pairwise(values)
    )


def _shares_and_errors(results: Results) -> str:
    return "; ".join(
        f"{name}: {shares(run)}, frame error {percent(run.fer_softmax_to_ref)}"
        for name, (run,) in results.items()
    )


def _blank_is_peakier(results: Results) -> tuple[str, bool]:
    (blank,), (silence,) = results.values()
    return _shares_and_errors(results), is_peaky(blank) and not is_peaky(silence)


def _both_peaky(results: Results) -> tuple[str, bool]:
    return _shares_and_errors(results), all(is_peaky(run) for (run,) in results.values())


def _prior_saves_silence(results: Results) -> tuple[str, bool]:
    errors = {name: frame_error(runs) for name, runs in results.items()}
    seen = by_name(errors)
    return f"frame error: {seen}", not any(errors.values())


RATIO = Options(
    model="blstm",
    hidden_dim=20,
    init="uniform",
    rnd_scale=0.01,
    seeds="1:4",
    classes=3,
    optimizer="adam",
    lr=0.01,
    steps=1200,
)
RATIOS = {
    f"T = {10 * n}": replace(RATIO, input=f"3x{2 * n} 0x{n} 1x{3 * n} 2x{2 * n} 3x{2 * n}")
    for n in range(1, 10)
}

SECTION = Section(
    "Length, blank and silence",
    """The longer the input for its labels, the larger blank's part of the alignments, and the
longer training takes. Subsampling in an encoder shortens T, which is one reason why it helps CTC.

Silence instead of blank stands at word boundaries only. Then it does not dominate the counts, and
a model may keep its labels' durations; but a bias can still find the way to a single label.""",
    (
        Experiment(
            name="ratio_t_n",
            source="paper, simulation 6.1",
            claim="blstm, three labels, T = 10 … 90: the larger T / N, the more blank dominates, "
            "at the first step and at the last, and the more steps it takes to a loss below 1 nat.",
            check=_longer_is_peakier,
            setups=RATIOS,
            together=True,
            snapshots=(0,),
            pictures=(ratio_over_length,),
            remark="The paper has a layer of 500 and plain gradient descent; this is one of 20 "
            "with Adam, three seeds, all 27 runs in one batch.",
        ),
        Experiment(
            name="ctc_vs_sil",
            source="paper",
            claim="linear without bias, one word: peaky with blank, not peaky with silence, which "
            "gives the ground truth.",
            check=_blank_is_peakier,
            setups={
                name: replace(LINEAR, bias=False, topology=name, input=WORD, steps=50)
                for name in ("3label_blank", "3label_sil")
            },
            snapshots=(0, 10),
            pictures=(graphs, posteriors_over_time),
        ),
        Experiment(
            name="ctc_vs_sil_bias",
            source="paper",
            claim="With a bias, both are peaky.",
            check=_both_peaky,
            setups={
                name: replace(LINEAR, topology=name, input=WORD, steps=50)
                for name in ("3label_blank", "3label_sil")
            },
            remark="Silence, which has the most frames of the ground truth, takes blank's part.",
        ),
        Experiment(
            name="ctc_vs_sil_mem",
            source="paper",
            claim="mem, one word: peaky with blank, not peaky with silence.",
            check=_blank_is_peakier,
            setups={
                name: Options(model="mem", optimizer="adam", topology=name, input=WORD, steps=50)
                for name in ("3label_blank", "3label_sil")
            },
            snapshots=(0, 10),
            pictures=(posteriors_over_time,),
        ),
        Experiment(
            name="ctc_vs_sil_2words",
            source="paper",
            claim="linear without bias, two words: peaky with blank, not peaky with silence.",
            check=_blank_is_peakier,
            setups={
                name: replace(LINEAR, bias=False, topology=name, input=TWO_WORDS, steps=300)
                for name in ("4label_2words_blank", "4label_2words_sil")
            },
            snapshots=(0, 10),
            pictures=(posteriors_over_time,),
            remark="Not peaky is not right: with silence two labels have most of the frames, and "
            "the frame error is as with blank.",
        ),
        Experiment(
            name="sil_prior",
            source="paper",
            claim="With the stop-gradient prior, all four topologies give the ground truth "
            "(linear without bias).",
            check=_prior_saves_silence,
            setups={
                name: replace(
                    LINEAR, bias=False, topology=name, input=labels, loss="sum_with_prior_sg"
                )
                for labels, names in {
                    WORD: ("3label_blank", "3label_sil"),
                    TWO_WORDS: ("4label_2words_blank", "4label_2words_sil"),
                }.items()
                for name in names
            },
            snapshots=(0, 10),
            pictures=(posteriors_over_time,),
        ),
    ),
)
