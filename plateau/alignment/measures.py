"""Measures of alignments: errors in time, and peakiness. This is where they are defined.

All are means over what a set has (words, tokens, frames), not over its utterances. Times come in
seconds, as `Interval`, and go into measures in ms. Let w = 1 … W be the words of a set, (s_w, e_w)
the start and end that an alignment gives to w, and (s*_w, e*_w) the true ones. The words are those
of the transcript on both sides, so that the w-th belong together.

================================  ==================================================================
metric                            definition
================================  ==================================================================
word_start_error_ms               mean_w |s_w − s*_w|
word_end_error_ms                 mean_w |e_w − e*_w|
word_boundary_error_ms            mean of both: over the 2 W boundaries
…_error_ms_median                 the median in place of the mean
word_start_within_50ms, …         share of the starts (ends, boundaries) with an error of at most
                                  10, 25, 50, 100 ms; percent
word_start_delay_ms               mean_w (s_w − s*_w); late is positive
word_end_delay_ms                 mean_w (e_w − e*_w)
token_…                           the same for tokens, where their true times are known
emission_delay_ms                 mean over tokens of: time of the peak − (s* + e*) / 2
blank_fraction                    share of the encoder's frames without a label on the best path
label_run_frames                  mean over tokens of the frames that have the token on the best
                                  path
peakiness                         Σ_w (e*_w − s*_w) / time of the frames with a label of a word on
                                  the best path; the larger, the peakier
word_occupancy_error              ½ Σ_y |q(y) − p(y)|, percent: q(y) is the share of the frames that
                                  belong to y on the best path, p(y) its true share of time; y is
                                  each different word, and "nothing" (blank, silence)
token_occupancy_error             the same, y each token of the vocabulary
sharpness                         mean over frames of max_y p_t(y)
entropy_nats                      mean over frames of −Σ_y p_t(y) ln p_t(y)
================================  ==================================================================

When a word starts and ends, and that a lone ``▁`` is no label of a word: `plateau.alignment.files`.

Word and phone boundary errors are what Huang et al. 2024, "Less peaky and more accurate CTC forced
alignment by label priors" (arXiv:2406.02560), report; the mean over starts and ends is also called
accumulated averaging shift (Shi et al. 2023, arXiv:2301.12343). Delays are the symbol delays of
Kang et al. 2022, "Delay-penalized transducer for low-latency streaming ASR" (arXiv:2211.00490),
which icefall, too, takes as hypothesis minus reference.

A best path is peaky where blank has most frames and labels are spikes (Zeyer et al. 2021, "Why does
CTC result in peaky behavior?", arXiv:2105.14849). ``peakiness`` says how many times longer labels
last than the path has them: 1 is right; where every label is a spike of one frame, it is the true
mean duration of a token in frames. It needs no true times of tokens: the tokens of a word last as
long as the word. The occupancy error is a total variation distance. It is at least the difference
of ``blank_fraction`` and the true share of silence, and just that where no label has too much.

In `toy_peaky`, sharpness and entropy are the same as here, but peakiness is max_y mean_t p_t(y):
its experiments have no true durations, and ask whether one label takes all frames.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from lhotse import SupervisionSegment
from torch import Tensor

from plateau.alignment.files import AlignedUtterance
from plateau.data.corpus import Corpus
from plateau.data.tokens import BLANK_ID, WORD_START
from plateau.decoding.files import Interval
from plateau.models.subsampling import padding_mask

BOUNDS_MS = (10, 25, 50, 100)
Pair = tuple[Sequence[Interval], Sequence[Interval]]  # what an alignment says, and the truth


@dataclass(frozen=True)
class Measured:
    """An aligned utterance with all that is known of it.

    Args:
        aligned: its tokens and words
        duration: seconds, of the encoder's frames: up to one frame more than the audio
        runs: for each token the frames that have it on the best path, from the start of the first
            to the end of the last; tokens of one frame part it between them
        true_words: empty where unknown
        true_tokens: empty where unknown; see `matching`
        peaks: for each token the time when it is emitted, seconds: the centre of its frame, or of
            that frame of its run where its posterior is largest; empty if not to be measured
        sharpness: of `sharpness_and_entropy`; None if not to be measured
        entropy: the same; nats per frame
    """

    aligned: AlignedUtterance
    duration: float
    runs: Sequence[Interval]
    true_words: Sequence[Interval] = ()
    true_tokens: Sequence[Interval] = ()
    peaks: Sequence[float] = ()
    sharpness: float | None = None
    entropy: float | None = None


def measure(utterances: Sequence[Measured], frame_shift: float) -> dict[str, float]:
    """All measures of the module by name, for those utterances where what they need is known.

    A measure that no utterance has is left out.

    Args:
        utterances: of a set.
        frame_shift: seconds from one frame of the encoder to the next.

    Raises:
        ValueError: words or tokens that differ from the true ones, or not one run and peak for each
            token.
    """
    for u in utterances:
        num_tokens = len(u.aligned.tokens)
        if len(u.runs) != num_tokens or len(u.peaks) not in (0, num_tokens):
            raise ValueError(
                f"{u.aligned.id}: {num_tokens} tokens, {len(u.runs)} runs and {len(u.peaks)} peaks"
            )
    with_words = [u for u in utterances if u.true_words]
    with_tokens = [u for u in utterances if u.true_tokens]
    peaks = [(u.peaks, u.true_tokens) for u in with_tokens if u.peaks]

    values = boundary_errors([(u.aligned.words, u.true_words) for u in with_words], "word")
    values |= boundary_errors([(u.aligned.tokens, u.true_tokens) for u in with_tokens], "token")
    if peaks:
        values["emission_delay_ms"] = emission_delay(peaks)
    if any(u.runs for u in utterances):
        runs = [u.runs for u in utterances]
        values["blank_fraction"] = blank_fraction(runs, [u.duration for u in utterances])
        values["label_run_frames"] = label_run(runs) / frame_shift
    if with_words:
        # With their tokens; a lone ``▁`` is no label of a word.
        pairs = [
            [
                pair
                for pair in zip(u.runs, u.aligned.tokens, strict=True)
                if pair[0].label != WORD_START
            ]
            for u in with_words
        ]
        runs = [[run for run, _ in of_u] for of_u in pairs]
        truth = [u.true_words for u in with_words]
        values["peakiness"] = peakiness(zip(runs, truth, strict=True))
        values["word_occupancy_error"] = occupancy_error(
            [
                (runs_of_words(of_u, u.aligned.words), u.true_words)
                for of_u, u in zip(pairs, with_words, strict=True)
            ],
            [u.duration for u in with_words],
        )
    if with_tokens:
        values["token_occupancy_error"] = occupancy_error(
            [(u.runs, u.true_tokens) for u in with_tokens],
            [u.duration for u in with_tokens],
        )
    for name, field in (("sharpness", "sharpness"), ("entropy_nats", "entropy")):
        known = [u for u in utterances if getattr(u, field) is not None]
        if known:
            durations = [u.duration for u in known]
            values[name] = float(np.average([getattr(u, field) for u in known], weights=durations))
    return values


def boundary_errors(
    pairs: Iterable[Pair], kind: Literal["word", "token"] = "word"
) -> dict[str, float]:
    """Errors and delays of starts, ends, and boundaries (both together); see the module.

    Args:
        pairs: for each utterance the aligned and the true intervals, with the same labels.
        kind: with what the names of the metrics start.

    Returns:
        {} where there is no interval.

    Raises:
        ValueError: names the first label that is not the true one.
    """
    matched = [m for pair in pairs for m in _matched(pair, kind)]
    if not matched:
        return {}
    times = np.array([[a[:2], true[:2]] for a, true in matched])  # (W, 2, 2)
    # Times are sums of floats: without rounding, 0.31 s − 0.3 s is not within 10 ms.
    delays = np.round(1000 * (times[:, 0] - times[:, 1]), 6)  # (W, 2) ms, of start and end
    values = {}
    for name, d in (("boundary", delays), ("start", delays[:, 0]), ("end", delays[:, 1])):
        errors = np.abs(d)
        values[f"{kind}_{name}_error_ms"] = float(errors.mean())
        values[f"{kind}_{name}_error_ms_median"] = float(np.median(errors))
        for bound in BOUNDS_MS:
            values[f"{kind}_{name}_within_{bound}ms"] = 100 * float((errors <= bound).mean())
    values[f"{kind}_start_delay_ms"] = float(delays[:, 0].mean())
    values[f"{kind}_end_delay_ms"] = float(delays[:, 1].mean())
    return values


def emission_delay(pairs: Iterable[tuple[Sequence[float], Sequence[Interval]]]) -> float:
    """Mean of peak minus centre of the true token, ms; late is positive.

    Args:
        pairs: for each utterance the peaks of its tokens, in seconds, and the true tokens; at least
            one token in all.

    Raises:
        ValueError: not one peak for each token.
    """
    delays = [
        peak - (true.start + true.end) / 2
        for peaks, truth in pairs
        for peak, true in zip(peaks, truth, strict=True)
    ]
    return 1000 * sum(delays) / len(delays)


def blank_fraction(runs: Iterable[Sequence[Interval]], durations: Iterable[float]) -> float:
    """Share (0 … 1) of the encoder's frames without a label on the best path.

    Args:
        runs: of each utterance; where silence is a label, without its runs.
        durations: of the encoder's frames of each utterance, seconds, positive in all.
    """
    return 1 - sum(map(_duration, runs)) / sum(durations)


def label_run(runs: Iterable[Sequence[Interval]]) -> float:
    """Mean duration of a run, seconds; at least one run in all."""
    durations = [run.end - run.start for each in runs for run in each]
    return sum(durations) / len(durations)


def peakiness(pairs: Iterable[Pair]) -> float:
    """How many times longer labels last than the best path has them; see the module.

    Args:
        pairs: for each utterance its runs, and the true words or tokens; at least one run in all.
    """
    durations = [(_duration(runs), _duration(truth)) for runs, truth in pairs]
    of_runs, true = map(sum, zip(*durations, strict=True))
    return true / of_runs


def occupancy_error(pairs: Iterable[Pair], durations: Iterable[float]) -> float:
    """Total variation distance of the shares of time that labels have, percent (0 … 100).

    Args:
        pairs: for each utterance its runs, and the true intervals with labels of the same kind.
        durations: of each utterance, seconds, positive in all. What is in no interval is "nothing",
            and counts as a label.
    """
    total = sum(durations)
    excess: Counter[str] = Counter()  # q − p, of labels, in seconds
    for runs, truth in pairs:
        for run in runs:
            excess[run.label] += run.end - run.start
        for true in truth:
            excess[true.label] -= true.end - true.start
    nothing = -sum(excess.values())
    return 100 * (sum(map(abs, excess.values())) + abs(nothing)) / 2 / total


def sharpness_and_entropy(log_probs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Means over each utterance's frames: the largest posterior (N,), and the entropy (N,) in nats.

    Args:
        log_probs: (N, T, V), normalised; -inf is allowed, and anything beyond the lengths.
        lengths: (N,) ≥ 1.
    """
    lengths = lengths.to(log_probs.device)
    padding = padding_mask(lengths, log_probs.shape[1])  # (N, T)
    probs = log_probs.float().exp()  # (N, T, V)
    sharpness = probs.amax(2).masked_fill(padding, 0).sum(1) / lengths
    entropy = torch.special.entr(probs).sum(2).masked_fill(padding, 0).sum(1) / lengths
    return sharpness, entropy


