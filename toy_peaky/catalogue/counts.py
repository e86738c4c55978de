"""Before any training: how many alignments there are."""

from plateau.graphs.counts import chain_count_label, chain_count_label_total, chain_count_paths
from plateau.graphs.topology import STANDARD, standard_segments
from toy_peaky.catalogue.measures import by_name, percent
from toy_peaky.experiment import Experiment, Results, Section
from toy_peaky.options import Options
from toy_peaky.pictures import label_shares_of_counts


def _blank_share(name: str, num_frames: int) -> float:
    segments = standard_segments(name)
    blank = max(segment.label for segment in segments)
    total = num_frames * chain_count_paths(segments, num_frames)
    return chain_count_label_total(segments, blank, num_frames) / total


def _blank_has_most(results: Results) -> tuple[str, bool]:
    at = {t: _blank_share("1label", t) for t in (2, 4, 5, 10, 100)}
    seen = ", ".join(f"T = {t}: {percent(share)}" for t, share in at.items())
    majority = all(_blank_share("1label", t) > 0.5 for t in range(5, 1001))
    return f"blank's share of all frames: {seen}", majority


def _blank_has_nearly_every_frame(results: Results) -> tuple[str, bool]:
    segments, num_frames = standard_segments("1label"), 100
    half = chain_count_paths(segments, num_frames) / 2
    blanks = sum(chain_count_label(segments, 1, t, num_frames) > half for t in range(num_frames))
    return f"blank has more than half of the alignments in {blanks} of 100 frames", blanks >= 75


def _silence_has_less(results: Results) -> tuple[str, bool]:
    names = ("3label_blank", "3label_sil", "4label_2words_blank", "4label_2words_sil")
    at = {name: _blank_share(name, 100) for name in names}
    seen = by_name(at)
    return f"T = 100, {seen}", at[names[1]] < 0.5 < at[names[0]] and at[names[3]] < 0.5 < at[
        names[2]
    ]


def _predict_first_step(results: Results) -> tuple[str, bool]:
    worst = 0.0
    for name, (run,) in results.items():
        segments, alignment = standard_segments(name), run.last.soft_alignment  # (T, V)
        num_frames, num_labels = alignment.shape
        paths = chain_count_paths(segments, num_frames)
        for t in range(num_frames):
            for label in range(num_labels):
                share = chain_count_label(segments, label, t, num_frames) / paths
                worst = max(worst, abs(share - alignment[t, label].item()))
    return f"largest difference over 7 topologies, T = 40: {worst:.0e}", worst < 1e-5


SECTION = Section(
    "Counting alignments",
    """A label topology says which sequences of frame labels stand for a transcript. CTC's lets
blank stand anywhere, and labels repeat. Before training all posteriors are equal, so all
alignments weigh the same, and the soft alignment is a count: of C(T) alignments of T frames, C(s,
t, T) have label s at frame t.

A topology that is a chain of segments, each needed or optional, has binom(T − 1 + O, M + O − 1)
alignments, with M needed and O optional segments; over all alignments and frames a needed segment
has binom(T + O, M + O) frames and an optional one binom(T + O − 1, M + O), wherever it stands. A
segment of blank is worth as much as one of a label, and CTC has N + 1 of them. That is all: blank
dominates because it may stand in so many places.""",
    (
        Experiment(
            name="counts_blank",
            source="counts",
            claim="For one label (B*a+B*), blank has the majority of all frames of all alignments "
            "from T = 5 on, and two thirds in the limit.",
            check=_blank_has_most,
        ),
        Experiment(
            name="counts_dominated",
            source="counts",
            claim="And it has the majority in nearly every single frame.",
            check=_blank_has_nearly_every_frame,
        ),
        Experiment(
            name="counts_silence",
            source="counts",
            claim="Silence that may stand at word boundaries only does not have the majority.",
            check=_silence_has_less,
            pictures=(label_shares_of_counts,),
        ),
        Experiment(
            name="counts_first_step",
            source="counts",
            claim="The counts are the soft alignment of the first step: C(s, t, T) / C(T).",
            check=_predict_first_step,
            setups={name: Options(topology=name, frames=40, steps=1) for name in STANDARD},
        ),
    ),
)