def path_runs(path: Iterable[int], frame_shift: float, tokens: Sequence[str]) -> list[Interval]:
    """The runs of a CTC path: its stretches of equal labels, without blank.

    Args:
        path: (T,) a label for each frame of the encoder; blank is 0.
        frame_shift: seconds from one frame to the next.
        tokens: names of the labels.
    """
    runs, start = [], 0
    for label, frames in groupby(path):
        end = start + len(list(frames))
        if label != BLANK_ID:
            runs.append(Interval(start * frame_shift, end * frame_shift, tokens[label]))
        start = end
    return runs


def runs_of_words(
    pairs: Iterable[tuple[Interval, Interval]], words: Sequence[Interval]
) -> list[Interval]:
    """The runs of an utterance's tokens, labelled with the aligned words in which the tokens lie.

    Args:
        pairs: runs with their tokens, whose times, unlike a run's, are within the audio.
        words: aligned.

    Raises:
        ValueError: the centre of a token is in no word.
    """
    found, w = [], 0
    for run, token in pairs:
        centre = (token.start + token.end) / 2
        while w < len(words) and words[w].end <= centre:
            w += 1
        if w == len(words) or centre < words[w].start:
            raise ValueError(f"{token} is in none of the aligned words {list(words)}")
        found.append(run._replace(label=words[w].label))
    return found


def true_times(
    corpus: Corpus, set_name: str, kind: Literal["word", "phone"] = "word"
) -> dict[str, tuple[Interval, ...]]:
    """The true times of a set's utterances; see `times_of`.

    Raises:
        UserError: the set has no manifest.
    """
    return times_of(corpus.supervisions(set_name), kind)


def times_of(
    supervisions: Iterable[SupervisionSegment], kind: Literal["word", "phone"] = "word"
) -> dict[str, tuple[Interval, ...]]:
    """The true times of utterances by id, in seconds from the start of the utterance.

    They are the alignments of the supervisions, which come from ``ctm`` and ``phones.ctm``.

    Returns:
        only the utterances that have such times: {} where a corpus has none.
    """
    found = {}
    for supervision in supervisions:
        # Lhotse counts the times of alignments from the start of the recording.
        intervals = tuple(
            Interval(item.start - supervision.start, item.end - supervision.start, item.symbol)
            for item in (supervision.alignment or {}).get(kind, ())
        )
        if intervals:
            found[supervision.id] = intervals
    return found


def matching(aligned: Sequence[Interval], *candidates: Sequence[Interval]) -> Sequence[Interval]:
    """Those true intervals (phones, words) that have the labels of the aligned ones, or none.

    Characters and subwords have no true times. Words have, and so have phones where the lexicon
    gives what was said; that can differ from one utterance to the next.
    """
    labels = [interval.label for interval in aligned]
    return next((c for c in candidates if [i.label for i in c] == labels), ())


def _duration(intervals: Iterable[Interval]) -> float:
    return sum(interval.end - interval.start for interval in intervals)


def _matched(pair: Pair, kind: str) -> Iterable[tuple[Interval, Interval]]:
    aligned, truth = pair
    labels, true_labels = ([interval.label for interval in side] for side in pair)
    if labels != true_labels:
        same = [a == b for a, b in zip(labels, true_labels, strict=False)]
        first = (*same, False).index(False)
        raise ValueError(
            f"{kind} {first + 1} of the alignment is not that of the truth: "
            f"'{' '.join(labels)}' is aligned, and '{' '.join(true_labels)}' was said"
        )
    return zip(aligned, truth, strict=True)
